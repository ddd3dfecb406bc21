import assert from "node:assert/strict";
import { WireError } from "../../src/core/codec.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { type MemberRecord, openMember, sealMember } from "../../src/membership/record.ts";
import { CAPABILITIES, keyOf, NETWORK_ID, OTHER_NETWORK_ID, RECORD } from "./kit.ts";

Deno.test("[1.4b] a member record survives the wire", () => {
  assert.deepEqual(openMember(sealMember(RECORD, NETWORK_ID, keyOf(1)), NETWORK_ID), RECORD);
  const other: MemberRecord = { ...RECORD, left: true, drained: true, addresses: [], role: "hypha", seq: 2 ** 53 - 1 };
  assert.deepEqual(openMember(sealMember(other, NETWORK_ID, keyOf(1)), NETWORK_ID), other);
});

Deno.test("[2.1d] a record of one network is none of another, and a changed one is none at all", () => {
  const sealed = sealMember(RECORD, NETWORK_ID, keyOf(1));
  assert.throws(() => openMember(sealed, OTHER_NETWORK_ID), WireError);
  assert.throws(() => openMember({ ...sealed, signer: keyOf(2).publicKey }, NETWORK_ID), WireError);
  assert.throws(() => openMember({ ...sealed, type: "credential/1" }, NETWORK_ID), WireError);
  for (let i = 0; i < sealed.payload.length; i += 7) {
    const payload = sealed.payload.map((byte, at) => at === i ? byte ^ 1 : byte);
    assert.throws(() => openMember({ ...sealed, payload }, NETWORK_ID), WireError);
  }
});

Deno.test("what a record may not hold is refused when it is read, whoever signed it", () => {
  const bad: readonly Partial<MemberRecord>[] = [
    { name: "" },
    { name: "Upper" },
    { name: "-dash" },
    { name: "x".repeat(LIMITS.nameCharsMax + 1) },
    { name: "two words" },
    { role: "king" as never },
    { addresses: ["http://10.0.0.1"] },
    { addresses: Array.from({ length: LIMITS.addressesPerNodeMax + 1 }, (_, i) => `/ip4/10.0.0.${i}/tcp/1`) },
    { version: "x".repeat(65) },
    { version: "1.0\u202e" },
    { seq: -1 },
    { capabilities: { ...CAPABILITIES, arch: "x".repeat(40) } },
  ];
  for (const change of bad) {
    const record = { ...RECORD, ...change };
    assert.throws(
      () => openMember(sealMember(record, NETWORK_ID, keyOf(1)), NETWORK_ID),
      WireError,
      JSON.stringify(change),
    );
  }
});
