/**
 * Sessions of operators: a key is shown once, by signing a challenge; after that a key that lives for an hour signs each
 * request. What was signed for one node, one network or one request is of no use for another.
 *
 * @module
 */

import { concatBytes, toHex, utf8 } from "../core/bytes.ts";
import { bytes, decodeAs, encodeCbor, type Read, record, uint } from "../core/codec.ts";
import { equalSecrets, hashParts, hkdfSha256, hmacSha256, verifySignature } from "../core/crypto.ts";
import { LIMITS } from "../core/limits.ts";

/** Life of a session where none is asked for. */
export const SESSION_MS = 3_600_000;
/** Longest life of a session. */
export const SESSION_MS_MAX: number = 12 * 3_600_000;
/** Time in which a challenge has to be answered. */
export const CHALLENGE_MS = 60_000;
/** A request counts for this long before and after the time that it names. */
export const REQUEST_MS = 60_000;
/** Time for which a second factor that was shown counts. */
export const SECOND_FACTOR_MS = 5 * 60_000;

/** What a login says: read from the control request. */
export interface LoginWords {
  /** As {@linkcode Sessions.challenge} gave it. */
  readonly challenge: Uint8Array;
  /** Operator key, 32 bytes. */
  readonly key: Uint8Array;
  /** Key that signs the requests, 32 bytes. */
  readonly sessionKey: Uint8Array;
  /** Life that is wanted, milliseconds. */
  readonly ttlMs: number;
}

/** Where a session is good: one network, one node. */
export interface Place {
  readonly networkId: Uint8Array;
  readonly nodeKey: Uint8Array;
}

/**
 * What an operator key signs to log in. Begins with a text that no other protocol that an SSH agent signs for begins with:
 * a login to an SSH server begins with the length of a hash, a signed file with `SSHSIG`.
 */
export function loginMessage(words: LoginWords, place: Place): Uint8Array {
  const hash = hashParts(
    "mycelium/login/v1",
    place.networkId,
    place.nodeKey,
    words.challenge,
    words.key,
    words.sessionKey,
    utf8(String(words.ttlMs)),
  );
  return concatBytes(utf8("mycelium-login\n"), hash);
}

/** One request as its session key signs it. */
export interface RequestWords {
  /** 16 bytes. */
  readonly sessionId: Uint8Array;
  /** 16 random bytes: the request counts once. */
  readonly nonce: Uint8Array;
  /** By the clock of the node, as it told when the session began. */
  readonly timeMs: number;
  /** Upper case. */
  readonly method: string;
  /** Path with its query. */
  readonly path: string;
  /** SHA-256 of the body, 32 bytes. */
  readonly bodyHash: Uint8Array;
}

/** What a session key signs for a request. */
export function requestMessage(words: RequestWords, place: Place): Uint8Array {
  return hashParts(
    "mycelium/request/v1",
    place.networkId,
    place.nodeKey,
    words.sessionId,
    words.nonce,
    utf8(String(words.timeMs)),
    utf8(words.method),
    utf8(words.path),
    words.bodyHash,
  );
}

const readProof = record({
  s: bytes({ length: 16 }),
  n: bytes({ length: 16 }),
  t: uint(),
  g: bytes({ length: 64 }),
});

/** What a request carries to prove that it is of a session. */
export interface RequestProof {
  readonly sessionId: Uint8Array;
  readonly nonce: Uint8Array;
  readonly timeMs: number;
  readonly signature: Uint8Array;
}

/** A proof as bytes for the `Authorization` header. */
export function encodeProof(proof: RequestProof): Uint8Array {
  return encodeCbor({ s: proof.sessionId, n: proof.nonce, t: proof.timeMs, g: proof.signature });
}

/** Reads a proof. @throws {WireError} */
export function decodeProof(input: Uint8Array): RequestProof {
  const read: Read<typeof readProof> = decodeAs(input, readProof, 256);
  return { sessionId: read.s, nonce: read.n, timeMs: read.t, signature: read.g };
}

/** A session. */
export interface Session {
  /** Hexadecimal. */
  readonly id: string;
  /** Operator key, hexadecimal. */
  readonly key: string;
  readonly sessionKey: Uint8Array;
  readonly openedMs: number;
  readonly expiresMs: number;
  /** Until when a second factor that was shown counts; 0 where none was. */
  secondFactorUntilMs: number;
  /** Nonces of requests, with the time until which they must be remembered. */
  readonly nonces: Map<string, number>;
}

/** Why a session did not come about or a request is not of one. Stable: these are error codes. */
export type SessionRefusal =
  | "challenge-expired"
  | "challenge-foreign"
  | "login-replayed"
  | "signature-invalid"
  | "sessions-full"
  | "session-unknown"
  | "session-expired"
  | "request-expired"
  | "request-replayed";

/** The sessions of one node. In memory only: they end when the node does. */
export class Sessions {
  readonly #secret: Uint8Array;
  readonly #sessions = new Map<string, Session>();
  /** Challenges that were answered well, with the time until which they must be remembered. */
  readonly #answered = new Map<string, { readonly untilMs: number; readonly key: string }>();

  /** @param secret 32 random bytes that nobody else has: by it the node knows its own challenges again. */
  constructor(secret: Uint8Array) {
    this.#secret = hkdfSha256(secret, "mycelium/challenge/v1");
  }

  /** Sessions now. */
  get size(): number {
    return this.#sessions.size;
  }

  /**
   * A challenge, 64 bytes: time, randomness, and a code by which it is known again. Nothing is stored for it, so that
   * asking for millions costs no memory.
   *
   * @param random 24 random bytes.
   */
  challenge(nowMs: number, random: Uint8Array): Uint8Array {
    const head = new Uint8Array(32);
    new DataView(head.buffer).setBigUint64(0, BigInt(nowMs));
    head.set(random.subarray(0, 24), 8);
    return concatBytes(head, hmacSha256(this.#secret, head));
  }

  /**
   * Opens a session. Whether the key has a role is not asked here.
   *
   * @param id 16 random bytes.
   */
  open(
    login: { readonly words: LoginWords; readonly signature: Uint8Array; readonly place: Place },
    options: { readonly nowMs: number; readonly id: Uint8Array },
  ): { readonly ok: true; readonly session: Session } | { readonly ok: false; readonly reason: SessionRefusal } {
    const { words, signature, place } = login;
    const { nowMs } = options;
    const refuse = (reason: SessionRefusal) => ({ ok: false, reason }) as const;
    const { challenge } = words;
    if (challenge.length !== 64) return refuse("challenge-foreign");
    const head = challenge.slice(0, 32);
    if (!equalSecrets(hmacSha256(this.#secret, head), challenge.slice(32))) return refuse("challenge-foreign");
    const madeMs = Number(new DataView(head.buffer).getBigUint64(0));
    if (Math.abs(nowMs - madeMs) > CHALLENGE_MS) return refuse("challenge-expired");
    this.#forget(nowMs);
    const name = toHex(head);
    if (this.#answered.has(name)) return refuse("login-replayed");
    if (!verifySignature(words.key, loginMessage(words, place), signature)) return refuse("signature-invalid");
    const key = toHex(words.key);
    const logins = [...this.#answered.values()].filter((one) => one.key === key).length;
    // One key that logs in without end must not keep the others out.
    if (logins >= LIMITS.loginsPerKeyMax || this.#answered.size >= LIMITS.loginsRememberedMax) {
      return refuse("sessions-full");
    }
    const own = [...this.#sessions.values()].filter((one) => one.key === key);
    // Who forgets to log out must not be locked out; the key decides which of its sessions count.
    if (own.length >= LIMITS.sessionsPerKeyMax) this.#sessions.delete(own[0]!.id);
    if (this.#sessions.size >= LIMITS.sessionsMax) return refuse("sessions-full");
    this.#answered.set(name, { untilMs: madeMs + 2 * CHALLENGE_MS, key });
    const session: Session = {
      id: toHex(options.id),
      key,
      sessionKey: words.sessionKey,
      openedMs: nowMs,
      expiresMs: nowMs + Math.min(SESSION_MS_MAX, Math.max(1_000, words.ttlMs)),
      secondFactorUntilMs: 0,
      nonces: new Map(),
    };
    this.#sessions.set(session.id, session);
    return { ok: true, session };
  }

  /** Finds the session of a request and notes that the request was made: a second time it is refused. */
  prove(
    request: { readonly words: RequestWords; readonly signature: Uint8Array; readonly place: Place },
    nowMs: number,
  ): { readonly ok: true; readonly session: Session } | { readonly ok: false; readonly reason: SessionRefusal } {
    const refuse = (reason: SessionRefusal) => ({ ok: false, reason }) as const;
    const { words, signature, place } = request;
    const session = this.#sessions.get(toHex(words.sessionId));
    if (!session) return refuse("session-unknown");
    if (session.expiresMs <= nowMs) {
      this.#sessions.delete(session.id);
      return refuse("session-expired");
    }
    if (Math.abs(nowMs - words.timeMs) > REQUEST_MS) return refuse("request-expired");
    if (!verifySignature(session.sessionKey, requestMessage(words, place), signature)) {
      return refuse("signature-invalid");
    }
    const { nonces } = session;
    const name = toHex(words.nonce);
    if (nonces.has(name)) return refuse("request-replayed");
    if (nonces.size >= LIMITS.sessionNoncesMax) {
      for (const [one, untilMs] of nonces) if (untilMs <= nowMs) nonces.delete(one);
      // A thousand requests within two minutes: refusing is safer than forgetting one.
      if (nonces.size >= LIMITS.sessionNoncesMax) return refuse("request-replayed");
    }
    nonces.set(name, words.timeMs + REQUEST_MS + 1);
    return { ok: true, session };
  }

  /** A session that counts, or `undefined`. */
  get(id: string, nowMs: number): Session | undefined {
    const session = this.#sessions.get(id);
    return session && session.expiresMs > nowMs ? session : undefined;
  }

  /** Ends a session; says whether there was one. */
  end(id: string): boolean {
    return this.#sessions.delete(id);
  }

  /** Ends all sessions of a key in hexadecimal; returns how many there were. */
  endOf(key: string): number {
    const own = [...this.#sessions.values()].filter((one) => one.key === key);
    for (const { id } of own) this.#sessions.delete(id);
    return own.length;
  }

  /** Sessions that count, the oldest first. */
  list(nowMs: number): readonly Session[] {
    return [...this.#sessions.values()].filter((one) => one.expiresMs > nowMs);
  }

  /** Ends all. */
  clear(): void {
    this.#sessions.clear();
  }

  #forget(nowMs: number): void {
    for (const [name, { untilMs }] of this.#answered) if (untilMs <= nowMs) this.#answered.delete(name);
    for (const [id, { expiresMs }] of this.#sessions) if (expiresMs <= nowMs) this.#sessions.delete(id);
  }
}
