import { utf8 } from "../../src/core/bytes.ts";
import { seededRng } from "../../src/core/rng.ts";
import { Gossip, type GossipEffect, type GossipEvent, type Verdict } from "../../src/spore/gossip.ts";
import { decodeFrame, encodeFrame, type MessageId, messageId } from "../../src/spore/gossip_wire.ts";
import { type ScriptCommand, testScripts } from "../testkit/script_runner.ts";

/** One node; its peers are what the script says they are. Messages are named by their texts. */
class Bench {
  readonly #gossip: Gossip;
  readonly #texts = new Map<MessageId, string>();
  readonly #lines: string[] = [];
  #nowMs = 0;
  #wakeAtMs = Infinity;

  constructor(command: ScriptCommand) {
    this.#gossip = new Gossip({
      topics: words(command.text("topics", "news")),
      rng: seededRng(command.int("seed", 1)),
      thrifty: command.has("thrifty"),
    });
  }

  run(command: ScriptCommand): readonly string[] {
    this.#lines.length = 0;
    const nowMs = this.#nowMs;
    switch (command.name) {
      case "up": {
        const outbound = command.has("outbound");
        for (const nodeId of words(command.text("node"))) this.#step({ type: "peer-up", nowMs, nodeId, outbound });
        break;
      }
      case "down":
        this.#step({ type: "peer-down", nowMs, nodeId: command.text("node") });
        break;
      case "frame": {
        const frame = {
          messages: words(command.text("m", "")).map((text) => ({ topic: this.#topic(command), body: utf8(text) })),
          ihave: this.#ids(command, "ihave"),
          iwant: this.#ids(command, "iwant"),
          idontwant: this.#ids(command, "idontwant"),
          graft: words(command.text("graft", "")),
          prune: words(command.text("prune", "")).map((topic) => ({ topic, backoffS: command.int("backoff", 60) })),
          choke: words(command.text("choke", "")),
          unchoke: words(command.text("unchoke", "")),
        };
        for (const { topic, body } of frame.messages) {
          this.#texts.set(messageId({ topic, body }), new TextDecoder().decode(body));
        }
        const times = command.int("times", 1);
        for (const from of words(command.text("from"))) {
          for (let i = 0; i < times; i++) this.#step({ type: "frame", nowMs, from, bytes: encodeFrame(frame) });
        }
        break;
      }
      case "publish": {
        const [topic, body] = [this.#topic(command), utf8(command.text("m"))];
        this.#texts.set(messageId({ topic, body }), command.text("m"));
        this.#step({ type: "publish", nowMs, topic, body });
        break;
      }
      case "verdict":
        for (const id of this.#ids(command, "m")) {
          this.#step({ type: "verdict", nowMs, id, verdict: command.text("is") as Verdict });
        }
        break;
      case "thrifty":
        this.#step({ type: "thrifty", nowMs, thrifty: command.text("is") === "yes" });
        break;
      case "wait": {
        const endMs = nowMs + command.int("ms");
        while (this.#wakeAtMs <= endMs) {
          this.#nowMs = Math.max(this.#nowMs, this.#wakeAtMs);
          this.#wakeAtMs = Infinity;
          const before = this.#lines.length;
          this.#step({ type: "wake", nowMs: this.#nowMs });
          for (let i = before; i < this.#lines.length; i++) this.#lines[i] = `${this.#nowMs} ms: ${this.#lines[i]}`;
        }
        this.#nowMs = endMs;
        break;
      }
      case "state": {
        const view = this.#gossip.view(nowMs);
        for (const { topic, mesh, eager } of view.topics) {
          const lazy = mesh.filter((one) => !eager.includes(one));
          this.#lines.push(`${topic}: eager ${list(eager)}, lazy ${list(lazy)}`);
        }
        this.#lines.push(`scores ${list(view.peers.map((one) => `${one.nodeId}=${one.score}`))}`);
        this.#lines.push(`cached ${view.cached}, wanted ${view.wanted}, next wake ${this.#wakeAtMs}`);
        break;
      }
      default:
        throw command.unknown();
    }
    return [...this.#lines];
  }

  #topic(command: ScriptCommand): string {
    return command.text("topic", "news");
  }

  #ids(command: ScriptCommand, key: string): MessageId[] {
    return words(command.text(key, "")).map((text) => {
      const id = messageId({ topic: this.#topic(command), body: utf8(text) });
      this.#texts.set(id, text);
      return id;
    });
  }

  #step(event: GossipEvent): void {
    for (const effect of this.#gossip.step(event)) {
      if (effect.type === "wakeAt") this.#wakeAtMs = effect.atMs;
      else this.#lines.push(this.#describe(effect));
    }
  }

  #describe(effect: Exclude<GossipEffect, { type: "wakeAt" }>): string {
    switch (effect.type) {
      case "send": {
        const frame = decodeFrame(effect.bytes);
        const names = (ids: readonly MessageId[]) => ids.map((id) => this.#texts.get(id) ?? "?").join(" ");
        const parts = [
          frame.messages.map((one) => new TextDecoder().decode(one.body).slice(0, 12)).join(" "),
          frame.ihave.length > 0 ? `ihave ${names(frame.ihave)}` : "",
          frame.iwant.length > 0 ? `iwant ${names(frame.iwant)}` : "",
          frame.idontwant.length > 0 ? `idontwant ${names(frame.idontwant).slice(0, 12)}` : "",
          frame.graft.length > 0 ? `graft ${frame.graft.join(" ")}` : "",
          frame.prune.length > 0 ? `prune ${frame.prune.map((one) => `${one.topic} ${one.backoffS} s`).join(" ")}` : "",
          frame.choke.length > 0 ? `choke ${frame.choke.join(" ")}` : "",
          frame.unchoke.length > 0 ? `unchoke ${frame.unchoke.join(" ")}` : "",
        ];
        return `-> ${effect.to}: ${parts.filter((one) => one !== "").join(", ")}`;
      }
      case "deliver":
        return `deliver ${this.#texts.get(effect.id)} from ${effect.from}`;
      case "misbehaved":
        return `misbehaved ${effect.nodeId}: ${effect.what}`;
      default:
        return effect satisfies never;
    }
  }
}

const words = (text: string) => text.split(" ").filter((one) => one !== "");
const list = (items: readonly string[]) => items.length === 0 ? "-" : items.join(" ");

testScripts(import.meta.dirname + "/testdata/gossip", () => {
  let bench: Bench | undefined;
  return (command) => {
    if (command.name === "gossip") {
      bench = new Bench(command);
      return [];
    }
    return bench!.run(command);
  };
});
