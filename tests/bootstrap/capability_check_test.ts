import assert from "node:assert/strict";
import fc from "fast-check";
import {
  implausibilities,
  RHIZOMORPH_MIN,
  roleOf,
  SCLEROTIUM_MIN,
  WORK_STEPS,
  workOf,
} from "../../src/bootstrap/capability_check.ts";
import { type Capabilities, capabilitiesValue, readCapabilities } from "../../src/core/capabilities.ts";
import { decodeAs, encodeCbor } from "../../src/core/codec.ts";
import { hashParts, sha256 } from "../../src/core/crypto.ts";
import { roleFits, ROLES } from "../../src/core/roles.ts";

const GIB = 2 ** 30;

const SERVER: Capabilities = {
  cpus: 4,
  memoryBytes: 8 * GIB,
  diskBytes: 100 * GIB,
  diskFreeBytes: 60 * GIB,
  arch: "x86_64",
  os: "Debian 13",
  kernel: "6.12",
  systemd: true,
  battery: false,
  hashesPerSecond: 400_000,
};

/** Machines as they are sold, from a board to a server, with the role that each is fit for. */
const REAL: readonly (readonly [string, Capabilities, string])[] = [
  ["Raspberry Pi Zero 2 W", {
    ...SERVER,
    cpus: 4,
    memoryBytes: 0.42 * GIB,
    diskBytes: 15 * GIB,
    diskFreeBytes: 10 * GIB,
    arch: "aarch64",
    hashesPerSecond: 30_000,
  }, "hypha"],
  ["Raspberry Pi 4, 1 GB", {
    ...SERVER,
    memoryBytes: 0.91 * GIB,
    diskBytes: 30 * GIB,
    diskFreeBytes: 20 * GIB,
    arch: "aarch64",
    hashesPerSecond: 60_000,
  }, "hypha"],
  ["virtual machine, 2 GB", {
    ...SERVER,
    cpus: 1,
    memoryBytes: 1.9 * GIB,
    diskBytes: 20 * GIB,
    diskFreeBytes: 15 * GIB,
  }, "rhizomorph"],
  ["virtual machine, 2 processors, 2 GB", {
    ...SERVER,
    cpus: 2,
    memoryBytes: 1.9 * GIB,
    diskBytes: 20 * GIB,
    diskFreeBytes: 15 * GIB,
  }, "sclerotium"],
  ["laptop on battery", { ...SERVER, battery: true }, "hypha"],
  ["server", {
    ...SERVER,
    cpus: 192,
    memoryBytes: 1_536 * GIB,
    diskBytes: 2 ** 47,
    diskFreeBytes: 2 ** 46,
    hashesPerSecond: 2_500_000,
  }, "sclerotium"],
];

Deno.test("[1.2c] machines as they are sold are believed, and fit for the role that the design gives them", () => {
  for (const [what, machine, role] of REAL) {
    const can = { ...machine, memoryBytes: Math.floor(machine.memoryBytes) };
    assert.equal(roleOf(can), role, what);
    const elapsedMs = Math.ceil((WORK_STEPS * 1_000) / can.hashesPerSecond) + 40;
    assert.deepEqual(implausibilities(can, roleOf(can), { elapsedMs, correct: true }), [], what);
    assert.deepEqual(implausibilities(can, "hypha", undefined), [], `${what}, renewal`);
  }
});

Deno.test("[1.2c] each figure out of its range is named, and nothing else is", () => {
  const lies: readonly (readonly [Partial<Capabilities>, RegExp])[] = [
    [{ cpus: 0 }, /0 processors: machines have/],
    [{ cpus: 4_097, memoryBytes: 1_024 * GIB }, /4097 processors: machines have/],
    [{ memoryBytes: GIB / 16 - 1, cpus: 1 }, /bytes of memory: machines have/],
    [{ memoryBytes: 64 * 1_024 * GIB + 1 }, /bytes of memory: machines have/],
    [{ diskBytes: GIB / 16 - 1, diskFreeBytes: 0 }, /bytes of disk: machines have/],
    [{ diskBytes: 2 ** 52 + 1 }, /bytes of disk: machines have/],
    [{ diskBytes: Number.MAX_SAFE_INTEGER }, /bytes of disk: machines have/],
    [{ diskFreeBytes: SERVER.diskBytes + 1 }, /bytes free on a disk/],
    [{ arch: "riscv64" }, /architecture "riscv64"/],
    [{ arch: "" }, /architecture ""/],
    [{ cpus: 512, memoryBytes: GIB }, /512 processors with/],
    [{ hashesPerSecond: 999 }, /999 hashes per second/],
    [{ hashesPerSecond: 50_000_001 }, /50000001 hashes per second/],
    [{ hashesPerSecond: 1_000_000_000 }, /1000000000 hashes per second/],
  ];
  for (const [change, wanted] of lies) {
    const found = implausibilities({ ...SERVER, ...change }, "hypha", undefined);
    assert.equal(found.length, 1, `${JSON.stringify(change)}: ${found.join("; ")}`);
    assert.match(found[0]!, wanted);
  }
});

Deno.test("[1.2c] a role above what the figures carry is refused, at and below it is not", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 64 }),
    fc.integer({ min: GIB / 4, max: 64 * GIB }),
    fc.integer({ min: GIB, max: 200 * GIB }),
    fc.boolean(),
    (cpus, memoryBytes, diskBytes, battery) => {
      const can = {
        ...SERVER,
        cpus,
        memoryBytes: Math.max(memoryBytes, (cpus * GIB) / 32),
        diskBytes,
        diskFreeBytes: 0,
        battery,
      };
      const able = roleOf(can);
      for (const role of ROLES) {
        const refused = implausibilities(can, role, undefined).some((one) => one.startsWith("role "));
        assert.equal(refused, !roleFits(able, role), `${role} on a ${able}`);
      }
      const server = !battery && cpus >= SCLEROTIUM_MIN.cpus && can.memoryBytes >= SCLEROTIUM_MIN.memoryBytes &&
        diskBytes >= SCLEROTIUM_MIN.diskBytes;
      assert.equal(able === "sclerotium", server);
      if (can.memoryBytes < RHIZOMORPH_MIN.memoryBytes) assert.equal(able, "hypha");
    },
  ));
});

Deno.test("[1.2c] the timed chain: honest answers pass at any speed and round trip; late, wrong and impossibly early ones do not", () => {
  for (const real of [20_000, 400_000, 3_000_000]) {
    for (const rttMs of [1, 100, 600]) {
      const elapsedMs = Math.ceil((WORK_STEPS * 1_000) / real) + rttMs;
      const honest = implausibilities({ ...SERVER, hashesPerSecond: real }, "hypha", { elapsedMs, correct: true });
      assert.deepEqual(honest, [], `${real} at ${rttMs} ms`);
    }
  }
  // Five seconds of slack for networks and busy machines: the claim is tested only past them.
  const slow = { elapsedMs: 5_010, correct: true };
  assert.equal(implausibilities({ ...SERVER, hashesPerSecond: 50_000_000 }, "hypha", slow).length, 1);
  assert.equal(implausibilities({ ...SERVER, hashesPerSecond: 1_000 }, "hypha", slow).length, 0);
  assert.equal(implausibilities(SERVER, "hypha", { elapsedMs: 20, correct: false }).length, 1);
  // Nobody gains by understating either: a chain of two seconds that is there after one millisecond.
  assert.equal(
    implausibilities({ ...SERVER, hashesPerSecond: 2_000 }, "hypha", { elapsedMs: 1, correct: true }).length,
    1,
  );
});

Deno.test("[1.2c] the chain is what its definition says, and each nonce has its own", () => {
  const nonce = new Uint8Array(32).fill(3);
  let value = hashParts("mycelium/work/v1", nonce);
  for (let i = 1; i < WORK_STEPS; i++) value = sha256(value);
  assert.deepEqual(workOf(nonce), value);
  assert.notDeepEqual(workOf(new Uint8Array(32).fill(4)), value);
});

Deno.test("[1.2c] an advert survives the wire, and no figure outside the integers does", () => {
  assert.deepEqual(decodeAs(encodeCbor(capabilitiesValue(SERVER)), readCapabilities), SERVER);
  assert.throws(() => encodeCbor(capabilitiesValue({ ...SERVER, memoryBytes: 0.5 })));
  assert.throws(() => decodeAs(encodeCbor(capabilitiesValue({ ...SERVER, cpus: -1 })), readCapabilities));
  assert.throws(() => decodeAs(encodeCbor(capabilitiesValue({ ...SERVER, os: "x".repeat(129) })), readCapabilities));
});

Deno.test("[1.2c] [10.1b] any figures that can be read are judged without a throw, in a few sentences", () => {
  const figure = fc.nat(Number.MAX_SAFE_INTEGER);
  fc.assert(fc.property(
    fc.record({ cpus: figure, memoryBytes: figure, diskBytes: figure, diskFreeBytes: figure, hashesPerSecond: figure }),
    fc.constantFrom(...ROLES),
    fc.option(fc.record({ elapsedMs: figure, correct: fc.boolean() }), { nil: undefined }),
    (figures, role, work) => {
      const found = implausibilities({ ...SERVER, ...figures }, role, work);
      assert.ok(found.length <= 11 && found.every((one) => one.length > 5 && one.length < 200));
    },
  ));
});
