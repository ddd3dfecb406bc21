/** What a machine can do: the measured figures, as they travel in records. @module */

import { bool, type CborValue, type Reader, record, text, uint } from "./codec.ts";

/** Figures measured on a machine. */
export interface Capabilities {
  /** Processors that the process may use. */
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Size and free space of the file system that holds the state. */
  readonly diskBytes: number;
  readonly diskFreeBytes: number;
  /** `x86_64` or `aarch64`. */
  readonly arch: string;
  /** Name and version of the distribution. */
  readonly os: string;
  readonly kernel: string;
  readonly systemd: boolean;
  /** Runs on a battery. */
  readonly battery: boolean;
  /** Steps of a SHA-256 chain per second in one thread. */
  readonly hashesPerSecond: number;
}

const readParts = record({
  cpus: uint(),
  mem: uint(),
  disk: uint(),
  free: uint(),
  arch: text(32),
  os: text(128),
  kernel: text(128),
  systemd: bool,
  battery: bool,
  hps: uint(),
});

/** Reads capabilities. Says nothing about their plausibility. */
export const readCapabilities: Reader<Capabilities> = (value, path) => {
  const read = readParts(value, path);
  return {
    cpus: read.cpus,
    memoryBytes: read.mem,
    diskBytes: read.disk,
    diskFreeBytes: read.free,
    arch: read.arch,
    os: read.os,
    kernel: read.kernel,
    systemd: read.systemd,
    battery: read.battery,
    hashesPerSecond: read.hps,
  };
};

/** Capabilities as a value for the codec. */
export function capabilitiesValue(one: Capabilities): CborValue {
  return {
    cpus: one.cpus,
    mem: one.memoryBytes,
    disk: one.diskBytes,
    free: one.diskFreeBytes,
    arch: one.arch,
    os: one.os,
    kernel: one.kernel,
    systemd: one.systemd,
    battery: one.battery,
    hps: one.hashesPerSecond,
  };
}
