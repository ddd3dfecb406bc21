/** How the command line speaks: colours, tables, units, progress. @module */

import type { CliDeps, OutputStream } from "./deps.ts";

/** A style of text; nothing where there are no colours. */
export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

const STYLE_CODES: Readonly<Record<Style, number>> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 };
const SPINNER = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
// deno-lint-ignore no-control-regex -- escape sequences are what is looked for
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
// deno-lint-ignore no-control-regex -- escape sequences are what is looked for
const STYLED = /\u001b\[\d+m/g;

/** Flags that change how output looks. */
export interface OutputFlags {
  readonly json?: boolean;
  readonly quiet?: boolean;
  /** False for `--no-color`. */
  readonly color?: boolean;
}

/** Text that came from other machines without what would steer a terminal. */
export function safe(text: string): string {
  return text.replace(UNSAFE, "�");
}

/** Writes results to stdout, and all else to stderr. */
export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly #deps: CliDeps;
  readonly #color: boolean | undefined;
  #spinner: { readonly timer: ReturnType<typeof setInterval>; frame: number; text: string } | undefined;

  /** @param flags As given; missing means not given. */
  constructor(deps: CliDeps, flags: OutputFlags) {
    this.#deps = deps;
    this.json = flags.json === true;
    this.quiet = flags.quiet === true;
    this.#color = flags.color === false ? false : undefined;
  }

  /** Whether a stream gets colours: only terminals, and not with NO_COLOR (no-color.org) or TERM=dumb. */
  hasColor(stream: OutputStream): boolean {
    if (this.#color === false || this.#deps.env.NO_COLOR) return false;
    return stream.isTerminal && this.#deps.env.TERM !== "dumb";
  }

  /** Styles text for stdout. */
  style(style: Style, text: string): string {
    return this.hasColor(this.#deps.stdout) ? paint(style, text) : text;
  }

  /** Width to fit into; unlimited where stdout is not a terminal, so that nothing is cut for a program. */
  get width(): number {
    return this.#deps.stdout.isTerminal ? Math.max(40, this.#deps.stdout.columns) : Infinity;
  }

  /** Whether both sides of a conversation are terminals. */
  get interactive(): boolean {
    return this.#deps.stdin.isTerminal && this.#deps.stderr.isTerminal;
  }

  /** Whether stdout is a terminal. */
  get onTerminal(): boolean {
    return this.#deps.stdout.isTerminal;
  }

  /** A line of the result. */
  line(text = ""): void {
    this.#deps.stdout.write(text + "\n");
  }

  /** The result as JSON, whole. */
  document(value: unknown): void {
    this.line(JSON.stringify(value, undefined, 2));
  }

  /** A line of the result as JSON, for streams. */
  record(value: unknown): void {
    this.line(JSON.stringify(value));
  }

  /** A table as part of the result. */
  table(headings: readonly string[], rows: readonly (readonly Cell[])[]): void {
    const style = (name: Style, text: string) => this.style(name, text);
    for (const line of table(headings, rows, { width: this.width, style })) this.line(line);
  }

  /** A line beside the result, for a person; not with --quiet. */
  note(text: string, style?: Style): void {
    if (!this.quiet) this.#aside(text, style);
  }

  /** A warning; shown with --quiet as well. */
  warn(text: string): void {
    this.#aside(`Warning: ${text}`, "yellow");
  }

  /** What went wrong. */
  error(text: string, cure = ""): void {
    this.#aside(`Error: ${text}`, "red");
    if (cure !== "") this.#aside(`  ${cure}`);
  }

  /** Shows that something is under way: a moving line on a terminal, nothing elsewhere. */
  progress(text: string): void {
    if (this.quiet) return;
    const { stderr } = this.#deps;
    // A terminal that is 0 wide (some serial consoles) cannot go back to the start of what was written.
    if (!stderr.isTerminal || this.#deps.env.TERM === "dumb" || stderr.columns < 20) return;
    if (this.#spinner) {
      this.#spinner.text = text;
      return;
    }
    this.#spinner = { timer: setInterval(() => this.#draw(), 100), frame: 0, text };
    this.#draw();
  }

  /** Ends the progress line; `text` stays in its place. */
  endProgress(text?: string, style?: Style): void {
    if (this.#spinner) {
      clearInterval(this.#spinner.timer);
      this.#deps.stderr.write("\r\u001b[K");
      this.#spinner = undefined;
    }
    if (text !== undefined) this.note(text, style);
  }

  /** Writes a line of somebody else, such as the log, without tearing the progress line. */
  foreign(line: string): void {
    if (this.#spinner) this.#deps.stderr.write("\r\u001b[K");
    this.#deps.stderr.write(line + "\n");
    this.#draw();
  }

  /** A question that only "y" or "yes" answers with yes. */
  async confirm(question: string): Promise<boolean> {
    this.endProgress();
    this.#deps.stderr.write(`${question} [y/N] `);
    const answer = await this.#deps.stdin.readLine();
    return /^\s*y(es)?\s*$/i.test(answer ?? "");
  }

  /** A question that is answered by a line; `undefined` at the end of input. */
  async ask(question: string): Promise<string | undefined> {
    this.endProgress();
    this.#deps.stderr.write(question);
    return await this.#deps.stdin.readLine();
  }

  #aside(text: string, style?: Style): void {
    const { stderr } = this.#deps;
    this.foreign(style && this.hasColor(stderr) ? paint(style, text) : text);
  }

  #draw(): void {
    const spinner = this.#spinner;
    if (!spinner) return;
    spinner.frame = (spinner.frame + 1) % SPINNER.length;
    const { stderr } = this.#deps;
    const room = stderr.columns - 3;
    const text = spinner.text.length > room ? spinner.text.slice(0, room - 1) + "…" : spinner.text;
    const mark = this.hasColor(stderr) ? paint("cyan", SPINNER[spinner.frame]!) : SPINNER[spinner.frame]!;
    stderr.write(`\r\u001b[K${mark} ${text}`);
  }
}

/** A cell of a table: text, or text with a style. */
export type Cell = string | readonly [style: Style, text: string];

/** How a table is laid out. */
export interface TableOptions {
  /** Longer lines lose their end. @default Infinity */
  readonly width?: number;
  /** Styles a cell. @default without styles */
  readonly style?: (style: Style, text: string) => string;
}

/**
 * Aligned columns, two spaces apart, with a heading. Cells may come from other machines: what would steer the
 * terminal is taken out.
 *
 * @param headings One for each column; a leading `>` aligns it to the right.
 * @param rows Cells by column; missing ones are empty.
 */
export function table(
  headings: readonly string[],
  rows: readonly (readonly Cell[])[],
  options: TableOptions = {},
): string[] {
  const { width = Infinity, style = (_: Style, text: string) => text } = options;
  const right = headings.map((heading) => heading.startsWith(">"));
  const titles: readonly Cell[] = headings.map((heading) => ["dim", heading.replace(/^>/, "")]);
  const all = [titles, ...rows].map((row) =>
    headings.map((_, column) => {
      const cell = row[column] ?? "";
      const [name, text] = typeof cell === "string" ? [undefined, cell] : cell;
      return { name, text: safe(text.replaceAll(/\s/g, " ")) };
    })
  );
  const widths = headings.map((_, column) => Math.max(...all.map((row) => widthOf(row[column]!.text))));
  return all.map((row) => {
    let line = "", used = 0;
    for (const [column, cell] of row.entries()) {
      const last = column === headings.length - 1;
      const room = width - used;
      if (room <= 0) break;
      const text = widthOf(cell.text) > room ? cut(cell.text, room) : cell.text;
      const gap = " ".repeat(Math.max(0, Math.min(widths[column]!, room) - widthOf(text)));
      const shown = cell.name && text !== "" ? style(cell.name, text) : text;
      line += (right[column] ? gap + shown : shown + gap) + (last ? "" : "  ");
      used += widths[column]! + 2;
    }
    return line.trimEnd();
  });
}

/** Characters that a text takes on a terminal, styles left out. */
export function widthOf(text: string): number {
  let width = 0;
  for (const character of text.replace(STYLED, "")) {
    const code = character.codePointAt(0)!;
    // East Asian wide ranges and emoji take two columns; combining marks none.
    const wide = code >= 0x1100 && code <= 0x115f || code >= 0x2e80 && code <= 0xa4cf ||
      code >= 0xac00 && code <= 0xd7a3 || code >= 0xf900 && code <= 0xfaff || code >= 0xfe30 && code <= 0xfe6f ||
      code >= 0xff00 && code <= 0xff60 || code >= 0x1f300 && code <= 0x1faff || code >= 0x20000 && code <= 0x3fffd;
    width += /\p{Mn}|\p{Me}|\p{Cf}/u.test(character) ? 0 : wide ? 2 : 1;
  }
  return width;
}

/** For example `3d 4h`, `12m`, `45s`, `0s`; two units at most. */
export function duration(ms: number): string {
  const seconds = Math.floor(Math.abs(ms) / 1000);
  const units = [["d", 86_400], ["h", 3_600], ["m", 60], ["s", 1]] as const;
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0s";
  const [name, size] = units[first]!;
  const next = units[first + 1];
  const rest = next ? Math.floor(seconds % size / next[1]) : 0;
  return `${Math.floor(seconds / size)}${name}${rest > 0 && next ? ` ${rest}${next[0]}` : ""}`;
}

/** For example `1.5 GiB`. */
export function byteSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes, unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Point in time in the form of ISO 8601, seconds, UTC; `-` where it is none. */
export function instant(ms: number): string {
  return Number.isFinite(ms) && Math.abs(ms) <= 8.64e15 && ms > 0
    ? new Date(ms).toISOString().replace(/\.\d+Z$/, "Z")
    : "-";
}

/** A count with its word: `1 member`, `2 members`. */
export function plural(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}

/** Reads `90s`, `15m`, `24h`, `7d`, `500ms` and sums such as `1h30m`; `undefined` for anything else. */
export function parseDuration(text: string): number | undefined {
  const units: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
  const clean = text.trim().toLowerCase();
  if (clean.length > 32 || !/^(\d{1,9}(ms|[smhdw]))+$/.test(clean)) return undefined;
  let sum = 0;
  for (const [, count, unit] of clean.matchAll(/(\d+)(ms|[smhdw])/g)) sum += Number(count) * units[unit!]!;
  return sum;
}

/** A styled text. */
export function paint(style: Style, text: string): string {
  return `\u001b[${STYLE_CODES[style]}m${text}\u001b[0m`;
}

function cut(text: string, width: number): string {
  let out = "", used = 0;
  for (const character of text) {
    used += widthOf(character);
    if (used > width - 1) break;
    out += character;
  }
  return out + "…";
}
