/**
 * This process's own figures, from `/proc`.
 *
 * @module
 */

/** Memory, CPU time and descriptors of a process. */
export interface ProcessStat {
  readonly pid: number;
  /** Resident memory in bytes. */
  readonly rssBytes: number;
  /** User and system time since its start in milliseconds, to 10 ms. */
  readonly cpuMs: number;
  /** Open file descriptors. */
  readonly openFiles: number;
}

/** `USER_HZ`: 100 on every Linux port that Deno runs on. */
const TICKS_PER_SECOND = 100;

/** Descriptors counted at most: listing them costs time. */
const OPEN_FILES_MAX = 65_536;

/** The figures of this process now. Where `/proc` is not readable, what the runtime knows, and 0 for the rest. */
export function readProcessStat(): ProcessStat {
  const stat = tryRead(() => parseStat(Deno.readTextFileSync("/proc/self/stat")));
  return {
    pid: Deno.pid,
    rssBytes: tryRead(() => parseRss(Deno.readTextFileSync("/proc/self/status"))) ?? Deno.memoryUsage().rss,
    cpuMs: stat ?? 0,
    openFiles: tryRead(countOpenFiles) ?? 0,
  };
}

/**
 * CPU milliseconds of a line of `/proc/<pid>/stat`.
 *
 * The second field is the program's name in brackets, and may itself hold blanks and brackets.
 *
 * Source: proc_pid_stat(5), fields 14 and 15.
 */
export function parseStat(text: string): number | undefined {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11]) + Number(fields[12]);
  return Number.isFinite(ticks) ? ticks * 1000 / TICKS_PER_SECOND : undefined;
}

/** Resident bytes of a `/proc/<pid>/status`. */
export function parseRss(text: string): number | undefined {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(text);
  return match ? Number(match[1]) * 1024 : undefined;
}

function countOpenFiles(): number {
  let count = 0;
  for (const _ of Deno.readDirSync("/proc/self/fd")) if (++count >= OPEN_FILES_MAX) break;
  // Listing them opens one.
  return Math.max(0, count - 1);
}

function tryRead<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
