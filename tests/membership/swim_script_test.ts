/** Failure detection in scripts: what one node does when this and that happens. @module */

import { seededRng } from "../../src/core/rng.ts";
import { Swim } from "../../src/membership/swim.ts";
import type { ChannelHint, SwimEffect, SwimEvent } from "../../src/membership/swim_events.ts";
import type { SwimMessage, SwimUpdate } from "../../src/membership/swim_messages.ts";
import { type ScriptCommand, testScripts } from "../testkit/script_runner.ts";

/** The node under test is `m`; handles of the others are single letters. */
class Node {
  readonly #swim: Swim;
  #nowMs = 0;
  #wakeMs = Infinity;
  /** Numbers of the pings in the order in which they went out: scripts call them p1, p2 … */
  readonly #seqs: number[] = [];

  constructor(command: ScriptCommand) {
    this.#swim = new Swim({ self: "m", rng: seededRng(command.int("seed", 1)) });
  }

  run(command: ScriptCommand): readonly string[] {
    const nowMs = this.#nowMs = command.int("now", this.#nowMs);
    switch (command.name) {
      case "start": {
        const members = new Set(words(command.text("members")));
        const watched = new Set(words(command.text("watched", [...members].join(","))));
        return [
          ...this.#step({ type: "start", nowMs, incarnation: command.int("incarnation", 0) }),
          ...this.#step({ type: "view", nowMs, members, watched }),
        ];
      }
      case "view": {
        const members = new Set(words(command.text("members")));
        const watched = new Set(words(command.text("watched", [...members].join(","))));
        return this.#step({ type: "view", nowMs, members, watched });
      }
      case "up":
        return words(command.text("node")).flatMap((id) => this.#step({ type: "channel-up", nowMs, id }));
      case "down":
        return this.#step({
          type: "channel-down",
          nowMs,
          id: command.text("node"),
          hint: command.text("hint") as ChannelHint,
        });
      case "gone":
        return this.#step({ type: "gone", nowMs, id: command.text("node") });
      case "heard":
        return this.#step({ type: "heard", nowMs, from: command.text("node"), answered: false });
      case "call-done":
        return this.#step({ type: "fallback-done", nowMs, id: command.text("node"), ok: command.text("ok") === "yes" });
      case "wake":
        return this.#step({ type: "wake", nowMs });
      case "until": {
        // Wakes the node whenever it wants to be, as a driver does.
        const endMs = command.int("ms");
        const lines: string[] = [];
        while (this.#wakeMs <= endMs) {
          this.#nowMs = Math.max(this.#nowMs, this.#wakeMs);
          const out = this.#step({ type: "wake", nowMs: this.#nowMs });
          lines.push(...out.map((line) => `${this.#nowMs} ${line}`));
        }
        this.#nowMs = endMs;
        return lines;
      }
      case "message":
        return this.#step({ type: "message", nowMs, from: command.text("from"), message: this.#message(command) });
      case "news":
        return this.#step({
          type: "news",
          nowMs,
          origin: command.text("from"),
          updates: updatesOf(command.text("updates")),
        });
      case "show": {
        const { awareness, incarnation, suspects, dead } = this.#swim.inspect();
        return [`awareness=${awareness} incarnation=${incarnation} suspects=${suspects} dead=${dead}`];
      }
      default:
        throw command.unknown();
    }
  }

  #message(command: ScriptCommand): SwimMessage {
    const type = command.text("type");
    const updates = updatesOf(command.text("updates", ""));
    const named = command.text("seq", "77");
    const seq = named.startsWith("p") ? this.#seqs[Number(named.slice(1)) - 1]! : Number(named);
    const incarnation = command.int("incarnation", 1);
    switch (type) {
      case "ping":
        return { type, seq, incarnation, nextMs: command.int("next", 0), updates };
      case "ack":
        return { type, seq, incarnation, updates };
      case "ping-req":
        return { type, seq, target: command.text("target"), updates };
      case "indirect-ack":
        return { type, seq };
      case "nack":
        return { type, seq, tried: command.text("tried", "yes") === "yes" };
      case "news":
        return { type, updates };
      default:
        throw new Error(`${command.place}: no message of type ${type}`);
    }
  }

  #step(event: SwimEvent): string[] {
    this.#wakeMs = Infinity;
    return this.#describe(this.#swim.step(event));
  }

  #describe(effects: readonly SwimEffect[]): string[] {
    return effects.flatMap((effect) => {
      switch (effect.type) {
        case "send":
          return [`send ${effect.to}: ${this.#text(effect.message)}`];
        case "fallback":
          return [`call ${effect.to}`];
        case "publish":
          return [`publish ${textOf(effect.updates)}`];
        case "observe":
          return [`${effect.id} is ${effect.state}${effect.reachable ? "" : ", unreachable"}: ${effect.reason}`];
        case "persist":
          return [`persist ${effect.incarnation}`, ...this.#describe(effect.then).map((line) => `  then ${line}`)];
        case "wakeAt":
          this.#wakeMs = effect.atMs;
          return [];
      }
    });
  }

  #text(message: SwimMessage): string {
    const updates = "updates" in message && message.updates.length > 0 ? ` ${textOf(message.updates)}` : "";
    switch (message.type) {
      case "ping":
        this.#seqs.push(message.seq);
        return `ping p${this.#seqs.length}${message.nextMs > 0 ? ` next=${message.nextMs}` : ""}${updates}`;
      case "ack":
        return `ack ${message.seq} incarnation=${message.incarnation}${updates}`;
      case "ping-req": {
        const of = this.#seqs.indexOf(message.seq);
        return `ping-req ${of < 0 ? "new" : `p${of + 1}`} target=${message.target}${updates}`;
      }
      case "indirect-ack":
        return `indirect-ack ${message.seq}`;
      case "nack":
        return `nack ${message.seq} tried=${message.tried ? "yes" : "no"}`;
      case "news":
        return `news${updates}`;
    }
  }
}

function words(text: string): string[] {
  return text === "" ? [] : text.split(",");
}

/** `dead b 3` or `dead b 3 by c`, several with semicolons. */
function updatesOf(text: string): SwimUpdate[] {
  return text.split(";").filter((one) => one.trim() !== "").map((one) => {
    const [kind, subject, incarnation, , accuser] = one.trim().split(" ");
    return {
      kind: kind as SwimUpdate["kind"],
      subject: subject!,
      incarnation: Number(incarnation),
      ...(accuser ? { accuser } : {}),
    };
  });
}

function textOf(updates: readonly SwimUpdate[]): string {
  const one = ({ kind, subject, incarnation, accuser }: SwimUpdate) =>
    `${kind} ${subject} ${incarnation}${accuser ? ` by ${accuser}` : ""}`;
  return `[${updates.map(one).join("; ")}]`;
}

testScripts(import.meta.dirname + "/testdata", () => {
  let node: Node | undefined;
  return (command) => {
    if (command.name === "start") node = new Node(command);
    if (!node) throw new Error(`${command.place}: wanted "start" first`);
    return node.run(command);
  };
});
