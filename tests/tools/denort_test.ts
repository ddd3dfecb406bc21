import assert from "node:assert/strict";
import fc from "fast-check";
import { recoverRuntime } from "../../tools/denort.ts";

/** A 64-bit ELF file of `sections` section headers behind `body` bytes, as much of it as the recovery reads. */
function elf(body: number, sections: number): Uint8Array {
  const file = new Uint8Array(64 + body + sections * 64);
  const header = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.setBigUint64(0x20, 64n, true);
  header.setBigUint64(0x28, BigInt(64 + body), true);
  header.setUint16(0x3a, 64, true);
  header.setUint16(0x3c, sections, true);
  return file;
}

/** What `deno compile` makes of `runtime`. */
function compiled(runtime: Uint8Array): Uint8Array {
  return new Uint8Array([...runtime, ...new TextEncoder().encode('d3n0l4nd{"argv":[]}')]);
}

Deno.test("recoverRuntime() undoes the append, byte for byte", () => {
  fc.assert(fc.property(fc.nat(3000), fc.nat(40), (body, sections) => {
    const runtime = elf(body, sections);
    assert.deepEqual(recoverRuntime(compiled(runtime)), runtime);
  }));
});

Deno.test("recoverRuntime() refuses what is not a compiled program", () => {
  const moved = compiled(elf(100, 3));
  new DataView(moved.buffer).setBigUint64(0x20, 4096n, true);
  assert.throws(() => recoverRuntime(new Uint8Array(10)), /not a 64-bit ELF file/);
  assert.throws(() => recoverRuntime(new TextEncoder().encode("#!/bin/sh\n".repeat(20))), /not a 64-bit ELF file/);
  assert.throws(() => recoverRuntime(elf(100, 3)), /no payload/);
  assert.throws(() => recoverRuntime(moved), /Deno 2.9/);
  assert.throws(() => recoverRuntime(compiled(elf(100, 3)).subarray(0, 200)), /section headers end/);
});
