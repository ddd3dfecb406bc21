/** What happened in a run: a hash over all of it, and its last lines. @module */

/** Two runs with one digest took the same course. No secret: two lanes of 32 bits after cyrb53. */
export class Trace {
  readonly #lines: string[];
  #count = 0;
  #a = 0xdeadbeef | 0;
  #b = 0x41c6ce57 | 0;

  /** @param kept Lines that {@linkcode recent} gives. */
  constructor(kept: number) {
    this.#lines = new Array<string>(kept).fill("");
  }

  /** Adds a line, and bytes that belong to it. */
  add(line: string, body?: Uint8Array): void {
    this.#lines[this.#count % this.#lines.length] = line;
    this.#count += 1;
    let [a, b] = [this.#a, this.#b];
    for (let i = 0; i < line.length; i++) {
      const code = line.charCodeAt(i);
      a = Math.imul(a ^ code, 2654435761);
      b = Math.imul(b ^ code, 1597334677);
    }
    if (body) {
      for (let i = 0; i < body.length; i++) {
        a = Math.imul(a ^ body[i]!, 2654435761);
        b = Math.imul(b ^ body[i]!, 1597334677);
      }
    }
    // Without this the end of one line could as well be the beginning of the next.
    this.#a = Math.imul(a ^ (a >>> 15), 2246822507) ^ line.length;
    this.#b = Math.imul(b ^ (b >>> 13), 3266489909) ^ (body?.length ?? 0);
  }

  /** The last lines, oldest first. */
  recent(): string {
    const kept = Math.min(this.#count, this.#lines.length);
    return Array.from({ length: kept }, (_, i) => this.#lines[(this.#count - kept + i) % this.#lines.length]).join(
      "\n",
    );
  }

  /** Hash over everything so far, in hex. */
  digest(): string {
    const hex = (lane: number) => (lane >>> 0).toString(16).padStart(8, "0");
    return hex(this.#a) + hex(this.#b) + hex(this.#count);
  }
}
