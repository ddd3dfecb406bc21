/**
 * The genesis record (Master Seed Spore): the birth of a network.
 *
 * The network's id is the hash of this record, so that whoever knows the id can check the record, and
 * from it the whole chain of authority.
 *
 * @module
 */

import { assert } from "../core/assert.ts";
import { equalBytes } from "../core/bytes.ts";
import { bytes, decodeCbor, encodeCbor, record, text, uint, WireError } from "../core/codec.ts";
import { hashParts, type KeyPair } from "../core/crypto.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "../core/envelope.ts";
import { LIMITS } from "../core/limits.ts";

/** The birth of a network. */
export interface GenesisRecord {
  /** Name for people, a DNS label. */
  readonly name: string;
  /** Ed25519 key that signs the first authority epoch and may sign any later one; can be kept offline. 32 bytes. */
  readonly genesisKey: Uint8Array;
  /** Ed25519 key of the first operator: signs commands to nodes. 32 bytes. */
  readonly operatorKey: Uint8Array;
  /** Wall clock of the founder, milliseconds since the epoch. */
  readonly createdMs: number;
  /** 16 random bytes: two networks of the same name and keys still differ. */
  readonly nonce: Uint8Array;
}

const TYPE = "genesis/1";

const readGenesis = record({
  name: text(LIMITS.nameCharsMax, /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/),
  genesis: bytes({ length: 32 }),
  operator: bytes({ length: 32 }),
  created: uint(),
  nonce: bytes({ length: 16 }),
});

/**
 * Signs the birth of a network; returns its id and the signed record.
 *
 * @throws {WireError} When a field is not what {@linkcode verifyGenesis} accepts, for example the name.
 */
export function createGenesis(
  genesis: GenesisRecord,
  key: KeyPair,
): { readonly networkId: Uint8Array; readonly envelope: Envelope } {
  assert(equalBytes(key.publicKey, genesis.genesisKey), "the genesis key signs the genesis record");
  const value = {
    name: genesis.name,
    genesis: genesis.genesisKey,
    operator: genesis.operatorKey,
    created: genesis.createdMs,
    nonce: genesis.nonce,
  };
  readGenesis(value, TYPE);
  const networkId = networkIdOf(encodeCbor(value));
  return { networkId, envelope: sealEnvelope(value, { type: TYPE, networkId, signer: key }) };
}

/**
 * Checks a genesis record against the id of the network that it should be of.
 *
 * @throws {WireError} When it is of another network or not signed by the genesis key in it.
 */
export function verifyGenesis(envelope: Envelope, networkId: Uint8Array): GenesisRecord {
  if (!equalBytes(networkIdOf(envelope.payload), networkId)) {
    throw new WireError("Cannot open genesis record: it is of another network");
  }
  const read = openEnvelope(envelope, { type: TYPE, networkId, reader: readGenesis });
  if (!equalBytes(read.genesis, envelope.signer)) {
    throw new WireError("Cannot open genesis record: it is not signed by the genesis key");
  }
  return {
    name: read.name,
    genesisKey: read.genesis,
    operatorKey: read.operator,
    createdMs: read.created,
    nonce: read.nonce,
  };
}

/** The id of the network that an encoded genesis payload founds; 32 bytes. */
export function networkIdOf(payload: Uint8Array): Uint8Array {
  // Decoding first makes sure that one network has one encoding, hence one id.
  decodeCbor(payload, LIMITS.recordBytesMax);
  return hashParts("mycelium/genesis/v1", payload);
}
