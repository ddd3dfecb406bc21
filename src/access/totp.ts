/**
 * One-time codes of the second factor: TOTP as in RFC 6238, over HOTP of RFC 4226.
 *
 * @module
 */

import { utf8 } from "../core/bytes.ts";
import { equalSecrets, hmacOf } from "../core/crypto.ts";

/** Length of one time step. */
export const TOTP_STEP_MS = 30_000;
/** Digits of a code. */
export const TOTP_DIGITS = 6;
/** Bytes of a secret: as long as the output of the hash (RFC 4226, section 4, R6). */
export const TOTP_SECRET_BYTES = 20;
/** Steps before and after the present one that count as well: clocks differ (RFC 6238, section 6). */
const SKEW_STEPS = 1;

/** How codes are made; authenticator apps know the defaults, and often nothing else. */
export interface TotpOptions {
  /** @default "sha1" */
  readonly hash?: "sha1" | "sha256" | "sha512";
  /** 6 to 8. @default 6 */
  readonly digits?: number;
}

/** Number of the time step at a time. */
export function totpStep(nowMs: number): number {
  return Math.floor(nowMs / TOTP_STEP_MS);
}

/** The code of a time step. */
export function totpCode(secret: Uint8Array, step: number, options: TotpOptions = {}): string {
  const { hash = "sha1", digits = TOTP_DIGITS } = options;
  const counter = new Uint8Array(8);
  new DataView(counter.buffer).setBigUint64(0, BigInt(step));
  const mac = hmacOf(hash, secret, counter);
  const at = mac[mac.length - 1]! & 15;
  const number = ((mac[at]! & 0x7f) << 24 | mac[at + 1]! << 16 | mac[at + 2]! << 8 | mac[at + 3]!) % 10 ** digits;
  return String(number).padStart(digits, "0");
}

/**
 * Step that a code belongs to, or `undefined` where it is of none that counts. Takes the same time for every code.
 *
 * @param usedStep Last step whose code was taken: it and those before it count no longer (RFC 6238, section 5.2).
 */
export function matchTotp(
  code: string,
  options: { readonly secret: Uint8Array; readonly nowMs: number; readonly usedStep: number },
): number | undefined {
  if (!/^\d{6}$/.test(code)) return undefined;
  const given = utf8(code);
  const now = totpStep(options.nowMs);
  let found: number | undefined;
  for (let step = now - SKEW_STEPS; step <= now + SKEW_STEPS; step++) {
    const same = step >= 0 && equalSecrets(given, utf8(totpCode(options.secret, step)));
    if (same && step > options.usedStep) found ??= step;
  }
  return found;
}

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** Base32 without padding (RFC 4648, section 6), as authenticator apps take a secret that is typed. */
export function toBase32(bytes: Uint8Array): string {
  let out = "";
  let value = 0;
  let bits = 0;
  for (const byte of bytes) {
    value = (value << 8 | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += BASE32[value >> bits & 31]!;
    }
  }
  return bits > 0 ? out + BASE32[value << (5 - bits) & 31]! : out;
}

/** The address that an authenticator app reads from a QR code (Key URI Format). */
export function totpUri(secret: Uint8Array, names: { readonly network: string; readonly account: string }): string {
  const label = `${encodeURIComponent(`mycelium ${names.network}`)}:${encodeURIComponent(names.account)}`;
  const issuer = encodeURIComponent(`mycelium ${names.network}`);
  return `otpauth://totp/${label}?secret=${
    toBase32(secret)
  }&issuer=${issuer}&algorithm=SHA1&digits=${TOTP_DIGITS}&period=${TOTP_STEP_MS / 1_000}`;
}

/** Second factors that are set up on this node, with what was used of them. */
export class SecondFactors {
  readonly #spoilt = new Set<string>();
  readonly #secrets = new Map<string, { readonly secret: Uint8Array; readonly confirmed: boolean; usedStep: number }>();

  /**
   * Sets one up, or replaces it.
   *
   * @param subject `local`, or `operator:<key>`.
   * @param options `confirmed`: a code of it was shown once; before that it is asked for by nothing. Codes that
   *   could have counted up to `nowMs` are used up where it was confirmed before: after a restart nobody knows which were.
   */
  set(
    subject: string,
    options: { readonly secret: Uint8Array; readonly confirmed: boolean; readonly nowMs: number },
  ): void {
    const usedStep = options.confirmed ? totpStep(options.nowMs) + SKEW_STEPS : 0;
    this.#secrets.set(subject, { secret: options.secret, confirmed: options.confirmed, usedStep });
  }

  /** The secret of this name cannot be read: it is asked for, and no code of it is right, until it is taken away. */
  spoil(name: string): void {
    this.#spoilt.add(name);
  }

  /** Whether one was set up and confirmed. */
  enrolled(subject: string): boolean {
    return this.#secrets.get(subject)?.confirmed ?? this.#spoilt.has(factorName(subject));
  }

  /** Whether one was set up, confirmed or not. */
  has(subject: string): boolean {
    return this.#secrets.has(subject) || this.#spoilt.has(factorName(subject));
  }

  /** Takes a code: each counts once. `confirmed`: it was the first one, and the secret is to be stored as confirmed. */
  take(subject: string, code: string, nowMs: number): { readonly ok: boolean; readonly confirmed?: Uint8Array } {
    const found = this.#secrets.get(subject);
    if (!found) return { ok: false };
    const step = matchTotp(code, { secret: found.secret, nowMs, usedStep: found.usedStep });
    if (step === undefined) return { ok: false };
    if (found.confirmed) {
      found.usedStep = step;
      return { ok: true };
    }
    this.#secrets.set(subject, { secret: found.secret, confirmed: true, usedStep: step });
    return { ok: true, confirmed: found.secret };
  }

  /** Forgets one. */
  delete(subject: string): boolean {
    const spoilt = this.#spoilt.delete(factorName(subject));
    return this.#secrets.delete(subject) || spoilt;
  }

  /** Names of those that are set up, see {@linkcode factorName}. */
  names(): readonly string[] {
    return [...new Set([...[...this.#secrets.keys()].map(factorName), ...this.#spoilt])].sort();
  }

  /** Forgets all. */
  clear(): void {
    this.#secrets.clear();
    this.#spoilt.clear();
  }
}

/** Name of a subject in a file name, at most 32 characters: half of the key, or `local`. The file itself says which. */
export function factorName(subject: string): string {
  return subject === "local" ? "local" : subject.slice("operator:".length).slice(0, 32);
}
