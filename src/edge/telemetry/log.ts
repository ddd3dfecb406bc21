/**
 * The log: JSON lines of one schema, `{ts, level, component, event, msg, …fields}`, or lines for a person
 * where a terminal reads them.
 *
 * Writes are synchronous, so that the last line before an end is there. Lines that repeat are counted
 * instead of written, secrets are taken out, and the newest lines stay in memory for `mycelium logs`.
 *
 * @module
 */

import { isSecretKey, type Loggable, redact, REDACTED, scrubText } from "./redact.ts";

/** Levels, the least first. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

/** How grave a line is. */
export type LogLevel = typeof LOG_LEVELS[number];

/** One line. Further keys are its fields. */
export interface LogLine {
  /** RFC 3339, UTC, milliseconds. */
  readonly ts: string;
  readonly level: LogLevel;
  /** Part of the program, for example `http`. */
  readonly component: string;
  /** Stable name, lower-case, dashes. */
  readonly event: string;
  /** One sentence for a person. */
  readonly msg: string;
  readonly [field: string]: Loggable;
}

/** Fields of a line. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Writes lines of one component. */
export interface Logger {
  /** What helps to find a fault. */
  debug(event: string, msg: string, fields?: LogFields): void;
  /** What an operator wants to have read later. */
  info(event: string, msg: string, fields?: LogFields): void;
  /** What may need a person. */
  warn(event: string, msg: string, fields?: LogFields): void;
  /** What needs a person. */
  error(event: string, msg: string, fields?: LogFields): void;
  /** A logger of another component, with fields on each of its lines. */
  child(component: string, fields?: LogFields): Logger;
}

/** The root of all loggers. */
export interface RootLogger extends Logger {
  /** Lines below it are not written; it may be changed while running. */
  level: LogLevel;
  /** The newest lines, oldest first. */
  recent(options?: { readonly count?: number; readonly level?: LogLevel }): readonly LogLine[];
  /** Counters since start. */
  readonly counts: LogCounts;
  /** Writes what is held back about repeated lines; call it before the end. */
  flush(): void;
}

/** What became of lines. */
export interface LogCounts {
  /** Written, by level. */
  readonly written: Readonly<Record<LogLevel, number>>;
  /** Not written because they repeat. */
  readonly suppressed: number;
  /** Lost because the output took nothing. */
  readonly lost: number;
}

/** How a log is written. */
export interface LoggerOptions {
  /** @default "info" */
  readonly level?: LogLevel;
  /** `auto` is `text` on a terminal. @default "auto" */
  readonly format?: "json" | "text" | "auto";
  /** Colours in `text`. @default where standard error is a terminal and NO_COLOR is not set */
  readonly colour?: boolean;
  /** Component of lines of the root. @default "agent" */
  readonly component?: string;
  /** Takes one line with its line feed. @default writes to standard error */
  readonly write?: (line: Uint8Array) => void;
  /** Milliseconds since the epoch. @default Date.now */
  readonly now?: () => number;
  /** Lines kept. @default 1000 */
  readonly ringMax?: number;
  /** Lines of one level, component and event in {@linkcode LoggerOptions.windowMs}; more are counted. @default 20 */
  readonly burstMax?: number;
  /** Milliseconds. @default 10000 */
  readonly windowMs?: number;
}

/** Kinds of lines that are watched for repetition; the oldest is forgotten. */
const KINDS_MAX = 512;

/** Characters of a line's fields as JSON; a line with more loses them. */
const FIELDS_CHARS_MAX = 16_000;

const RESERVED = new Set(["ts", "level", "component", "event", "msg"]);

/** Makes the log of a process. */
export function createLogger(options: LoggerOptions = {}): RootLogger {
  return new Root(options);
}

interface Window {
  endsMs: number;
  count: number;
  suppressed: number;
  readonly level: LogLevel;
  readonly component: string;
  readonly event: string;
}

class Root implements RootLogger {
  level: LogLevel;
  readonly #component: string;
  readonly #text: boolean;
  readonly #colour: boolean;
  readonly #write: (line: Uint8Array) => void;
  readonly #now: () => number;
  readonly #ringMax: number;
  readonly #burstMax: number;
  readonly #windowMs: number;
  readonly #encoder = new TextEncoder();
  readonly #ring: LogLine[] = [];
  readonly #windows = new Map<string, Window>();
  readonly #written: Record<LogLevel, number> = { debug: 0, info: 0, warn: 0, error: 0 };
  #suppressed = 0;
  #lost = 0;

  constructor(options: LoggerOptions) {
    const { format = "auto" } = options;
    const terminal = options.write === undefined && Deno.stderr.isTerminal();
    this.level = options.level ?? "info";
    this.#component = options.component ?? "agent";
    this.#text = format === "text" || (format === "auto" && terminal);
    this.#colour = options.colour ?? (terminal && !Deno.noColor);
    this.#write = options.write ?? writeToStderr;
    this.#now = options.now ?? Date.now;
    this.#ringMax = options.ringMax ?? 1_000;
    this.#burstMax = options.burstMax ?? 20;
    this.#windowMs = options.windowMs ?? 10_000;
  }

  get counts(): LogCounts {
    return { written: { ...this.#written }, suppressed: this.#suppressed, lost: this.#lost };
  }

  debug(event: string, msg: string, fields?: LogFields): void {
    this.log("debug", this.#component, event, msg, fields);
  }

  info(event: string, msg: string, fields?: LogFields): void {
    this.log("info", this.#component, event, msg, fields);
  }

  warn(event: string, msg: string, fields?: LogFields): void {
    this.log("warn", this.#component, event, msg, fields);
  }

  error(event: string, msg: string, fields?: LogFields): void {
    this.log("error", this.#component, event, msg, fields);
  }

  child(component: string, fields: LogFields = {}): Logger {
    return new Child(this, component, fields);
  }

  recent(options: { readonly count?: number; readonly level?: LogLevel } = {}): readonly LogLine[] {
    const least = LOG_LEVELS.indexOf(options.level ?? "debug");
    const count = options.count ?? this.#ringMax;
    return count <= 0 ? [] : this.#ring.filter((line) => LOG_LEVELS.indexOf(line.level) >= least).slice(-count);
  }

  flush(): void {
    for (const window of this.#windows.values()) this.#reportRepeats(window);
    this.#windows.clear();
  }

  /** Never throws: a log that takes the program down is worse than none. */
  log(level: LogLevel, component: string, event: string, msg: string, fields: LogFields = {}): void {
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(this.level)) return;
    const nowMs = this.#now();
    if (this.#repeats({ level, component, event, nowMs })) return;
    this.#emit(makeLine({ nowMs, level, component, event, msg, fields }));
  }

  #repeats(
    key: { readonly level: LogLevel; readonly component: string; readonly event: string; readonly nowMs: number },
  ) {
    const { level, component, event, nowMs } = key;
    const name = `${level} ${component} ${event}`;
    const window = this.#windows.get(name);
    // A clock that was set back would keep a window open for long.
    if (window && nowMs < window.endsMs && nowMs >= window.endsMs - this.#windowMs) {
      if (++window.count <= this.#burstMax) return false;
      window.suppressed++;
      this.#suppressed++;
      return true;
    }
    if (window) this.#reportRepeats(window);
    this.#windows.delete(name);
    if (this.#windows.size >= KINDS_MAX) {
      const [oldest, forgotten] = this.#windows.entries().next().value ?? [];
      if (oldest !== undefined) this.#windows.delete(oldest);
      if (forgotten) this.#reportRepeats(forgotten);
    }
    this.#windows.set(name, { endsMs: nowMs + this.#windowMs, count: 1, suppressed: 0, level, component, event });
    return false;
  }

  #reportRepeats(window: Window): void {
    const { level, component, event, suppressed } = window;
    if (suppressed === 0) return;
    window.suppressed = 0;
    const msg = `${suppressed} more lines like this were not written`;
    this.#emit(makeLine({ nowMs: this.#now(), level, component, event, msg, fields: { suppressed } }));
  }

  #emit(line: LogLine): void {
    this.#ring.push(line);
    if (this.#ring.length > this.#ringMax) this.#ring.shift();
    try {
      this.#write(this.#encoder.encode((this.#text ? textLine(line, this.#colour) : jsonLine(line)) + "\n"));
      this.#written[line.level]++;
    } catch {
      this.#lost++;
    }
  }
}

class Child implements Logger {
  readonly #root: Root;
  readonly #component: string;
  readonly #fields: LogFields;

  constructor(root: Root, component: string, fields: LogFields) {
    this.#root = root;
    this.#component = component;
    this.#fields = fields;
  }

  debug(event: string, msg: string, fields?: LogFields): void {
    this.#log("debug", event, msg, fields);
  }

  info(event: string, msg: string, fields?: LogFields): void {
    this.#log("info", event, msg, fields);
  }

  warn(event: string, msg: string, fields?: LogFields): void {
    this.#log("warn", event, msg, fields);
  }

  error(event: string, msg: string, fields?: LogFields): void {
    this.#log("error", event, msg, fields);
  }

  child(component: string, fields: LogFields = {}): Logger {
    return new Child(this.#root, component, { ...this.#fields, ...fields });
  }

  #log(level: LogLevel, event: string, msg: string, fields: LogFields = {}): void {
    this.#root.log(level, this.#component, event, msg, { ...this.#fields, ...fields });
  }
}

/** A number as a name would move before the fields of the schema, and `__proto__` would not be a field at all. */
function safeName(key: string): string {
  return RESERVED.has(key) || /^\d+$|^__proto__$/.test(key) ? `${key}_` : key;
}

interface LineParts {
  readonly nowMs: number;
  readonly level: LogLevel;
  readonly component: string;
  readonly event: string;
  readonly msg: string;
  readonly fields: LogFields;
}

function makeLine(parts: LineParts): LogLine {
  const { nowMs, level, component, event, msg, fields } = parts;
  const line: Record<string, Loggable> & LogLine = {
    ts: new Date(Math.min(Math.max(nowMs, 0), 8.64e15)).toISOString(),
    level,
    component,
    event,
    msg: scrubText(msg),
  };
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    (line as Record<string, Loggable>)[safeName(key)] = isSecretKey(key) ? REDACTED : redact(value);
  }
  const size = JSON.stringify(line).length;
  if (size <= FIELDS_CHARS_MAX) return line;
  return { ts: line.ts, level, component, event, msg: line.msg, truncatedFrom: size };
}

/** U+2028, DEL and C1 controls are escaped too: some terminals and splitters obey them. */
function jsonLine(line: LogLine): string {
  return JSON.stringify(line).replace(/[\u007f-\u009f\u2028\u2029]/g, escapeChar);
}

const COLOURS: Readonly<Record<LogLevel, string>> = { debug: "90", info: "36", warn: "33", error: "31" };

function textLine(line: LogLine, colour: boolean): string {
  const { ts, level, component, event, msg, ...fields } = line;
  const paint = (code: string, text: string) => colour ? `\x1b[${code}m${text}\x1b[0m` : text;
  const extra = Object.entries(fields).map(([key, value]) => {
    return `${plain(key)}=${
      plain(typeof value === "string" && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value))
    }`;
  });
  const head = `${paint("90", ts.slice(11, 23))} ${paint(COLOURS[level], level.toUpperCase().padEnd(5))} ` +
    `${paint("90", `${plain(component)}:`)} ${level === "error" ? paint("31", plain(msg)) : plain(msg)}`;
  return [head, paint("90", [plain(event), ...extra].join(" "))].join("  ");
}

/** Text that moves no cursor: whoever makes a log line must not write to the reader's terminal. */
function plain(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, escapeChar);
}

function escapeChar(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function writeToStderr(line: Uint8Array): void {
  // A pipe may take a part.
  for (let offset = 0; offset < line.length;) offset += Deno.stderr.writeSync(line.subarray(offset));
}
