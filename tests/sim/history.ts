/**
 * What clients did and what they were told: the input of a linearizability checker, ours or another.
 *
 * One line of JSON for each call and each end of one, in the order in which they happened, as Jepsen's and
 * Porcupine's tools read it: `{process, type, f, key, value, time}`.
 *
 * @module
 */

/** What a client asks of one key. A register begins as `null`; deleting it is writing `null`. */
export type OperationKind = "read" | "write" | "cas";

/** One line. */
export interface HistoryLine {
  /** One client; it does one thing at a time, and is another process after an `info`. */
  readonly process: number;
  /** `ok`: it happened. `fail`: it did not and never will. `info`: nobody knows. */
  readonly type: "invoke" | "ok" | "fail" | "info";
  readonly f: OperationKind;
  readonly key: string;
  /** What is written, `[expected, new]` of a `cas`, what was read (`null` until it is known). */
  readonly value: string | null | readonly [string | null, string | null];
  /** Milliseconds since the beginning; the order is that of the lines. */
  readonly time: number;
}

/** An operation under way. */
export interface OpenOperation {
  readonly process: number;
  readonly client: string;
  readonly f: OperationKind;
  readonly key: string;
  readonly value: HistoryLine["value"];
  ended: boolean;
}

/** Collects what happens. */
export class History {
  readonly lines: HistoryLine[] = [];
  readonly #open = new Set<OpenOperation>();
  readonly #processes = new Map<string, number>();
  #nextProcess = 0;

  /** Operations under way. */
  get open(): number {
    return this.#open.size;
  }

  /** A client calls. */
  invoke(client: string, f: OperationKind, key: string, value: HistoryLine["value"], time: number): OpenOperation {
    const process = this.#processes.get(client) ?? this.#nextProcess++;
    this.#processes.set(client, process);
    const one: OpenOperation = { process, client, f, key, value, ended: false };
    this.#open.add(one);
    this.lines.push({ process, type: "invoke", f, key, value, time });
    return one;
  }

  /** It ends; a second end of one operation is left out. `value`: what a read has found. */
  end(one: OpenOperation, type: "ok" | "fail" | "info", time: number, value: HistoryLine["value"] = one.value): void {
    if (one.ended) return;
    one.ended = true;
    this.#open.delete(one);
    const { process, f, key } = one;
    this.lines.push({ process, type, f, key, value, time });
    // Whoever does not know how something ended goes on as another one.
    if (type === "info") this.#processes.delete(one.client);
  }

  /** Nobody will hear how the rest ended. */
  close(time: number): void {
    for (const one of [...this.#open]) this.end(one, "info", time);
  }

  /** The file that `--history` writes. */
  toText(): string {
    return this.lines.map((one) => JSON.stringify(one) + "\n").join("");
  }
}

/** Reads a file of {@linkcode History.toText}. @throws {TypeError} Where a line is not one. */
export function parseHistory(text: string): HistoryLine[] {
  const scalar = (value: unknown) => value === null || typeof value === "string";
  return text.split("\n").filter((line) => line.trim() !== "").map((line, i) => {
    const one = JSON.parse(line) as HistoryLine;
    const cas = Array.isArray(one.value) && one.value.length === 2 && one.value.every(scalar);
    if (
      !Number.isInteger(one.process) || !["invoke", "ok", "fail", "info"].includes(one.type) ||
      !["read", "write", "cas"].includes(one.f) || typeof one.key !== "string" || typeof one.time !== "number" ||
      !(one.f === "cas" ? cas : scalar(one.value))
    ) throw new TypeError(`Cannot read line ${i + 1} of the history: ${line.slice(0, 200)}`);
    return one;
  });
}
