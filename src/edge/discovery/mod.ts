/**
 * Discovery: where members of the network may be found.
 *
 * @module
 */

export { createDiscovery } from "./discovery.ts";
export { type HostAddress, type HostNetwork, readHostNetwork } from "./host_network.ts";
export { writeSeedFile } from "./seed_sources.ts";
export * from "./types.ts";
