/**
 * Values as they may be logged: bounded, and without secrets.
 *
 * @module
 */

/** What JSON can hold. */
export type Loggable = null | boolean | number | string | readonly Loggable[] | { readonly [key: string]: Loggable };

/** Stands where a secret was. */
export const REDACTED = "[redacted]";

const DEPTH_MAX = 5;
const ITEMS_MAX = 64;
const TEXT_CHARS_MAX = 2_000;
const BYTES_MAX = 64;

/** Words in a key's name that make its value a secret. */
const SECRET_WORDS = new Set([
  "secret",
  "secrets",
  "seed",
  "token",
  "tokens",
  "invite",
  "password",
  "passphrase",
  "psk",
  "authorization",
  "cookie",
  "private",
  "credentials",
]);

/** Last words of a key that say that it is about a secret, not one: `inviteId`, `tokenCount`. */
const HARMLESS_ENDINGS = new Set(["id", "ids", "count", "state", "ms", "bytes", "file", "path", "name", "uses", "max"]);

/** Whether a value under `key` is a secret by the key's name. */
export function isSecretKey(key: string): boolean {
  const words = key.replace(/([a-z0-9])([A-Z])/g, "$1 $2").toLowerCase().split(/[^a-z0-9]+/).filter(Boolean);
  if (HARMLESS_ENDINGS.has(words.at(-1) ?? "")) return false;
  return words.some((word) => SECRET_WORDS.has(word));
}

/** A text without the tokens that this program makes, and not too long. */
export function scrubText(text: string): string {
  const short = text.length > TEXT_CHARS_MAX ? `${text.slice(0, TEXT_CHARS_MAX)}… (${text.length} characters)` : text;
  return short
    .replace(/\bmyc1[0-9A-Za-z_-]{8,}/g, `myc1${REDACTED}`)
    .replace(/\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}/gi, `$1 ${REDACTED}`)
    .replace(/-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, REDACTED);
}

/** A value as it may be logged. Never throws, whatever it is given. */
export function redact(value: unknown, depth = 0): Loggable {
  switch (typeof value) {
    case "string":
      return scrubText(value);
    case "number":
      return Number.isFinite(value) ? value : String(value);
    case "boolean":
      return value;
    case "bigint":
      return String(value);
    case "object":
      return value === null ? null : redactObject(value, depth);
    case "function":
    case "symbol":
      return String(value).slice(0, 50);
    default:
      return null;
  }
}

function redactObject(value: object, depth: number): Loggable {
  if (depth >= DEPTH_MAX) return "[deep]";
  try {
    if (value instanceof Error) return redactError(value, depth);
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? "invalid date" : value.toISOString();
    if (value instanceof Uint8Array) return hex(value);
    if (value instanceof Map) return redactEntries([...value].map(([key, item]) => [String(key), item]), depth);
    if (Array.isArray(value) || value instanceof Set) {
      const items = [...value];
      const shown = items.slice(0, ITEMS_MAX).map((item) => redact(item, depth + 1));
      return items.length > ITEMS_MAX ? [...shown, `… ${items.length - ITEMS_MAX} more`] : shown;
    }
    return redactEntries(Object.entries(value), depth);
  } catch {
    // A getter or a proxy that throws.
    return "[unreadable]";
  }
}

function redactEntries(entries: readonly (readonly [string, unknown])[], depth: number): Loggable {
  const result: Record<string, Loggable> = {};
  for (const [key, item] of entries.slice(0, ITEMS_MAX)) {
    const name = key === "__proto__" ? "__proto__ " : key.slice(0, 100);
    if (item !== undefined) result[name] = isSecretKey(key) ? REDACTED : redact(item, depth + 1);
  }
  if (entries.length > ITEMS_MAX) result["…"] = entries.length - ITEMS_MAX;
  return result;
}

function redactError(error: Error, depth: number): Loggable {
  const code = (error as { readonly code?: unknown }).code;
  const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)).slice(0, 6);
  return {
    name: error.name,
    message: scrubText(error.message),
    ...(typeof code === "string" || typeof code === "number" ? { code } : {}),
    ...(frames.length > 0 ? { stack: frames.map((line) => scrubText(line.trim())) } : {}),
    ...(error.cause === undefined ? {} : { cause: redact(error.cause, depth + 1) }),
  };
}

function hex(bytes: Uint8Array): string {
  const shown = Array.from(bytes.subarray(0, BYTES_MAX), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return bytes.length > BYTES_MAX ? `${shown}… (${bytes.length} bytes)` : shown;
}
