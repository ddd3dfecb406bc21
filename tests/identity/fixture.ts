/** One small network from fixed seeds, for the tests of this folder and the golden vectors. @module */

import { utf8 } from "../../src/core/bytes.ts";
import { type KeyPair, keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { AuthorityChain, encodeEpoch, type SignedEpoch, signEpoch } from "../../src/identity/authority.ts";
import { type Credential, CREDENTIAL_LIFETIME_MS } from "../../src/identity/credential.ts";
import { createGenesis, type GenesisRecord } from "../../src/identity/genesis.ts";

/** 2025-01-01, milliseconds since the epoch. */
export const START_MS = 1_735_689_600_000;

/** 32 bytes that follow from a name. */
export function seedOf(name: string): Uint8Array {
  return sha256(utf8(`mycelium test seed ${name}`));
}

/** The key pair that follows from a name. */
export function keyOf(name: string): KeyPair {
  return keyPairFromSeed(seedOf(name));
}

export const GENESIS_KEY = keyOf("genesis");
export const OPERATOR_KEY = keyOf("operator");

export const GENESIS: GenesisRecord = {
  name: "forest",
  genesisKey: GENESIS_KEY.publicKey,
  operatorKey: OPERATOR_KEY.publicKey,
  createdMs: START_MS,
  nonce: seedOf("nonce").slice(0, 16),
};

const born = createGenesis(GENESIS, GENESIS_KEY);
export const NETWORK_ID = born.networkId;
export const GENESIS_ENVELOPE = born.envelope;

/** A network of the same keys that differs in its nonce only. */
export const OTHER_NETWORK_ID = createGenesis({ ...GENESIS, nonce: new Uint8Array(16) }, GENESIS_KEY).networkId;

/** The next epoch of a chain, signed by these keys. */
export function nextEpoch(
  chain: AuthorityChain,
  issuers: readonly KeyPair[],
  signers: readonly KeyPair[],
  change: { readonly epoch?: number; readonly previous?: Uint8Array; readonly createdMs?: number } = {},
): SignedEpoch {
  const payload = encodeEpoch({
    epoch: change.epoch ?? chain.epoch + 1,
    previous: change.previous ?? chain.head,
    issuers: issuers.map((pair) => pair.publicKey),
    createdMs: change.createdMs ?? START_MS + chain.epoch,
  });
  return { payload, signatures: signers.map((pair) => signEpoch(chain.networkId, payload, pair)) };
}

/** A chain of one epoch with these issuers. */
export function chainOf(...issuers: readonly KeyPair[]): AuthorityChain {
  const empty = AuthorityChain.empty(NETWORK_ID, GENESIS_KEY.publicKey);
  return empty.extended(nextEpoch(empty, issuers, [GENESIS_KEY]));
}

/** What an issuer says about the node `subject`. */
export function credentialOf(subject: KeyPair, change: Partial<Credential> = {}): Omit<Credential, "network"> {
  return {
    subject: subject.publicKey,
    name: "node-1",
    role: "rhizomorph",
    pool: "default",
    issuedMs: START_MS,
    expiresMs: START_MS + CREDENTIAL_LIFETIME_MS,
    epoch: 1,
    ...change,
  };
}
