/**
 * Discovery: where members of the network may be found.
 *
 * @module
 */

export type { DialGround, DialRefusal, DialVerdict, InterfaceAddress, Route } from "../../bootstrap/address_policy.ts";
export type { Candidate, CandidateSource, Verification } from "../../bootstrap/candidates.ts";
export type { SeedDocument } from "../../bootstrap/seed_document.ts";
export type { KeyPair } from "../../core/crypto.ts";
export type { Rng } from "../../core/rng.ts";
export { createDiscovery } from "./discovery.ts";
export { type HostAddress, type HostNetwork, readHostNetwork } from "./host_network.ts";
export { fetchSeed } from "./seed_fetch.ts";
export { shownUrl, writeSeedFile } from "./seed_sources.ts";
export * from "./types.ts";
