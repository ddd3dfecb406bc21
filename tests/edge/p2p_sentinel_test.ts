/** Sentinels: what the kernel of a machine tells of a process that died, and what it does not. @module */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { toHex } from "../../src/core/bytes.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { SENTINEL_METHOD, Sentinels } from "../../src/edge/p2p/sentinel.ts";
import { sleep, until } from "../compliance/network.ts";
import { LISTEN, makeNetwork, settle, warmUp } from "../testkit/p2p.ts";

await warmUp();

const BOTH = [LISTEN.quic, LISTEN.tcp];

/** Another process with a network on both transports. */
class Child implements AsyncDisposable {
  readonly nodeId: string;
  readonly #process: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #over = false;

  constructor(target = "") {
    const seed = crypto.getRandomValues(new Uint8Array(32));
    this.nodeId = nodeIdOf(keyPairFromSeed(seed).publicKey);
    this.#process = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--no-check", "-A", "--unstable-net"],
        new URL("../testkit/p2p_child.ts", import.meta.url).pathname,
        ...[toHex(seed), BOTH.join(","), "quic,tcp", "15000", ...(target ? [target] : [])],
      ],
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#lines = this.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  async address(): Promise<string> {
    let text = "";
    while (!text.includes("\n")) text += (await this.#lines.read()).value ?? "";
    return text.split("\n")[0]!;
  }

  signal(name: Deno.Signal): void {
    this.#process.kill(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It is dead already.
    }
    await this.#process.status;
    await this.#lines.cancel();
  }
}

/** TCP connections of this process that stand, by the kernel's table. */
function tcpConnections(): number {
  const own = new Set([...Deno.readDirSync("/proc/self/fd")].map(({ name }) => {
    try {
      return /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/self/fd/${name}`))?.[1];
    } catch {
      return undefined;
    }
  }));
  const rows = Deno.readTextFileSync("/proc/self/net/tcp").split("\n").map((line) => line.trim().split(/\s+/));
  return rows.filter((row) => row[3] === "01" && own.has(row[9])).length;
}

for (const dialer of ["this node", "the other"] as const) {
  Deno.test(`[3.3c] a killed process is told of by its machine, a stopped one is not (dialed by ${dialer})`, async () => {
    const gone: string[] = [];
    const opened: string[] = [];
    const network = makeNetwork({ listen: BOTH }, {
      onGone: (nodeId) => gone.push(nodeId),
      onPeer: (peer) => opened.push(peer.nodeId),
    });
    await network.start();
    try {
      const before = tcpConnections();
      await using child = new Child(dialer === "the other" ? network.addresses()[0]! : "");
      const address = await child.address();
      if (dialer === "this node") await network.dial(address, { signal: AbortSignal.timeout(5_000) });
      await until("there is a channel", () => opened.length === 1, 10_000);
      await until("a sentinel stands", () => tcpConnections() > before, 10_000);
      await sleep(200);
      child.signal("SIGSTOP");
      await sleep(700);
      child.signal("SIGCONT");
      await sleep(300);
      deepStrictEqual(gone, []);
      child.signal("SIGKILL");
      await until("its machine tells", () => gone.length > 0);
      deepStrictEqual(gone, [child.nodeId]);
      strictEqual(network.peers().length, 1, "it is a hint: the channel stays");
    } finally {
      await network.stop();
      await settle();
    }
  });
}

Deno.test("[3.3c] Sentinels: an end where somebody still listens is no death, and the sentinel is set up again", async () => {
  const gone: string[] = [];
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conns: Deno.TcpConn[] = [];
  let accepted = 0;
  const accepting = (async () => {
    for await (const conn of listener) {
      accepted++;
      conns.push(conn);
    }
  })();
  const asked: string[] = [];
  const closed = new AbortController();
  const sentinels = new Sentinels({ port: () => 0, onGone: (nodeId) => gone.push(nodeId) });
  const { port } = listener.addr;
  sentinels.watch({
    nodeId: "other",
    host: "127.0.0.1",
    direction: "outbound",
    channelBinding: new Uint8Array(32).fill(7),
    closed: closed.signal,
    call: (method) => {
      asked.push(method);
      return Promise.resolve(Uint8Array.of(port >> 8, port & 255));
    },
  });
  await until("a sentinel stands", () => accepted === 1);
  const preface = new Uint8Array(64);
  strictEqual(await conns[0]!.read(preface), 24);
  conns[0]!.close();
  // One connection shows that somebody listens, the next is the new sentinel.
  await until("another one stands", () => accepted === 3);
  deepStrictEqual(gone, []);
  deepStrictEqual(asked, [SENTINEL_METHOD, SENTINEL_METHOD]);
  listener.close();
  await accepting;
  conns[2]!.close();
  await until("nobody listens", () => gone.length === 1);
  closed.abort();
  conns[1]!.close();
});

Deno.test("[3.3c] Sentinels: a closed channel takes its sentinel along, and who has none answers for nobody", async () => {
  const gone: string[] = [];
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const closed = new AbortController();
  const sentinels = new Sentinels({ port: () => 4_871, onGone: (nodeId) => gone.push(nodeId) });
  const channelBinding = new Uint8Array(32).fill(9);
  const { port } = listener.addr;
  sentinels.watch({
    nodeId: "other",
    host: "127.0.0.1",
    direction: "outbound",
    channelBinding,
    closed: closed.signal,
    call: () => Promise.resolve(Uint8Array.of(port >> 8, port & 255)),
  });
  const conn = await listener.accept();
  listener.close();
  const preface = new Uint8Array(64);
  await conn.read(preface);
  closed.abort();
  strictEqual(await conn.read(preface), null, "it was closed with the channel");
  conn.close();
  await sleep(100);
  deepStrictEqual(gone, [], "whose channel has closed is no business of a sentinel");
  for (const body of [new Uint8Array(0), Uint8Array.of(1), new Uint8Array(500)]) {
    deepStrictEqual(sentinels.answer(new Uint8Array(32), body), Uint8Array.of(4_871 >> 8, 4_871 & 255));
    ok(sentinels.answer(undefined, body));
  }
});
