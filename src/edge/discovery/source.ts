/** What each source of discovery is given and has to offer. @module */

import type { CandidateSource, Verification } from "../../bootstrap/candidates.ts";
import type { KeyPair } from "../../core/crypto.ts";
import type { Rng } from "../../core/rng.ts";
import type { HostAddress, HostNetwork } from "./host_network.ts";
import type { DiscoveryMode, DiscoveryTiming, SourceState } from "./types.ts";

/** What a source says about an address. */
export interface Sighting {
  /** Multiaddr; names are resolved before the owner is told. */
  readonly address: string;
  readonly source: CandidateSource;
  readonly verification: Verification;
  /** How long it is good for, milliseconds from now; `NEVER_MS` for what the user said. */
  readonly forMs: number;
  /** When it was seen, where not now. */
  readonly seenMs?: number;
  /** Added to the source's rank, 0 to 9. */
  readonly preference?: number;
  /** For people. */
  readonly detail: string;
  /** The sender is on this very host or the user named it: loopback is meant. */
  readonly loopback?: boolean;
}

/** What a source may use. */
export interface SourceContext {
  readonly networkId: Uint8Array;
  readonly keyPair: KeyPair;
  readonly nodeId: string;
  readonly timing: DiscoveryTiming;
  readonly rng: Rng;
  now(): number;
  /** Current interfaces and routes; read again at most every two seconds. */
  hostNetwork(): HostNetwork;
  /** Whether an interface is to be used, by its name. */
  usesInterface(name: string): boolean;
  /** Tells the owner about an address, if it may be dialed. Returns whether it may. */
  sighted(sighting: Sighting): Promise<boolean>;
  refused(reason: string, from: string): void;
  report(source: CandidateSource, state: SourceState, detail: string): void;
  /** Plans of the pacer, shown beside the state. */
  planned(sources: readonly CandidateSource[], waitMs: number | undefined): void;
  countIn(bytes: number): void;
  countOut(bytes: number): void;
}

/** One way to find members. */
export interface Source {
  start(): void;
  stop(): Promise<void>;
  /** Asks now. */
  refresh(): void;
  setMode(mode: DiscoveryMode): void;
  /** Sets what to announce, where the source announces. */
  announce?(addresses: readonly string[]): void;
  /** The interfaces may have changed. Returns whether something could not be opened and is worth another try soon. */
  interfacesChanged?(used: readonly HostAddress[]): Promise<boolean>;
}
