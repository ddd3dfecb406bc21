/** Identifiers: of nodes, of networks, and addresses that hold them. @module */

import { equalBytes, fromBase58, toBase58, toHex } from "./bytes.ts";
import { type Reader, WireError } from "./codec.ts";

/** A libp2p PeerId of an Ed25519 key in its text form, `12D3KooW…`, 52 characters. */
export type NodeId = string;

/** Identity multihash over the protobuf of an Ed25519 public key (libp2p peer-ids specification). */
const PEER_ID_PREFIX = Uint8Array.from([0, 36, 8, 1, 18, 32]);

/** The node id of a raw Ed25519 public key of 32 bytes. */
export function nodeIdOf(publicKey: Uint8Array): NodeId {
  const bytes = new Uint8Array(38);
  bytes.set(PEER_ID_PREFIX);
  bytes.set(publicKey, 6);
  return toBase58(bytes);
}

/** The raw public key inside a node id, or `undefined` where the text is no such id. */
export function publicKeyOf(nodeId: string): Uint8Array | undefined {
  const bytes = nodeId.length <= 64 ? fromBase58(nodeId) : undefined;
  if (!bytes || bytes.length !== 38 || !equalBytes(bytes.subarray(0, 6), PEER_ID_PREFIX)) return undefined;
  return bytes.slice(6);
}

/** Reads a node id. */
export const readNodeId: Reader<NodeId> = (value, path) => {
  if (typeof value !== "string" || !publicKeyOf(value)) throw new WireError(`Cannot read ${path}: wanted a node id`);
  return value;
};

/** First 12 hex digits of a network id, for people. */
export function shortNetworkId(networkId: Uint8Array): string {
  return toHex(networkId).slice(0, 12);
}

/** Last 8 characters of a node id, for people: the first ones are the same for all. */
export function shortNodeId(nodeId: NodeId): string {
  return nodeId.slice(-8);
}

/** An address in its parts. */
export interface Address {
  readonly family: "ip4" | "ip6" | "dns";
  /** IP address or DNS name, without brackets or zone. */
  readonly host: string;
  readonly transport: "quic" | "tcp";
  /** 1 to 65535. */
  readonly port: number;
  /** Missing where the address does not say who answers there. */
  readonly nodeId?: NodeId;
}

/** Parses a multiaddr of the two forms used here; `undefined` where it is none. */
export function parseAddress(input: string): Address | undefined {
  if (input.length > 512) return undefined;
  const match =
    /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/(?:udp\/([1-9]\d{0,4})\/quic-v1|tcp\/([1-9]\d{0,4}))(?:\/p2p\/([1-9A-HJ-NP-Za-km-z]+))?$/
      .exec(input);
  if (!match) return undefined;
  const [, kind, host, udp, tcp, nodeId] = match;
  const port = Number(udp ?? tcp);
  if (port < 1 || port > 65535 || nodeId !== undefined && !publicKeyOf(nodeId)) return undefined;
  const family = kind === "ip4" || kind === "ip6" ? kind : "dns";
  if (family === "ip4" && !parseIpv4(host!)) return undefined;
  if (family === "ip6" && !parseIpv6(host!)) return undefined;
  if (family === "dns" && !isDnsName(host!)) return undefined;
  return { family, host: host!, transport: udp ? "quic" : "tcp", port, ...(nodeId ? { nodeId } : {}) };
}

const DNS_LABEL = /^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;

/**
 * Whether a text is a host name (RFC 1123). One whose last label is a number, also a hexadecimal one, is none:
 * resolvers read it as an IPv4 address, so that it would slip past what is said about addresses.
 */
function isDnsName(host: string): boolean {
  const name = host.endsWith(".") ? host.slice(0, -1) : host;
  const labels = name.split(".");
  return name.length <= 253 && labels.every((label) => DNS_LABEL.test(label)) &&
    !/^(\d+|0[xX][0-9a-fA-F]*)$/.test(labels.at(-1)!);
}

/** The multiaddr of an address. */
export function formatAddress(address: Address): string {
  const carrier = address.transport === "quic" ? `udp/${address.port}/quic-v1` : `tcp/${address.port}`;
  return `/${address.family}/${address.host}/${carrier}` + (address.nodeId ? `/p2p/${address.nodeId}` : "");
}

/** Reads a multiaddr. */
export const readAddress: Reader<string> = (value, path) => {
  if (typeof value !== "string" || !parseAddress(value)) throw new WireError(`Cannot read ${path}: wanted a multiaddr`);
  return value;
};

/** The 4 bytes of a dotted IPv4 address, or `undefined`. */
export function parseIpv4(input: string): Uint8Array | undefined {
  const parts = input.split(".");
  if (parts.length !== 4 || parts.some((part) => !/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255)) {
    return undefined;
  }
  return Uint8Array.from(parts, Number);
}

/** The 16 bytes of an IPv6 address without zone, or `undefined`. */
export function parseIpv6(input: string): Uint8Array | undefined {
  if (!/^[0-9a-fA-F:.]{2,45}$/.test(input)) return undefined;
  let source = input;
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(source);
  if (dotted) {
    const v4 = parseIpv4(dotted[2]!);
    if (!v4) return undefined;
    source = dotted[1] + toHex(v4.subarray(0, 2)) + ":" + toHex(v4.subarray(2));
  }
  const halves = source.split("::");
  if (halves.length > 2) return undefined;
  const groups = (part: string) => part === "" ? [] : part.split(":");
  const head = groups(halves[0]!);
  const tail = halves.length === 2 ? groups(halves[1]!) : [];
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...Array.from({ length: halves.length === 2 ? missing : 0 }, () => "0"), ...tail];
  if (all.some((group) => !/^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  const out = new Uint8Array(16);
  all.forEach((group, i) => {
    const value = Number.parseInt(group, 16);
    out[2 * i] = value >> 8;
    out[2 * i + 1] = value & 0xff;
  });
  return out;
}
