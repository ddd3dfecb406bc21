/** One-time codes: the vectors of the RFCs, and what counts once. */

import assert from "node:assert/strict";
import { utf8 } from "../../src/core/bytes.ts";
import {
  factorName,
  matchTotp,
  SecondFactors,
  toBase32,
  TOTP_STEP_MS,
  totpCode,
  totpStep,
  totpUri,
} from "../../src/access/totp.ts";

Deno.test("[2.4a] codes are those of RFC 6238, appendix B", () => {
  // The secrets of its reference implementation: as long as the hash (erratum 2866).
  const secrets = {
    sha1: utf8("12345678901234567890"),
    sha256: utf8("12345678901234567890123456789012"),
    sha512: utf8("1234567890123456789012345678901234567890123456789012345678901234"),
  };
  const rows = [
    [59, "94287082", "46119246", "90693936"],
    [1_111_111_109, "07081804", "68084774", "25091201"],
    [1_111_111_111, "14050471", "67062674", "99943326"],
    [1_234_567_890, "89005924", "91819424", "93441116"],
    [2_000_000_000, "69279037", "90698825", "38618901"],
    [20_000_000_000, "65353130", "77737706", "47863826"],
  ] as const;
  for (const [seconds, ...codes] of rows) {
    (["sha1", "sha256", "sha512"] as const).forEach((hash, i) => {
      assert.equal(
        totpCode(secrets[hash], totpStep(seconds * 1_000), { hash, digits: 8 }),
        codes[i],
        `${seconds} ${hash}`,
      );
    });
  }
});

Deno.test("[2.4a] codes of six digits are those of RFC 4226, appendix D", () => {
  const wanted = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
  assert.deepEqual(wanted.map((_, counter) => totpCode(utf8("12345678901234567890"), counter)), wanted);
});

Deno.test("Base32 is that of RFC 4648, section 10, without padding", () => {
  const rows = [["", ""], ["f", "MY"], ["fo", "MZXQ"], ["foo", "MZXW6"], ["foob", "MZXW6YQ"], ["fooba", "MZXW6YTB"]];
  for (const [text, base32] of [...rows, ["foobar", "MZXW6YTBOI"]]) assert.equal(toBase32(utf8(text!)), base32);
});

Deno.test("a code counts one step early or late, and no further", () => {
  const secret = utf8("12345678901234567890");
  const nowMs = 1_700_000_010_000;
  const step = totpStep(nowMs);
  for (const [off, counts] of [[-2, false], [-1, true], [0, true], [1, true], [2, false]] as const) {
    const found = matchTotp(totpCode(secret, step + off), { secret, nowMs, usedStep: 0 });
    assert.equal(found, counts ? step + off : undefined, String(off));
  }
  for (const bad of ["", "12345", "1234567", "12345a", "１２３４５６", " 123456"]) {
    assert.equal(matchTotp(bad, { secret, nowMs, usedStep: 0 }), undefined, bad);
  }
});

Deno.test("[2.4a] a code counts once, and none of before counts after it", () => {
  const factors = new SecondFactors();
  const secret = utf8("12345678901234567890");
  const nowMs = 1_700_000_010_000;
  factors.set("local", { secret, confirmed: false, nowMs });
  assert.equal(factors.enrolled("local"), false);
  const first = totpCode(secret, totpStep(nowMs) - 1);
  const second = totpCode(secret, totpStep(nowMs));
  assert.deepEqual(factors.take("local", first, nowMs), { ok: true, confirmed: secret });
  assert.equal(factors.enrolled("local"), true);
  assert.equal(factors.take("local", first, nowMs).ok, false, "the same again");
  assert.equal(factors.take("local", second, nowMs).ok, true);
  assert.equal(factors.take("local", second, nowMs).ok, false);
  assert.equal(factors.take("local", first, nowMs).ok, false, "an older one");
  assert.equal(factors.take("operator:00", second, nowMs).ok, false, "somebody without one");
});

Deno.test("[2.4a] after a restart no code of before it counts: nobody knows which were used", () => {
  const secret = utf8("12345678901234567890");
  const nowMs = 1_700_000_010_000;
  const factors = new SecondFactors();
  factors.set("local", { secret, confirmed: true, nowMs });
  // That of the next step counts before its time where a clock is ahead.
  for (const step of [-1, 0, 1]) {
    assert.equal(factors.take("local", totpCode(secret, totpStep(nowMs) + step), nowMs).ok, false, String(step));
  }
  const later = nowMs + 2 * TOTP_STEP_MS;
  assert.equal(factors.take("local", totpCode(secret, totpStep(later)), later).ok, true);
});

Deno.test("[2.4a] a secret that cannot be read any more lets nothing pass, until it is taken away", () => {
  const factors = new SecondFactors();
  const [anna, other] = [`operator:${"ab".repeat(32)}`, `operator:${"cd".repeat(32)}`];
  factors.spoil(factorName(anna));
  assert.deepEqual([factors.enrolled(anna), factors.enrolled(other), factors.enrolled("local")], [true, false, false]);
  assert.equal(factors.take(anna, "000000", 1_700_000_010_000).ok, false);
  assert.deepEqual(factors.names(), ["ab".repeat(16)]);
  assert.equal(factors.delete(anna), true);
  assert.equal(factors.enrolled(anna), false);
});

Deno.test("the address for the app is one that apps read", () => {
  const uri = new URL(totpUri(utf8("12345678901234567890"), { network: "home", account: "anna/b" }));
  assert.equal(uri.protocol, "otpauth:");
  assert.equal(uri.searchParams.get("secret"), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
  assert.equal(uri.searchParams.get("issuer"), "mycelium home");
  assert.equal(decodeURIComponent(uri.pathname).split(":")[1], "anna/b");
});
