/** What the command line signs for a change of the policy: what it asked for, whatever the agent would have signed. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { toBase64Url, toHex } from "../../src/core/bytes.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { type Binding, encodeBinding } from "../../src/access/bindings.ts";
import { encodeChange, policyChange, TRUST_POLICY_KEY } from "../../src/access/change.ts";
import { parseGrant } from "../../src/access/permission.ts";
import { BINDING_PREFIX, ROLE_PREFIX } from "../../src/access/policy.ts";
import { encodeRole } from "../../src/access/roles.ts";
import { encodePolicy, type TrustPolicy } from "../../src/trust/policy.ts";
import { AgentSocket, run, temporaryFolder } from "../testkit/cli.ts";
import { singleNodeStatus } from "../testkit/status_fixture.ts";

const NOW = 1_800_000_000_000;
const DAY_MS = 86_400_000;
const [ME, GUEST, MALLORY] = [1, 2, 3].map((n) => keyPairFromSeed(new Uint8Array(32).fill(n))) as [
  ReturnType<typeof keyPairFromSeed>,
  ReturnType<typeof keyPairFromSeed>,
  ReturnType<typeof keyPairFromSeed>,
];
const [FRIEND, FOE] = [nodeIdOf(GUEST.publicKey), nodeIdOf(MALLORY.publicKey)];

/** What is to be signed, as an agent says it. */
interface Offer {
  readonly key: string;
  readonly value: Uint8Array | undefined;
}

/** Runs a command against an agent that wants this signed. @returns Exit code, and whether it was signed. */
async function signs(args: readonly string[], offer: Offer, vouched: readonly string[] = [FRIEND]) {
  using folder = temporaryFolder();
  Deno.writeFileSync(join(folder.path, "me.key"), ME.seed, { mode: 0o600 });
  Deno.writeTextFileSync(join(folder.path, "guest.pub"), toHex(GUEST.publicKey));
  Deno.writeTextFileSync(join(folder.path, "name.yaml"), "min: {relay: 45%}\nvouched: [friend, friend]\n");
  Deno.writeTextFileSync(join(folder.path, "id.yaml"), `min: {relay: 45%}\nvouched: [${FRIEND}]\n`);
  await using agent = new AgentSocket(folder.path, {
    status: singleNodeStatus(),
    control: (request) => {
      if (request.prepare === true) {
        const { key, value } = offer;
        const change = toBase64Url(encodeChange(policyChange(key, value, NOW)));
        const shown = value ? { value: toBase64Url(value) } : {};
        return { ok: true, result: { change, ...shown, networkId: "11".repeat(32) } };
      }
      if (request.dryRun === true) return { ok: true, result: { actions: [], vouched, classes: [], changes: [] } };
      return { ok: true, result: {} };
    },
  });
  const { code, stderr } = await run([...args, "--key", "me.key", "--socket", agent.socket], { cwd: folder.path });
  const signed = agent.requests.some((one) => one.verb === "access-submit");
  if (!signed) assert.match(stderr, /wants something else signed/);
  assert.equal(code, signed ? 0 : 4, stderr);
  return signed;
}

Deno.test("[2.4b] a role for an operator is signed for this key, this role and this time, and for nothing else", async () => {
  const offer = (over: Partial<Binding> = {}, name = "guest"): Offer => ({
    key: BINDING_PREFIX + name,
    value: encodeBinding({
      name,
      role: "viewer",
      subject: { kind: "operator", key: GUEST.publicKey },
      createdMs: NOW,
      expiresMs: NOW + DAY_MS,
      ...over,
    }),
  });
  const add = ["operator", "add", "guest", "guest.pub", "--role", "viewer"];
  const brief = [...add, "--ttl", "1d"];
  assert.ok(await signs(brief, offer()));
  assert.ok(!await signs(brief, offer({ role: "admin" })));
  assert.ok(!await signs(brief, offer({ subject: { kind: "operator", key: MALLORY.publicKey } })));
  assert.ok(!await signs(brief, offer({ expiresMs: NOW + DAY_MS + 1 })), "for longer");
  const { expiresMs: _, ...forever } = { name: "guest", role: "viewer", createdMs: NOW, expiresMs: 0 };
  const subject = { kind: "operator", key: GUEST.publicKey } as const;
  const endless = { key: `${BINDING_PREFIX}guest`, value: encodeBinding({ ...forever, subject }) };
  assert.ok(!await signs(brief, endless), "for good");
  assert.ok(await signs(add, endless));
  assert.ok(!await signs(brief, offer({}, "other")));
  assert.ok(!await signs(brief, { key: `${BINDING_PREFIX}guest`, value: undefined }), "a deletion");
});

Deno.test("[2.4b] a role is signed with its permissions and no others, however they are written", async () => {
  const create = ["role", "create", "backup", "status.read:*", "primary.dump", "--description", "at night"];
  const offer = (grants: readonly string[], description = "at night"): Offer => ({
    key: `${ROLE_PREFIX}backup`,
    value: encodeRole({ name: "backup", description, grants: grants.map((one) => parseGrant(one)!) }),
  });
  assert.ok(await signs(create, offer(["status.read", "primary.dump"])));
  assert.ok(!await signs(create, offer(["status.read", "primary.dump", "access.write"])));
  assert.ok(!await signs(create, offer(["status.read"])));
  assert.ok(!await signs(create, offer(["status.read", "primary.dump"], "by day")));
});

Deno.test("[2.3b] a policy of trust is signed for the nodes that were shown, and as the file says it", async () => {
  const offer = (over: Partial<TrustPolicy> = {}): Offer => ({
    key: TRUST_POLICY_KEY,
    value: encodePolicy({ min: new Map([["relay", 450_000]]), vouched: [FRIEND], classes: [], ...over }),
  });
  const set = (file: string) => ["trust", "policy", "set", file, "--yes"];
  assert.ok(await signs(set("id.yaml"), offer()));
  assert.ok(await signs(set("name.yaml"), offer()), "named twice is named once");
  assert.ok(!await signs(set("id.yaml"), offer({ vouched: [FOE] })));
  assert.ok(!await signs(set("id.yaml"), offer({ vouched: [FOE] }), [FOE]), "not what the file names");
  assert.ok(!await signs(set("name.yaml"), offer({ vouched: [FOE] })), "not what was shown");
  assert.ok(!await signs(set("id.yaml"), offer({ vouched: [FRIEND, FOE].sort() }), [FRIEND, FOE].sort()), "one more");
  assert.ok(!await signs(set("id.yaml"), offer({ min: new Map([["relay", 0]]) })));
  assert.ok(!await signs(set("id.yaml"), offer({ min: new Map() })));
  assert.ok(!await signs(set("id.yaml"), offer({ classes: [{ prefix: "net/", class: "critical" }] })));
  assert.ok(!await signs(set("id.yaml"), { ...offer(), key: "agreed/electorate" }));
});
