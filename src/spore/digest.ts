/**
 * Finding what two tables do not share, in a number of bytes that grows with the logarithm of their size.
 *
 * The keys of each zone hang under a tree of 16 branches by the hash of the key, three levels deep: 4 096 leaves.
 * Every node of the tree has the sum of the ids of all entries below it, modulo 2^64, so that a change costs four
 * additions. Two nodes compare roots, then the children of what differs, two levels in one exchange of messages;
 * small branches are listed whole. {@linkcode Repair} is the side that asks; {@linkcode answerDigest} answers and
 * keeps no state, so that who asks may stop, and go on elsewhere, at any time.
 *
 * A sum can be met by who chooses ids on purpose: he hides his own words from the repair of others, and no more.
 *
 * @module
 */

import { WireError } from "../core/codec.ts";

/** Parts of the table that are compared one by one, so that a device may keep some of them only. */
export const ZONES = ["node", "service", "net", "app", "agreed"] as const;
/** First segment of a key. */
export type Zone = typeof ZONES[number];

/** Branches of a node. */
const FAN = 16;
/** Leaves of a zone: {@linkcode FAN} to the third. */
const LEAVES = FAN ** 3;
/** First node of each level; the root is node 0. */
const LEVEL_START = [0, 1, 1 + FAN, 1 + FAN + FAN * FAN] as const;
/** Nodes of the tree of one zone. */
export const NODES: number = LEVEL_START[3] + LEAVES;
/** A branch with so many entries is listed, not divided. */
export const LIST_MAX = 24;
/** Bytes of one id. */
export const ID_BYTES = 8;

/** What the digest knows of an entry. */
export interface DigestItem {
  /** Leaf that the key hangs under, all zones in one sequence: see {@linkcode placeOf}. */
  readonly place: number;
  /** Sum of the ids of the versions held, in two halves of 32 bits; their sign means nothing. */
  high: number;
  low: number;
}

/**
 * Leaf of a key: zone · {@linkcode LEAVES} + 12 bits of its FNV-1a hash, mixed as in MurmurHash3. Who wants many keys
 * under one leaf finds them whatever the hash is, so that a cheap one does.
 */
export function placeOf(key: string): number {
  const zone = ZONES.indexOf(key.slice(0, key.indexOf("/")) as Zone);
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return zone * LEAVES + (hash >>> 20);
}

/** A node of the trees. */
export interface NodeName {
  /** Index into {@linkcode ZONES}. */
  readonly zone: number;
  /** 0 for the root, then level by level. */
  readonly node: number;
}

interface Tree {
  /** Two halves for each node. */
  readonly sums: Uint32Array;
  readonly counts: Uint32Array;
  readonly leaves: (string[] | undefined)[];
}

/** Sums over the entries of a table. */
export class Digest {
  readonly #trees: (Tree | undefined)[] = ZONES.map(() => undefined);
  readonly #item: (key: string) => DigestItem | undefined;

  /** @param item Finds the entry of a key. */
  constructor(item: (key: string) => DigestItem | undefined) {
    this.#item = item;
  }

  /** Takes an entry in. */
  add(key: string, item: DigestItem): void {
    const tree = this.#trees[Math.floor(item.place / LEAVES)] ??= {
      sums: new Uint32Array(2 * NODES),
      counts: new Uint32Array(NODES),
      leaves: new Array(LEAVES),
    };
    const leaf = item.place % LEAVES;
    (tree.leaves[leaf] ??= []).push(key);
    change(tree, leaf, item, 1);
  }

  /** Takes an entry out, as it was taken in. */
  remove(key: string, item: DigestItem): void {
    const tree = this.#trees[Math.floor(item.place / LEAVES)]!;
    const leaf = item.place % LEAVES;
    const keys = tree.leaves[leaf]!;
    keys[keys.indexOf(key)] = keys.at(-1)!;
    keys.pop();
    if (keys.length === 0) tree.leaves[leaf] = undefined;
    change(tree, leaf, item, -1);
  }

  /** Forgets everything. */
  clear(): void {
    this.#trees.fill(undefined);
  }

  /** The sum of a node, 8 bytes. */
  sum({ zone, node }: NodeName): Uint8Array {
    const out = new Uint8Array(ID_BYTES);
    const tree = this.#trees[zone];
    if (tree) writeId(out, 0, tree.sums[2 * node]!, tree.sums[2 * node + 1]!);
    return out;
  }

  /** The sums of the children of a node, one after another; it must not be a leaf. */
  childSums({ zone, node }: NodeName): Uint8Array {
    const out = new Uint8Array(FAN * ID_BYTES);
    const tree = this.#trees[zone];
    if (!tree) return out;
    const first = firstChild(node);
    for (let i = 0; i < FAN; i++) {
      writeId(out, i * ID_BYTES, tree.sums[2 * (first + i)]!, tree.sums[2 * (first + i) + 1]!);
    }
    return out;
  }

  /** Entries below a node. */
  count({ zone, node }: NodeName): number {
    return this.#trees[zone]?.counts[node] ?? 0;
  }

  /** Keys below a node. */
  keys({ zone, node }: NodeName): string[] {
    const tree = this.#trees[zone];
    if (!tree || tree.counts[node] === 0) return [];
    const level = levelOf(node);
    const width = FAN ** (3 - level);
    const start = (node - LEVEL_START[level]!) * width;
    const out: string[] = [];
    for (let leaf = start; leaf < start + width; leaf++) {
      const keys = tree.leaves[leaf];
      if (keys) { for (const key of keys) out.push(key); }
    }
    return out;
  }

  /** Ids of the entries below a node, as {@linkcode ids} wants and gives them. */
  ids(name: NodeName): { readonly key: string; readonly id: string }[] {
    return this.keys(name).map((key) => {
      const { high, low } = this.#item(key)!;
      return { key, id: hexOf(high >>> 0) + hexOf(low >>> 0) };
    });
  }
}

/** One question or answer about a node. */
export interface DigestPart extends NodeName {
  /** Sums of its children, or ids of all entries below it, or neither: list it. */
  readonly sums?: Uint8Array | undefined;
  readonly list?: Uint8Array | undefined;
}

/** What one side asks of the other in one message. */
export interface DigestAsk {
  /** Sums of the roots of the zones that are compared, in their order; in the first message only. */
  readonly roots?: ReadonlyMap<number, Uint8Array> | undefined;
  readonly parts: readonly DigestPart[];
}

/** Most parts of one message. */
export const PARTS_MAX = 64;

/** Answers a question, keeping nothing. At most {@linkcode PARTS_MAX} · 16 parts come of it, with lists bounded by what the table holds there. */
export function answerDigest(digest: Digest, ask: DigestAsk): DigestPart[] {
  const out: DigestPart[] = [];
  const show = (name: NodeName) => {
    const small = digest.count(name) <= LIST_MAX || isLeaf(name.node);
    out.push(
      small
        ? { ...name, list: packIds(digest.ids(name).map((one) => one.id)) }
        : { ...name, sums: digest.childSums(name) },
    );
  };
  for (const [zone, sum] of ask.roots ?? []) {
    if (!same(sum, 0, digest.sum({ zone, node: 0 }), 0)) show({ zone, node: 0 });
  }
  for (const part of ask.parts.slice(0, PARTS_MAX)) {
    if (!part.sums || isLeaf(part.node)) show(part);
    else for (const child of differing(digest, part, part.sums)) show(child);
  }
  return out;
}

/** What is left to exchange once a difference was found. */
export interface Difference {
  /** Keys of entries that the other lacks, or holds otherwise. */
  readonly give: readonly string[];
  /** Ids of entries of the other that this side lacks, by the node they hang under. */
  readonly want: readonly (NodeName & { readonly ids: readonly string[] })[];
}

/** Compares a table with another one's, asking. One run from {@linkcode start} until {@linkcode next} gives nothing. */
export class Repair {
  readonly #digest: Digest;
  readonly #zones: readonly number[];
  #started = false;
  /** Nodes that differ, deepest last, so that few are open at a time. */
  readonly #open: NodeName[] = [];
  /** Nodes that the next answer may be about, each once: else a short answer could ask for endless work. */
  readonly #awaited = new Set<number>();

  /** @param zones Indices of the zones that this side keeps whole. */
  constructor(digest: Digest, zones: readonly number[]) {
    this.#digest = digest;
    this.#zones = zones;
  }

  /** The next question, or `undefined` where all was asked. */
  next(): DigestAsk | undefined {
    this.#awaited.clear();
    if (!this.#started) {
      this.#started = true;
      for (const zone of this.#zones) this.#awaited.add(numberOf({ zone, node: 0 }));
      return { roots: new Map(this.#zones.map((zone) => [zone, this.#digest.sum({ zone, node: 0 })])), parts: [] };
    }
    const parts = this.#open.splice(-PARTS_MAX).map((name): DigestPart => {
      if (isLeaf(name.node)) {
        this.#awaited.add(numberOf(name));
        return name;
      }
      const first = firstChild(name.node);
      for (let i = 0; i < FAN; i++) this.#awaited.add(numberOf({ zone: name.zone, node: first + i }));
      return { ...name, sums: this.#digest.childSums(name) };
    });
    return parts.length > 0 ? { parts } : undefined;
  }

  /** Takes an answer in; what it shows to be different is returned, what has to be asked for is kept. */
  take(answer: readonly DigestPart[]): Difference {
    const give: string[] = [];
    const want: (NodeName & { readonly ids: readonly string[] })[] = [];
    for (const part of answer) {
      const name = { zone: part.zone, node: part.node };
      if (!this.#awaited.delete(numberOf(name))) continue;
      if (part.list) {
        const theirs = new Set(unpackIds(part.list));
        const mine = this.#digest.ids(name);
        for (const { key, id } of mine) if (!theirs.delete(id)) give.push(key);
        if (theirs.size > 0) want.push({ ...name, ids: [...theirs] });
      } else if (part.sums && !isLeaf(part.node)) {
        // More than any table can have: an answer that was made up.
        if (this.#open.length < OPEN_MAX) this.#open.push(...differing(this.#digest, name, part.sums));
      }
    }
    return { give, want };
  }
}

/** Nodes that a run has open at most: those of all zones' second level. */
const OPEN_MAX = 4 * FAN * FAN;

/** The keys below a node that have one of these ids. */
export function keysOfIds(digest: Digest, name: NodeName, ids: readonly string[]): string[] {
  const wanted = new Set(ids);
  return digest.ids(name).filter((one) => wanted.has(one.id)).map((one) => one.key);
}

/** Ids one after another, 8 bytes each. */
export function packIds(ids: readonly string[]): Uint8Array {
  const out = new Uint8Array(ids.length * ID_BYTES);
  ids.forEach((id, i) => {
    writeId(out, i * ID_BYTES, Number.parseInt(id.slice(0, 8), 16), Number.parseInt(id.slice(8), 16));
  });
  return out;
}

/** The ids in a packed list. @throws {WireError} Where its length is no multiple of 8. */
export function unpackIds(packed: Uint8Array): string[] {
  if (packed.length % ID_BYTES !== 0) throw new WireError("Cannot read a list of ids: its length is no multiple of 8");
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length);
  const out: string[] = [];
  for (let at = 0; at < packed.length; at += ID_BYTES) {
    out.push(hexOf(view.getUint32(at)) + hexOf(view.getUint32(at + 4)));
  }
  return out;
}

/** Whether a node has no children. */
export function isLeaf(node: number): boolean {
  return node >= LEVEL_START[3];
}

/** One number for each node of all zones. */
function numberOf({ zone, node }: NodeName): number {
  return zone * NODES + node;
}

function differing(digest: Digest, { zone, node }: NodeName, sums: Uint8Array): NodeName[] {
  const own = digest.childSums({ zone, node });
  const first = firstChild(node);
  const out: NodeName[] = [];
  for (let i = 0; i < FAN; i++) {
    if (!same(sums, i * ID_BYTES, own, i * ID_BYTES)) out.push({ zone, node: first + i });
  }
  return out;
}

function same(a: Uint8Array, at: number, b: Uint8Array, bt: number): boolean {
  for (let i = 0; i < ID_BYTES; i++) if (a[at + i] !== b[bt + i]) return false;
  return true;
}

function levelOf(node: number): 0 | 1 | 2 | 3 {
  return node >= LEVEL_START[3] ? 3 : node >= LEVEL_START[2] ? 2 : node >= LEVEL_START[1] ? 1 : 0;
}

function firstChild(node: number): number {
  const level = levelOf(node);
  return LEVEL_START[level + 1]! + (node - LEVEL_START[level]) * FAN;
}

function change(tree: Tree, leaf: number, item: DigestItem, sign: 1 | -1): void {
  for (let level = 3, index = leaf; level >= 0; level--, index >>= 4) {
    const node = LEVEL_START[level]! + index;
    const before = tree.sums[2 * node + 1]!;
    // A sum of 64 bits in two halves; typed arrays wrap around by themselves, the carry is ours.
    const low = before + sign * (item.low >>> 0);
    tree.sums[2 * node + 1] = low;
    const carry = low < 0 ? -1 : low > 0xffff_ffff ? 1 : 0;
    tree.sums[2 * node] = tree.sums[2 * node]! + sign * (item.high >>> 0) + carry;
    tree.counts[node] = tree.counts[node]! + sign;
  }
}

function writeId(out: Uint8Array, at: number, high: number, low: number): void {
  const view = new DataView(out.buffer, out.byteOffset);
  view.setUint32(at, high);
  view.setUint32(at + 4, low);
}

function hexOf(half: number): string {
  return half.toString(16).padStart(8, "0");
}
