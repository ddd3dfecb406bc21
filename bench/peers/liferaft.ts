/**
 * Three nodes of liferaft in one process, in memory, with one client: what `raft.ts` divides by.
 *
 * Its commands may not overlap (two that do get one index), so there is no run with more clients.
 *
 * usage: deno run -A --no-config --no-lock --node-modules-dir=none bench/peers/liferaft.ts MILLISECONDS VALUE_BYTES
 *
 * @module
 */

/** What is used of a node of liferaft. */
interface LifeRaftNode {
  readonly address: string;
  state: number;
  on(event: string, listener: (...args: unknown[]) => void): void;
  emit(event: string, ...args: unknown[]): void;
  join(address: string): void;
  command(value: unknown): Promise<void>;
  end(): void;
}

// Named here so that the program itself never depends on it.
const [{ default: LifeRaft }, { default: Log }, { default: memdown }] = await Promise.all(
  ["npm:@markwylde/liferaft@1.4.0", "npm:@markwylde/liferaft@1.4.0/log.js", "npm:memdown@6.1.1"].map((one) =>
    import(one)
  ),
) as [
  {
    default: {
      new (options: unknown): LifeRaftNode;
      LEADER: number;
    };
  },
  { default: unknown },
  { default: unknown },
];

const [runMs = 1_000, valueBytes = 256] = Deno.args.map(Number);
const nodes = new Map<string, LifeRaftNode>();

/** A packet goes to the node of its address in a task of its own, as over a socket. */
function write(this: LifeRaftNode, packet: unknown, answer: (error: unknown, packet?: unknown) => void): void {
  const target = nodes.get(this.address);
  queueMicrotask(() => target?.emit("data", packet, (reply: unknown) => answer(undefined, reply)));
}

class Node extends LifeRaft {
  write = write;
}

const names = ["n0", "n1", "n2"];
for (const address of names) {
  const node = new Node({ address, Log, adapter: memdown, write });
  node.on("error", () => {});
  nodes.set(address, node);
}
for (const node of nodes.values()) for (const other of names) if (other !== node.address) node.join(other);
let leader: LifeRaftNode | undefined;
while (!leader) {
  await new Promise((resolve) => setTimeout(resolve, 20));
  leader = [...nodes.values()].find((one) => one.state === LifeRaft.LEADER);
}
let committed = () => {};
leader.on("commit", () => committed());
const took: number[] = [];
const value = "x".repeat(valueBytes);
const run = async (ms: number) => {
  const startMs = performance.now();
  while (performance.now() - startMs < ms) {
    const began = performance.now();
    const done = new Promise<void>((resolve) => committed = resolve);
    await leader.command(value);
    await done;
    took.push(performance.now() - began);
  }
  return performance.now() - startMs;
};
await run(200);
took.length = 0;
const elapsedMs = await run(runMs);
took.sort((a, b) => a - b);
console.log(JSON.stringify({
  perSecond: took.length / elapsedMs * 1000,
  p50Us: took[took.length >> 1]! * 1000,
  p99Us: took[Math.floor(took.length * 0.99)]! * 1000,
}));
Deno.exit(0);
