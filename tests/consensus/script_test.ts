import { verifyEvidence } from "../../src/consensus/evidence.ts";
import type { ConsensusEffect } from "../../src/consensus/effects.ts";
import type { ConsensusMessage } from "../../src/consensus/messages.ts";
import { bitOf, type OperationClass } from "../../src/consensus/statements.ts";
import { type ScriptCommand, testScripts } from "../testkit/script_runner.ts";
import { NETWORK } from "./kit.ts";
import { Net } from "./net.ts";

/** The voters of a bitmap or of a set, by their numbers. */
const bits = (bitmap: Uint8Array) =>
  [...Array(8 * bitmap.length).keys()].filter((i) => bitOf(bitmap, i)).map((i) => i + 1);

function describeMessage(message: ConsensusMessage): string {
  switch (message.type) {
    case "propose":
      return `propose ${message.proposal.header.class} ${message.proposal.header.seq}, ${message.proposal.header.count} operation(s)`;
    case "commit":
      return `commit round ${message.commitment.statement.round}${message.shares ? "" : ", passed on"}`;
    case "lock":
      return `lock round ${message.round}, opened set frozen in ${message.opened.certificate.round}`;
    case "freeze-request": {
      const set = message.set.entries.map((one) => one.voter + 1).join(" ");
      return `freeze-request round ${message.round}, set {${set}}${message.carried ? ", carried" : ""}`;
    }
    case "frozen":
      return `frozen round ${message.certificate.round}, signed by {${bits(message.certificate.signers).join(" ")}}`;
    case "freeze-vote":
    case "precommit":
      return `${message.type} round ${message.round}`;
    case "open":
      return `open of n0${message.voter + 1}`;
    case "share":
      return `share of n0${message.dealer + 1}`;
    case "missing":
      return `missing {${bits(message.commitments).join(" ")}}, shares {${bits(message.shares).join(" ")}}`;
    case "unknown":
      return "unknown";
    case "decided":
      return `decided round ${message.certificate.round}`;
  }
}

/** A cluster that commands steer; prints what is sent, lost, decided and proved, in order. */
class Script {
  readonly #net: Net;
  #printed = 0;

  constructor(command: ScriptCommand) {
    this.#net = new Net(command.int("voters"));
  }

  run(command: ScriptCommand): readonly string[] {
    const net = this.#net;
    switch (command.name) {
      case "cluster":
        break;
      case "submit": {
        const body = new Uint8Array(0);
        const kind = `test/${command.text("operation", "good")}`;
        const of = command.text("class", "critical") as OperationClass;
        net.submit(command.text("node"), { class: of, operation: { kind, body } });
        break;
      }
      case "lie": {
        const liars = command.text("nodes", "").split(" ");
        net.votes = (id) => !liars.includes(id);
        return [];
      }
      // Messages that match all that is given are lost from now on; without arguments nothing is.
      case "lose": {
        const [type, from, to] = ["type", "from", "to"].map((key) => command.text(key, ""));
        const fits = (wanted: string | undefined, is: string) => wanted === "" || wanted!.split(" ").includes(is);
        const nothing = command.args.size === 0;
        net.passes = (a, b, message) => nothing || !(fits(type, message.type) && fits(from, a) && fits(to, b));
        return [];
      }
      case "restart":
        net.restart(command.text("node"));
        break;
      case "run":
        net.run(command.int("ms", 0));
        break;
      case "status":
        return [...net.cores].map(([id, core]) =>
          `${id} ${core.describe().map((one) => one.slice(9)).join("; ") || "idle"}`
        );
      default:
        throw command.unknown();
    }
    return this.#print();
  }

  /** The same to several receivers in a row is one line. */
  #print(): readonly string[] {
    const lines: { readonly head: string; readonly to: string[]; readonly tail: string }[] = [];
    for (const { at, effect } of this.#net.effects.slice(this.#printed)) {
      const line = this.#describe(effect);
      if (!line) continue;
      const last = lines.at(-1);
      if (last?.head === at && last.tail === line.tail && line.to) last.to.push(line.to);
      else lines.push({ head: at, to: line.to ? [line.to] : [], tail: line.tail });
    }
    this.#printed = this.#net.effects.length;
    return lines.map(({ head, to, tail }) => `${head}${to.length > 0 ? ` -> ${to.join(" ")}` : ""} ${tail}`);
  }

  #describe(effect: ConsensusEffect): { readonly to?: string; readonly tail: string } | undefined {
    switch (effect.type) {
      case "send":
        return { to: effect.to, tail: describeMessage(effect.message) };
      case "decided": {
        const { outcome, header, round, signers } = effect.certificate;
        const votes = Array.from({ length: header.count }, (_, i) => bitOf(outcome, i) ? "accepted" : "refused");
        const facts = effect.facts.map((one) => `${one.voter} ${one.fact}`).join(", ");
        return {
          tail: `decides: ${votes.join(" ")} in round ${round} by {${bits(signers).join(" ")}}; ${facts || "no facts"}`,
        };
      }
      case "evidence": {
        const verdict = verifyEvidence(effect.evidence, this.#net.table, NETWORK);
        return {
          tail: `proves ${effect.evidence.type} ${verdict.ok ? `of ${verdict.voter}: ${verdict.fault}` : "of nobody"}`,
        };
      }
      case "failed":
        return { tail: `fails: ${effect.reason}` };
      case "disputed":
        return { tail: "disputes it" };
      case "drop":
        return { tail: `drops from ${effect.from}: ${effect.reason}` };
      default:
        return undefined;
    }
  }
}

testScripts(import.meta.dirname + "/testdata", () => {
  let script: Script | undefined;
  return (command) => {
    if (command.name === "cluster") script = new Script(command);
    if (!script) throw new Error(`${command.place}: a script begins with "cluster"`);
    return script.run(command);
  };
});
