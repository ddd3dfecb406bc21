/** Three primaries of ours and, where it is installed, three members of etcd, both on tmpfs, and a client of each. @module */

import { join } from "node:path";
import { COMPILED, FROM_SOURCE } from "../tests/testkit/program.ts";
import { PrimaryGroup } from "../tests/testkit/primary_group.ts";
import { ClientProcess } from "./client_process.ts";
import { Etcd } from "./peers/etcd.ts";
import { requireBinary } from "./processes.ts";

const TMPFS = "/dev/shm";

/** Both sides, and who writes to them. */
export interface PrimaryWorld extends AsyncDisposable {
  readonly group: PrimaryGroup;
  readonly ours: ClientProcess;
  /** Missing where etcd is not installed. */
  readonly reference: { readonly etcd: Etcd; readonly client: ClientProcess } | undefined;
}

/** Starts both: ours compiled unless `--source` is given, etcd's program as `--etcd=PATH` says. */
export async function startPrimaryWorld(): Promise<PrimaryWorld> {
  const fromSource = Deno.args.includes("--source");
  if (!fromSource) requireBinary();
  if (!Deno.env.get("PRIMARY_DIR")) Deno.env.set("PRIMARY_DIR", TMPFS);
  const binary = Deno.args.find((one) => one.startsWith("--etcd="))?.slice(7) ?? "etcd";
  await using started = new AsyncDisposableStack();
  const etcd = await Etcd.start(binary, 3, TMPFS);
  if (etcd) started.use(etcd);
  const group = started.use(await PrimaryGroup.start(fromSource ? FROM_SOURCE : COMPILED, 3));
  const args = [await group.invite("rhizomorph"), join(group.home, "client")];
  const ours = started.use(await ClientProcess.start("raft_net_client.ts", args));
  const client = etcd && started.use(await ClientProcess.start("peers/etcd_client.ts", etcd.clientUrls));
  const all = started.move();
  return {
    group,
    ours,
    reference: etcd && client ? { etcd, client } : undefined,
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}
