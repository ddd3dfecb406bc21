/**
 * A process that loses power in the middle of writing a seed: it kills itself at a given step.
 *
 * Arguments: path, content, versions to keep, number of the rename or write-sync at which it dies (from 1).
 */

import { writeWhole } from "../../src/edge/disk/whole_file.ts";

const [path = "", content = "", keep = "0", diesAt = "1"] = Deno.args;
let step = 0;
const maybeDie = () => {
  step += 1;
  if (step === Number(diesAt)) Deno.kill(Deno.pid, "SIGKILL");
};
const rename = Deno.rename;
Deno.rename = async (from, to) => {
  maybeDie();
  await rename(from, to);
};
const open = Deno.open;
Deno.open = async (file, options) => {
  if (options?.write) maybeDie();
  return await open(file, options);
};
await writeWhole(path, new TextEncoder().encode(content), { mode: 0o644, keep: Number(keep) });
console.log(`steps ${step}`);
