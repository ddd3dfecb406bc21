import { FROM_SOURCE } from "../testkit/program.ts";
import { smokeSuite } from "../testkit/smoke.ts";

smokeSuite("from source", FROM_SOURCE);
