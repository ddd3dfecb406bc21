/**
 * Reads that a leader has to confirm (thesis, 6.4).
 *
 * @module
 */

/** A read that waits. `round` is missing until a round of heartbeats has begun after it came. */
export interface WaitingRead {
  /** Who asked, and in which of its lives. */
  readonly from: string;
  readonly incarnation: number;
  readonly id: number;
  round?: number;
  /** What was committed when that round began. */
  index?: number;
}

/** The reads, oldest first. One round confirms all that were here before it began. */
export class ReadQueue {
  #reads: WaitingRead[] = [];

  get size(): number {
    return this.#reads.length;
  }

  /** Whether some wait and none has a round. */
  get allNew(): boolean {
    return this.#reads.length > 0 && this.#reads[0]!.round === undefined;
  }

  add(read: WaitingRead): void {
    this.#reads.push(read);
  }

  /** A round begins: those that were here are confirmed by it. */
  begin(round: number, commitIndex: number): void {
    for (let i = this.#reads.length - 1; i >= 0 && this.#reads[i]!.round === undefined; i--) {
      this.#reads[i]!.round = round;
      this.#reads[i]!.index = commitIndex;
    }
  }

  /** Takes those that a round up to `confirmed` has confirmed. */
  take(confirmed: number): WaitingRead[] {
    const open = this.#reads.findIndex((one) => one.round === undefined || one.round > confirmed);
    return this.#reads.splice(0, open < 0 ? this.#reads.length : open);
  }

  /** Takes all. */
  takeAll(): WaitingRead[] {
    return this.#reads.splice(0);
  }
}
