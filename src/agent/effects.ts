/**
 * What reaches the agent and what it wants done: the contract between the pure agent and its driver.
 *
 * The driver (`edge/runtime.ts`, or the simulator) carries out the effects of one step in their order.
 * What may only follow durability rides in `then` of the persist effect.
 *
 * @module
 */

import type { Subject } from "../access/decide.ts";
import type { AuditEvent, AuditHead } from "../access/audit.ts";
import type { IncidentSettings } from "../access/incidents.ts";
import type { Candidate } from "../bootstrap/candidates.ts";
import type { Capabilities } from "../core/capabilities.ts";
import type { ControlError, ControlRequest } from "./control.ts";
import type { SignedCommand } from "./commands.ts";

/** The other end of an open channel, as far as the agent needs it. */
export interface PeerView {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly remoteAddress: string;
  readonly transport: string;
  readonly direction: "inbound" | "outbound";
  readonly openedMs: number;
  /** 32 bytes that both ends share, or missing. */
  readonly channelBinding: Uint8Array | undefined;
}

/** How a dial or a call ended where it did not succeed. */
export interface CallFailure {
  readonly ok: false;
  readonly code: string;
  readonly message: string;
}

/** What can happen to an agent. Time always arrives as an input. */
export type AgentEvent =
  | { readonly type: "start"; readonly nowMs: number; readonly capabilities: Capabilities }
  | { readonly type: "wake"; readonly nowMs: number }
  /** The addresses where this node can be reached have changed. */
  | { readonly type: "addresses"; readonly nowMs: number; readonly addresses: readonly string[] }
  | { readonly type: "capabilities"; readonly nowMs: number; readonly capabilities: Capabilities }
  | { readonly type: "candidate"; readonly nowMs: number; readonly candidate: Candidate }
  | { readonly type: "peer-up"; readonly nowMs: number; readonly peer: PeerView }
  | { readonly type: "peer-down"; readonly nowMs: number; readonly nodeId: string; readonly reason: string }
  /** The machine behind a channel says that no process listens there any more; the channel is still open. */
  | { readonly type: "peer-gone"; readonly nowMs: number; readonly nodeId: string }
  | {
    readonly type: "dial-done";
    readonly nowMs: number;
    readonly dialId: number;
    readonly result: { readonly ok: true; readonly nodeId: string } | CallFailure;
  }
  | {
    readonly type: "call-done";
    readonly nowMs: number;
    readonly callId: number;
    readonly result: { readonly ok: true; readonly body: Uint8Array; readonly elapsedMs: number } | CallFailure;
  }
  /** Another node calls. Every one is answered by `reply`, `reply-error` or `run-command`. */
  | {
    readonly type: "inbound";
    readonly nowMs: number;
    readonly inboundId: number;
    readonly peer: PeerView;
    readonly method: string;
    readonly body: Uint8Array;
  }
  /** Another node says something that may have been lost, doubled or overtaken on its way. */
  | { readonly type: "datagram"; readonly nowMs: number; readonly from: string; readonly bytes: Uint8Array }
  /** A seed was found in a file or on a web server; it was looked at with `Agent.readSeed`. */
  | { readonly type: "seed"; readonly nowMs: number; readonly content: Uint8Array; readonly from: string }
  /** The network or discovery has refused something before it came here. */
  | { readonly type: "refused"; readonly nowMs: number; readonly reason: string; readonly from: string }
  /** A segment of the audit log was closed; `kept` is the first entry on the disk. */
  | { readonly type: "audit-sealed"; readonly nowMs: number; readonly head: AuditHead; readonly kept: number }
  /** The audit log of this node is not what it was: one sentence. */
  | { readonly type: "audit-damage"; readonly nowMs: number; readonly why: string }
  /** The rules about incidents were set anew. */
  | { readonly type: "incident-settings"; readonly nowMs: number; readonly settings: IncidentSettings }
  /** A secret was moved out of the store, as `export-secret` asked for. */
  | { readonly type: "secret-exported"; readonly nowMs: number; readonly key: string; readonly path: string }
  /** Somebody asks, who has shown who he is. Every one is answered by `control-reply`. */
  | {
    readonly type: "control";
    readonly nowMs: number;
    readonly controlId: number;
    readonly request: ControlRequest;
    readonly by: Subject;
  };

/** What the driver must do, in order. */
export type AgentEffect =
  /** Store durably and all together (`null` deletes), then carry out `then`. Keys under `secret/` become files of mode 0600. */
  | {
    readonly type: "persist";
    readonly puts: readonly (readonly [string, Uint8Array | null])[];
    readonly then: readonly AgentEffect[];
  }
  | {
    readonly type: "start-network";
    readonly seed: Uint8Array;
    readonly networkId: Uint8Array;
    readonly discoverySecret: Uint8Array;
    readonly trusted: readonly Uint8Array[];
  }
  | { readonly type: "stop-network" }
  | { readonly type: "discovery"; readonly mode: "seeking" | "member" | "isolated" | "off" }
  /** Dial; `trusted` addresses were named by a person or a verified member on this host's own links. */
  | { readonly type: "dial"; readonly dialId: number; readonly address: string; readonly trusted: boolean }
  | { readonly type: "hang-up"; readonly nodeId: string; readonly reason: string }
  | {
    readonly type: "call";
    readonly callId: number;
    readonly nodeId: string;
    readonly method: string;
    readonly body: Uint8Array;
    readonly timeoutMs: number;
  }
  /** Send without promise of arrival; dropped where no channel is open. At most `LIMITS.datagramBytesMax`. */
  | { readonly type: "datagram"; readonly nodeId: string; readonly bytes: Uint8Array }
  | { readonly type: "reply"; readonly inboundId: number; readonly body: Uint8Array }
  | { readonly type: "reply-error"; readonly inboundId: number; readonly code: string; readonly message: string }
  /** Run a verified remote command and stream its output to the caller. */
  | { readonly type: "run-command"; readonly inboundId: number; readonly command: SignedCommand; readonly by: string }
  | {
    readonly type: "control-reply";
    readonly controlId: number;
    readonly result: { readonly ok: true; readonly value: unknown } | {
      readonly ok: false;
      readonly error: ControlError;
    };
  }
  /** Move a secret out of the state directory to a file that must not exist yet. */
  | { readonly type: "export-secret"; readonly controlId: number; readonly key: string; readonly path: string }
  | { readonly type: "wakeAt"; readonly atMs: number }
  | {
    readonly type: "log";
    readonly level: "debug" | "info" | "warn" | "error";
    readonly event: string;
    readonly message: string;
    readonly fields: { readonly [name: string]: string | number | boolean };
  }
  /** Append to the audit log. */
  | ({ readonly type: "audit" } & Omit<AuditEvent, "atMs">)
  /** Count a refusal. */
  | { readonly type: "refused"; readonly reason: string; readonly from: string };
