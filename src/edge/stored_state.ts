/** Looks at the state folder of a node that does not run, for `mycelium doctor`. @module */

import { join } from "node:path";
import { InvariantError } from "../core/assert.ts";
import { toHex } from "../core/bytes.ts";
import { decodeAs, text, WireError } from "../core/codec.ts";
import { KEYS, NodeState } from "../agent/state.ts";
import { openStore, StateError } from "./disk/store.ts";

/** What the state folder says. */
export interface StoredState {
  readonly nodeId?: string;
  readonly networkId?: string;
  readonly networkName?: string;
  /** Stage that bootstrap was in. */
  readonly stage?: string;
  readonly credentialExpiresMs?: number;
}

/** Reads the state folder; `undefined` where there is nothing readable. */
export function readStoredState(stateDir: string): Promise<StoredState | undefined> {
  return Promise.resolve(read(stateDir));
}

function read(stateDir: string): StoredState | undefined {
  try {
    Deno.statSync(join(stateDir, "state.db"));
    const store = openStore(stateDir, { readOnly: true });
    try {
      const entries = store.load();
      // The seed only stands in where the node has none yet; its id is then not shown.
      const state = new NodeState(entries, new Uint8Array(32));
      const network = state.network;
      const stage = entries.get(KEYS.stage);
      return {
        ...(entries.has(KEYS.nodeSeed) ? { nodeId: state.nodeId } : {}),
        ...(network ? { networkId: toHex(network.networkId) } : {}),
        ...(network?.genesis ? { networkName: network.genesis.record.name } : {}),
        ...(stage ? { stage: decodeAs(stage, text(32)) } : {}),
        ...(network?.credential ? { credentialExpiresMs: network.credential.credential.expiresMs } : {}),
      };
    } finally {
      store.close();
    }
  } catch (error) {
    const unreadable = error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied ||
      error instanceof StateError || error instanceof WireError || error instanceof InvariantError;
    if (unreadable) return undefined;
    throw error;
  }
}
