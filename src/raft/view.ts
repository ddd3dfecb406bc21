/**
 * What a Raft node is made of, and what it shows.
 *
 * @module
 */

import type { Rng } from "../core/rng.ts";
import type { ClusterConfig } from "./config.ts";
import type { RaftOptions, Role, StoredRaft } from "./effects.ts";
import type { Progress } from "./progress.ts";

/** What a node is made of. */
export interface RaftParts {
  /** This node. */
  readonly id: string;
  /** Spreads election timeouts. */
  readonly rng: Rng;
  /** Grows with each start of the node: an answer to an earlier life's read must not answer one of this. */
  readonly incarnation: number;
  /** What the disk holds. Missing: nothing. */
  readonly stored?: StoredRaft;
  /** The configuration before the first entry. The same on all who found a cluster; missing on those who join it. */
  readonly founding?: ClusterConfig;
  /** @default {DEFAULT_RAFT_OPTIONS} */
  readonly options?: Partial<RaftOptions>;
}

/** A view of a node, for status and tests. */
export interface RaftView {
  readonly id: string;
  readonly role: Role;
  readonly term: number;
  readonly votedFor: string | undefined;
  readonly leader: string | undefined;
  readonly prevIndex: number;
  readonly lastIndex: number;
  readonly stableIndex: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly config: ClusterConfig;
  /** Whether the configuration is committed. */
  readonly configCommitted: boolean;
  readonly transferringTo: string | undefined;
  readonly uncommittedBytes: number;
  readonly snapshotIndex: number;
  /** By follower; empty unless it leads. */
  readonly progress: ReadonlyMap<string, Readonly<Progress>>;
}
