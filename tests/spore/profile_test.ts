import assert from "node:assert/strict";
import { utf8 } from "../../src/core/bytes.ts";
import { WireError } from "../../src/core/codec.ts";
import { keyPairFromSeed, sha256 } from "../../src/core/crypto.ts";
import { type Assignment, openAssignment, openProfile, sealAssignment, sealProfile } from "../../src/spore/profile.ts";

const NETWORK_ID = sha256(utf8("spore test network"));
const OTHER_NETWORK_ID = sha256(utf8("spore test network 2"));
const ISSUER = keyPairFromSeed(sha256(utf8("spore test issuer")));

const PROFILE = { seq: 3, name: "Forest", approval: true, issuedMs: 1_000 };
const ASSIGNMENT: Assignment = {
  id: "web-1",
  seq: 7,
  service: "web",
  node: ISSUER.publicKey,
  action: "run",
  spec: new Uint8Array([0xa0]),
  issuedMs: 1_000,
};

Deno.test("[1.4c] profile and assignment survive the wire", () => {
  assert.deepEqual(openProfile(sealProfile(PROFILE, NETWORK_ID, ISSUER), NETWORK_ID), PROFILE);
  assert.deepEqual(openAssignment(sealAssignment(ASSIGNMENT, NETWORK_ID, ISSUER), NETWORK_ID), ASSIGNMENT);
  const stop: Assignment = { ...ASSIGNMENT, action: "stop", spec: new Uint8Array(0) };
  assert.deepEqual(openAssignment(sealAssignment(stop, NETWORK_ID, ISSUER), NETWORK_ID), stop);
});

Deno.test("[2.1d] neither is valid in another network, under another key, as the other type or with a bit changed", () => {
  const profile = sealProfile(PROFILE, NETWORK_ID, ISSUER);
  const assignment = sealAssignment(ASSIGNMENT, NETWORK_ID, ISSUER);
  assert.throws(() => openProfile(profile, OTHER_NETWORK_ID), WireError);
  assert.throws(() => openAssignment(assignment, OTHER_NETWORK_ID), WireError);
  assert.throws(() => openProfile(assignment, NETWORK_ID), WireError);
  assert.throws(() => openAssignment(profile, NETWORK_ID), WireError);
  assert.throws(
    () => openAssignment({ ...assignment, type: profile.type, payload: profile.payload }, NETWORK_ID),
    WireError,
  );
  for (let i = 0; i < assignment.payload.length; i++) {
    const payload = assignment.payload.map((byte, at) => at === i ? byte ^ 0x10 : byte);
    assert.throws(() => openAssignment({ ...assignment, payload }, NETWORK_ID), WireError);
  }
});

Deno.test("[1.4c] what an assignment may not hold is refused when it is read, whoever signed it", () => {
  const bad: readonly Partial<Assignment>[] = [
    { id: "" },
    { id: "Web" },
    { id: "../etc" },
    { service: "x".repeat(64) },
    { node: new Uint8Array(31) },
    { action: "burn" as never },
    { spec: new Uint8Array((8 << 10) + 1) },
    { seq: -1 },
  ];
  for (const change of bad) {
    assert.throws(
      () => openAssignment(sealAssignment({ ...ASSIGNMENT, ...change }, NETWORK_ID, ISSUER), NETWORK_ID),
      WireError,
      JSON.stringify(change),
    );
  }
  assert.throws(
    () => openProfile(sealProfile({ ...PROFILE, name: "x".repeat(64) }, NETWORK_ID, ISSUER), NETWORK_ID),
    WireError,
  );
});
