/**
 * Some nodes that gossip over real QUIC channels on loopback: one process of the bench `gossip_net.ts`.
 *
 * Each node has a network and a gossip core of its own. Commands come as lines of JSON on stdin, answers go to
 * stdout; see the types.
 *
 * usage: deno run -A bench/gossip_net_child.ts NODES
 *
 * @module
 */

import { concatBytes } from "../src/core/bytes.ts";
import { keyPairFromSeed } from "../src/core/crypto.ts";
import { LIMITS } from "../src/core/limits.ts";
import { seededRng } from "../src/core/rng.ts";
import { createP2pNetwork } from "../src/edge/p2p/mod.ts";
import type { Network } from "../src/ports/network.ts";
import { Gossip, type GossipEvent } from "../src/spore/gossip.ts";
import { isValid, makeRecord } from "./gossip_world.ts";

/** What the bench asks of a process. */
export type Ask =
  /** Open channels: pairs of a node of this process and an address. */
  | { readonly ask: "dial"; readonly pairs: readonly (readonly [number, string])[] }
  /** Broadcast the record of this number from a node. */
  | { readonly ask: "publish"; readonly node: number; readonly record: number }
  /** When did the nodes have the last record? */
  | { readonly ask: "report" };

/** What a process answers. */
export interface Answer {
  readonly addresses?: readonly string[];
  readonly dialed?: number;
  /** Wall clock of the publication, milliseconds. */
  readonly published?: number;
  /** Wall clock of each delivery since the last report. */
  readonly delivered?: readonly number[];
  readonly sends?: number;
  readonly frames?: number;
}

const KIND = Uint8Array.of(0x47);
let delivered: number[] = [];

const wallMs = () => performance.timeOrigin + performance.now();

class Node {
  readonly #core = new Gossip({ topics: ["news"], rng: seededRng(crypto.getRandomValues(new Uint32Array(1))[0]!) });
  readonly #networkId = new Uint8Array(32).fill(7);
  readonly network: Network;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.network = createP2pNetwork({
      keyPair: keyPairFromSeed(crypto.getRandomValues(new Uint8Array(32))),
      networkId: this.#networkId,
      discoverySecret: this.#networkId,
      listen: ["/ip4/127.0.0.1/udp/0/quic-v1"],
    }, {
      onPeer: ({ nodeId, direction }) =>
        this.step({ type: "peer-up", nowMs: Date.now(), nodeId, outbound: direction === "outbound" }),
      onPeerGone: (nodeId) => this.step({ type: "peer-down", nowMs: Date.now(), nodeId }),
      onRefused: () => {},
      onCall: () => Promise.resolve(),
      onDatagram: (from, bytes) => this.step({ type: "frame", nowMs: Date.now(), from, bytes: bytes.subarray(1) }),
    });
  }

  get counters() {
    return this.#core.view(Date.now()).counters;
  }

  step(event: GossipEvent): void {
    for (const effect of this.#core.step(event)) {
      switch (effect.type) {
        case "send":
          if (effect.bytes.length >= LIMITS.datagramBytesMax) throw new Error("larger than a datagram");
          this.network.sendDatagram(effect.to, concatBytes(KIND, effect.bytes));
          break;
        case "deliver": {
          const verdict = isValid(effect.body) ? "accept" : "reject";
          delivered.push(wallMs());
          this.step({ type: "verdict", nowMs: Date.now(), id: effect.id, verdict });
          break;
        }
        case "wakeAt":
          clearTimeout(this.#timer);
          if (effect.atMs === Infinity) break;
          this.#timer = setTimeout(
            () => this.step({ type: "wake", nowMs: Date.now() }),
            Math.max(1, effect.atMs - Date.now()),
          );
          break;
        case "misbehaved":
          break;
        default:
          effect satisfies never;
      }
    }
  }
}

function tell(answer: Answer): void {
  console.log(JSON.stringify(answer));
}

if (import.meta.main) {
  const nodes = Array.from({ length: Number(Deno.args[0]) }, () => new Node());
  for (const { network } of nodes) await network.start();
  tell({ addresses: nodes.map(({ network }) => network.addresses()[0]!) });
  let rest = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const ask = JSON.parse(line) as Ask;
      switch (ask.ask) {
        case "dial": {
          let dialed = 0;
          for (const [node, address] of ask.pairs) {
            // A machine that is busy with a hundred handshakes lets some of them run out of time.
            for (let tries = 0; tries < 5; tries++) {
              try {
                await nodes[node]!.network.dial(address, { signal: AbortSignal.timeout(20_000) });
                dialed += 1;
                break;
              } catch (error) {
                console.error(String(error));
              }
            }
          }
          tell({ dialed });
          break;
        }
        case "publish": {
          const body = makeRecord(ask.record);
          const published = wallMs();
          delivered.push(published);
          nodes[ask.node]!.step({ type: "publish", nowMs: Date.now(), topic: "news", body });
          tell({ published });
          break;
        }
        case "report": {
          const counters = nodes.map((one) => one.counters);
          const sum = (key: "messagesOut" | "framesOut") => counters.reduce((all, one) => all + one[key], 0);
          tell({ delivered, sends: sum("messagesOut"), frames: sum("framesOut") });
          delivered = [];
          break;
        }
        default:
          ask satisfies never;
      }
    }
  }
  Deno.exit(0);
}
