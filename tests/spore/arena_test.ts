import assert from "node:assert/strict";
import fc from "fast-check";
import { Arena } from "../../src/spore/arena.ts";

Deno.test("Arena: gives back what was put in, whatever was taken out in between", () => {
  const step = fc.record({ drop: fc.nat(40), length: fc.integer({ min: 0, max: 9_000 }), byte: fc.nat(255) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const arena = new Arena();
      const held: { readonly place: number; readonly length: number; readonly byte: number }[] = [];
      for (const { drop, length, byte } of steps) {
        const half = length >> 1;
        const place = arena.add(new Uint8Array(half).fill(byte), new Uint8Array(length - half).fill(byte));
        held.push({ place, length, byte });
        const [gone] = drop < held.length ? held.splice(drop, 1) : [];
        if (gone) arena.remove(gone.place, gone.length);
        for (const one of held) {
          const bytes = arena.view(one.place, one.length);
          assert.equal(bytes.length, one.length);
          assert.ok(bytes.every((each) => each === one.byte));
        }
        assert.equal(arena.liveBytes, held.reduce((sum, one) => sum + one.length, 0));
      }
    }),
    { numRuns: 60 },
  );
});

Deno.test("Arena: room that nobody uses is given back", () => {
  const arena = new Arena();
  const places = Array.from({ length: 2_000 }, () => arena.add(new Uint8Array(1_000)));
  const fullBytes = arena.heldBytes;
  assert.ok(fullBytes < 2_400_000, `${fullBytes}`);
  for (const place of places) arena.remove(place, 1_000);
  assert.equal(arena.liveBytes, 0);
  assert.ok(arena.heldBytes <= 1 << 18, `${arena.heldBytes}`);
  assert.throws(() => arena.add(new Uint8Array(1 << 19)), { name: "InvariantError" });
});
