/** What this machine can do, measured. @module */

import { statfsSync } from "node:fs";
import type { Capabilities } from "../../core/capabilities.ts";
import { utf8 } from "../../core/bytes.ts";
import { sha256 } from "../../core/crypto.ts";

/**
 * Measures the machine. Takes about 2 ms, most of it the hash chain.
 *
 * @param stateDir Folder whose file system counts as the node's disk.
 */
export function measureCapabilities(stateDir: string): Capabilities {
  const disk = statfsSync(stateDir);
  return {
    cpus: Math.max(1, navigator.hardwareConcurrency),
    memoryBytes: memoryBytes(),
    diskBytes: disk.blocks * disk.bsize,
    diskFreeBytes: disk.bavail * disk.bsize,
    arch: Deno.build.arch,
    os: /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(read("/etc/os-release"))?.[1]?.slice(0, 128) ?? "Linux",
    kernel: Deno.osRelease().slice(0, 128),
    systemd: exists("/run/systemd/system"),
    battery: onBattery(),
    hashesPerSecond: hashRate(),
  };
}

/** Memory that this process may use: the machine's, or what its control group allows. */
function memoryBytes(): number {
  const total = Number(/^MemTotal:\s+(\d+) kB/m.exec(read("/proc/meminfo"))?.[1] ?? 0) * 1024;
  const limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
    .map((path) => Number(read(path).trim() || NaN))
    .filter((limit) => Number.isSafeInteger(limit) && limit > 0);
  return Math.min(total || Deno.systemMemoryInfo().total, ...limits);
}

function onBattery(): boolean {
  try {
    const supplies = [...Deno.readDirSync("/sys/class/power_supply")].map((entry) =>
      `/sys/class/power_supply/${entry.name}`
    );
    const battery = supplies.some((path) =>
      read(`${path}/type`).trim() === "Battery" && read(`${path}/scope`).trim() !== "Device"
    );
    const mains = supplies.some((path) => read(`${path}/online`).trim() === "1");
    return battery && !mains;
  } catch {
    return false;
  }
}

/** Steps of a SHA-256 chain per second: the best of a few short runs, since others may be using the core. */
function hashRate(): number {
  let best = 0;
  for (let run = 0; run < 4; run++) {
    let value = sha256(utf8(`run ${run}`));
    const startMs = performance.now();
    for (let i = 0; i < 64; i++) value = sha256(value);
    best = Math.max(best, 64_000 / Math.max(0.01, performance.now() - startMs));
  }
  return Math.floor(best);
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
