/**
 * Roles from measured capabilities, and the registrar's check that an advert is plausible.
 *
 * A registrar cannot look into another machine. What it can do: refuse figures that no machine has, refuse
 * a role that the figures do not carry, and time a chain of hashes that cannot be computed faster than
 * one thread of the machine allows.
 *
 * @module
 */

import type { Capabilities } from "../core/capabilities.ts";
import { hashParts, sha256 } from "../core/crypto.ts";
import { type Role, roleFits } from "../core/roles.ts";

const GIB = 2 ** 30;

/** Memory and disk that a Sclerotium needs at the least: K3s's own server minimum. */
export const SCLEROTIUM_MIN = { cpus: 2, memoryBytes: 2 * GIB - GIB / 4, diskBytes: 8 * GIB } as const;

/** Memory above which a machine is an ordinary one and no longer a Hypha. */
export const RHIZOMORPH_MIN = { memoryBytes: GIB + GIB / 8, diskBytes: 4 * GIB } as const;

/** The most demanding role that a machine is fit for. */
export function roleOf(can: Capabilities): Role {
  const small = can.memoryBytes < RHIZOMORPH_MIN.memoryBytes || can.diskBytes < RHIZOMORPH_MIN.diskBytes;
  if (small || can.battery) return "hypha";
  const server = can.cpus >= SCLEROTIUM_MIN.cpus && can.memoryBytes >= SCLEROTIUM_MIN.memoryBytes &&
    can.diskBytes >= SCLEROTIUM_MIN.diskBytes;
  return server ? "sclerotium" : "rhizomorph";
}

/**
 * Steps of the timed chain. About 3 ms on an x86 server core, 25 ms on a small board. The newcomer computes it and then
 * the registrar, one after the other: a longer chain contradicts no further claim, since the slack for network and
 * scheduling is a thousand times as long.
 */
export const WORK_STEPS = 1_024;

/** End of a chain of SHA-256 over a nonce, `WORK_STEPS` long: strictly sequential. */
export function workOf(nonce: Uint8Array): Uint8Array {
  let value = hashParts("mycelium/work/v1", nonce);
  for (let i = 1; i < WORK_STEPS; i++) value = sha256(value);
  return value;
}

/** What the registrar observed while the newcomer computed the chain. */
export interface WorkObservation {
  /** Challenge sent to answer received, network included. */
  readonly elapsedMs: number;
  /** Whether the end of the chain was right. */
  readonly correct: boolean;
}

/** Slack for network, scheduling and a busy machine before a slow answer contradicts a fast claim. */
const WORK_SLACK_MS = 5_000;
/** No thread on this planet does more SHA-256 chain steps per second. */
const HASHES_PER_SECOND_MAX = 50_000_000;

/**
 * What is not plausible about an advert, one sentence each; empty where it is plausible.
 *
 * @param can The advert.
 * @param wanted Role that is asked for.
 * @param work What was observed of the timed chain; `undefined` where there was none (a renewal).
 */
export function implausibilities(can: Capabilities, wanted: Role, work: WorkObservation | undefined): string[] {
  const found: string[] = [];
  const say = (bad: boolean, what: string) => bad && found.push(what);
  say(can.cpus < 1 || can.cpus > 4_096, `${can.cpus} processors: machines have 1 to 4096`);
  say(
    can.memoryBytes < GIB / 16 || can.memoryBytes > 64 * 1024 * GIB,
    `${can.memoryBytes} bytes of memory: machines have 64 MiB to 64 TiB`,
  );
  say(
    can.diskBytes < GIB / 16 || can.diskBytes > 2 ** 50 * 4,
    `${can.diskBytes} bytes of disk: machines have 64 MiB to 4 PiB`,
  );
  say(can.diskFreeBytes > can.diskBytes, `${can.diskFreeBytes} bytes free on a disk of ${can.diskBytes}`);
  say(
    can.arch !== "x86_64" && can.arch !== "aarch64",
    `architecture "${can.arch}": the program runs on x86_64 and aarch64`,
  );
  // 512 processors with 1 GiB do not exist: at least 32 MiB for each.
  say(
    can.memoryBytes / Math.max(1, can.cpus) < GIB / 32,
    `${can.cpus} processors with ${can.memoryBytes} bytes of memory`,
  );
  say(
    can.hashesPerSecond < 1_000 || can.hashesPerSecond > HASHES_PER_SECOND_MAX,
    `${can.hashesPerSecond} hashes per second in one thread`,
  );
  say(!roleFits(roleOf(can), wanted), `role ${wanted} on a machine that is fit for ${roleOf(can)}`);
  if (work) {
    say(!work.correct, "the end of the timed hash chain is wrong");
    const expectedMs = (WORK_STEPS * 1_000) / Math.max(1, can.hashesPerSecond);
    say(
      work.elapsedMs > expectedMs * 20 + WORK_SLACK_MS,
      `${can.hashesPerSecond} hashes per second claimed, but ${WORK_STEPS} took ${work.elapsedMs} ms`,
    );
    say(
      work.elapsedMs * 20 < expectedMs,
      `${can.hashesPerSecond} hashes per second claimed, but ${WORK_STEPS} took only ${work.elapsedMs} ms`,
    );
  }
  return found;
}
