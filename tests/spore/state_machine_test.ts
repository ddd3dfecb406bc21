import assert from "node:assert/strict";
import fc from "fast-check";
import { toHex, utf8 } from "../../src/core/bytes.ts";
import { WireError } from "../../src/core/codec.ts";
import { type KeyPair, keyPairFromSeed } from "../../src/core/crypto.ts";
import { nodeIdOf } from "../../src/core/ids.ts";
import { LIMITS } from "../../src/core/limits.ts";
import { sealSpore, type Spore } from "../../src/spore/record.ts";
import {
  type Command,
  type CommandResult,
  decodeCommand,
  encodeCommand,
  SESSION_MS,
  StateMachine,
} from "../../src/spore/state_machine.ts";

const NETWORK = new Uint8Array(32).fill(9);
const T0 = 1_767_225_600_000;
const DAY = 86_400_000;
const KEYS = [1, 2, 3].map((n) => keyPairFromSeed(new Uint8Array(32).fill(n)));
const [ISSUER, MEMBER] = KEYS as [KeyPair, KeyPair, KeyPair];
const [issuer, member] = [nodeIdOf(ISSUER.publicKey), nodeIdOf(MEMBER.publicKey)];

function spore(
  key: string,
  value: string | undefined,
  options: { readonly seq?: number; readonly by?: KeyPair; readonly issuedMs?: number; readonly lifeMs?: number } = {},
): Spore {
  const { seq = 1, by = MEMBER, issuedMs = T0, lifeMs = DAY } = options;
  const record = {
    key,
    seq,
    value: value === undefined ? undefined : utf8(value),
    issuedMs,
    expiresMs: issuedMs + lifeMs,
  };
  return sealSpore(record, NETWORK, by);
}

/** A log that grows by itself: a session of one client, and numbered writes. */
class Log {
  readonly machine = new StateMachine(NETWORK);
  readonly entries: { readonly index: number; readonly term: number; readonly data: Uint8Array }[] = [];
  timeMs = T0;
  session = 0;
  seq = 0;

  constructor() {
    this.add({ op: "issuers", timeMs: T0, epoch: 1, issuers: [issuer] });
    this.session = this.add({ op: "open", timeMs: T0, client: member }).index;
  }

  add(command: Command): CommandResult {
    const entry = { index: this.machine.index + 1, term: 1, data: encodeCommand(command) };
    this.entries.push(entry);
    return this.machine.apply(entry).result;
  }

  write(one: Spore, more: Partial<Command & { readonly op: "write" }> = {}): CommandResult {
    const { timeMs, session } = this;
    const seq = more.seq ?? ++this.seq;
    return this.add({ op: "write", timeMs, client: member, session, seq, floor: seq, envelope: one.envelope, ...more });
  }

  value(key: string): string | undefined {
    const found = this.machine.get(key)?.spore.record.value;
    return found && new TextDecoder().decode(found);
  }
}

Deno.test("[3.1d] state: app and net keys go to the last committed write, whatever its number", () => {
  const log = new Log();
  assert.equal(log.write(spore("app/a", "1", { seq: 9 })).code, "ok");
  const last = log.write(spore("app/a", "2", { seq: 3, by: KEYS[2]! }));
  assert.equal(last.code, "ok");
  assert.equal(log.value("app/a"), "2");
  assert.equal(log.machine.get("app/a")!.index, last.index);
  assert.deepEqual(log.write(spore("app/a", "2", { seq: 3, by: KEYS[2]! })), { code: "unchanged", index: last.index });
});

Deno.test("[3.1d] state: a version that is expected and not there is a conflict, and says which one is", () => {
  const log = new Log();
  assert.deepEqual(log.write(spore("app/a", "1"), { expect: 7 }), { code: "conflict", index: 0 });
  const first = log.write(spore("app/a", "1"), { expect: 0 });
  assert.equal(first.code, "ok");
  assert.deepEqual(log.write(spore("app/a", "2", { seq: 2 }), { expect: 0 }), { code: "conflict", index: first.index });
  const second = log.write(spore("app/a", "2", { seq: 2 }), { expect: first.index });
  assert.equal(second.code, "ok");
  // A key that was deleted is free again: whoever expects none, or the tombstone, gets it.
  const gone = log.write(spore("app/a", undefined, { seq: 3 }), { expect: second.index });
  assert.deepEqual(log.write(spore("app/a", "x", { seq: 4 }), { expect: second.index }), {
    code: "conflict",
    index: 0,
  });
  const again = log.write(spore("app/a", "3", { seq: 4 }), { expect: 0 });
  assert.equal(again.code, "ok");
  log.write(spore("app/a", undefined, { seq: 5 }));
  assert.equal(log.write(spore("app/a", "4", { seq: 6 }), { expect: log.machine.get("app/a")!.index }).code, "ok");
  assert.ok(gone.index < again.index);
});

Deno.test("[3.1d] [3.4b] state: an owned key moves only to a higher number of its owner; issuers may delete it", () => {
  const log = new Log();
  const key = `node/${member}/load`;
  assert.equal(log.write(spore(key, "5", { seq: 5 })).code, "ok");
  assert.equal(log.write(spore(key, "4", { seq: 4 })).code, "stale-seq");
  assert.equal(log.write(spore(key, "stolen", { seq: 9, by: KEYS[2]! })).code, "not-permitted");
  assert.equal(log.write(spore(key, "by issuer", { seq: 9, by: ISSUER })).code, "not-permitted");
  assert.equal(log.write(spore(key, undefined, { seq: 6, by: KEYS[2]! })).code, "not-permitted");
  assert.equal(log.write(spore(key, undefined, { seq: 6, by: ISSUER })).code, "ok");
  assert.equal(log.write(spore(key, "5", { seq: 5 })).code, "stale-seq", "what was deleted does not come back");
  assert.equal(log.write(spore(key, "7", { seq: 7 })).code, "ok");
  assert.equal(log.write(spore(`service/web/${issuer}`, "x")).code, "not-permitted");
});

Deno.test("[3.4b] state: only issuers write under net, as the log knows them; signatures are verified", () => {
  const log = new Log();
  assert.equal(log.write(spore("net/policy", "x")).code, "not-permitted");
  assert.equal(log.write(spore("net/policy", "x", { by: ISSUER })).code, "ok");
  log.add({ op: "issuers", timeMs: T0, epoch: 2, issuers: [member] });
  assert.equal(log.write(spore("net/policy", "y", { by: ISSUER, seq: 2 })).code, "not-permitted");
  assert.equal(log.write(spore("net/policy", "y", { seq: 2 })).code, "ok");
  log.add({ op: "issuers", timeMs: T0, epoch: 1, issuers: [issuer] });
  assert.deepEqual(log.machine.authority, { epoch: 2, issuers: [member] }, "an older epoch changes nothing");
  const good = spore("app/a", "1");
  const forged = { ...good.envelope, payload: good.envelope.payload.map((byte, i) => i === 20 ? byte ^ 1 : byte) };
  assert.equal(log.write({ ...good, envelope: forged }).code, "malformed");
  const foreign = sealSpore(good.record, new Uint8Array(32).fill(8), MEMBER);
  assert.equal(log.write(foreign).code, "malformed");
  assert.equal(log.value("app/a"), undefined);
});

Deno.test("[3.1d] state: records that have run out, or come from the future of the log, are refused", () => {
  const log = new Log();
  log.timeMs = T0 + 2 * DAY;
  log.session = log.add({ op: "open", timeMs: log.timeMs, client: member }).index;
  assert.equal(log.write(spore("app/a", "old")).code, "expired");
  assert.equal(log.write(spore("app/a", "new", { issuedMs: log.timeMs + 6 * 60_000 })).code, "from-future");
  assert.equal(log.write(spore("app/a", "now", { issuedMs: log.timeMs + 4 * 60_000 })).code, "ok");
});

Deno.test("[3.1c] sessions: a write counts once however often it is in the log", () => {
  const log = new Log();
  const one = spore("app/a", "1");
  const first = log.write(one, { seq: 1, floor: 1 });
  log.write(spore("app/a", "2", { seq: 2 }), { seq: 2, floor: 1 });
  assert.deepEqual(log.write(one, { seq: 1, floor: 1 }), first, "the first answer again");
  assert.equal(log.value("app/a"), "2");
  assert.equal(log.write(one, { seq: 3, floor: 3 }).code, "ok", "a new number is a new write");
  assert.equal(log.write(one, { seq: 1, floor: 1 }).code, "answered");
  assert.equal(log.value("app/a"), "1");
});

Deno.test("[3.1c] sessions: unknown, another node's and expired ones do nothing; the window is bounded", () => {
  const log = new Log();
  const one = spore("app/a", "1");
  assert.equal(log.write(one, { session: 77, seq: 1 }).code, "session-unknown");
  assert.equal(log.write(one, { client: issuer, seq: 1 }).code, "session-unknown");
  for (let seq = 1; seq <= LIMITS.primaryWindowMax; seq++) {
    assert.equal(log.write(spore("app/b", `${seq}`, { seq }), { seq, floor: 1 }).code, "ok");
  }
  assert.equal(log.write(one, { seq: 5_000, floor: 1 }).code, "window");
  assert.equal(log.write(one, { seq: 5_000, floor: 4_999 }).code, "ok");
  log.timeMs += SESSION_MS;
  assert.equal(log.write(spore("app/c", "1"), { seq: 5_001 }).code, "session-unknown");
  assert.equal(log.machine.size.sessions, 0);
});

Deno.test("[3.1c] sessions: of too many the one that was not used for longest goes", () => {
  const log = new Log();
  const second = log.add({ op: "open", timeMs: T0, client: issuer }).index;
  for (let i = 2; i < LIMITS.primarySessionsMax; i++) log.add({ op: "open", timeMs: T0, client: member });
  assert.equal(log.write(spore("app/a", "1"), { seq: 1 }).code, "ok", "the first one is used");
  log.add({ op: "open", timeMs: T0, client: member });
  assert.equal(log.machine.size.sessions, LIMITS.primarySessionsMax);
  assert.equal(
    log.write(spore("app/a", "2", { seq: 2 }), { session: second, client: issuer, seq: 1 }).code,
    "session-unknown",
  );
  assert.equal(log.write(spore("app/a", "2", { seq: 2 }), { seq: 2 }).code, "ok");
});

Deno.test("[3.1d] state: bounds in keys and bytes are kept, and what is there can still be deleted", () => {
  const log = new Log();
  const value = "x".repeat(8_000);
  let full = 0;
  for (let i = 0; i < 5_000 && full === 0; i++) {
    if (log.write(spore(`app/k${i}`, value)).code === "full") full = i;
  }
  assert.ok(full > 1_000);
  assert.ok(log.machine.size.bytes <= LIMITS.primaryBytesMax);
  assert.equal(log.write(spore("app/k0", undefined, { seq: 2 })).code, "ok");
  assert.equal(log.write(spore("app/k1", "small", { seq: 2 })).code, "ok");
  assert.equal(log.write(spore(`app/k${full}`, value, { seq: 2 })).code, "ok", "there is room again");
});

Deno.test("[3.3c] state: a tombstone stays as long as anything that it deleted could, by the clock of the log", () => {
  const log = new Log();
  log.write(spore("app/a", "1"));
  log.write(spore("app/a", undefined, { seq: 2, lifeMs: 14 * DAY }));
  const tick = (timeMs: number) => log.add({ op: "open", timeMs, client: member });
  tick(T0 + 14 * DAY - 1);
  assert.ok(log.machine.get("app/a"));
  assert.deepEqual(log.machine.list("app/", "", 10), []);
  tick(T0 + 14 * DAY);
  assert.equal(log.machine.get("app/a"), undefined);
  assert.equal(log.machine.size.bytes, 0);
  // What lives stays, however old it is: its proof is renewed in its place.
  const other = new Log();
  other.write(spore("app/a", "1"));
  other.add({ op: "open", timeMs: T0 + 100 * DAY, client: member });
  assert.equal(other.value("app/a"), "1");
});

Deno.test("[3.1d] state: a list is by key, in pages", () => {
  const log = new Log();
  for (const name of ["b", "a", "d", "c"]) log.write(spore(`app/x/${name}`, name));
  log.write(spore("app/y", "y"));
  log.write(spore("app/x/c", undefined, { seq: 2 }));
  const keys = (after: string, max: number) =>
    log.machine.list("app/x/", after, max).map((one) => one.spore.record.key);
  assert.deepEqual(keys("", 10), ["app/x/a", "app/x/b", "app/x/d"]);
  assert.deepEqual(keys("app/x/a", 1), ["app/x/b"]);
});

Deno.test("[3.1e] state: a recovery from a lost majority is remembered, the last ones", () => {
  const log = new Log();
  for (let i = 0; i < LIMITS.primaryRecoveriesMax + 3; i++) {
    log.add({
      op: "recovered",
      timeMs: T0 + i,
      by: issuer,
      without: [member],
      statement: spore("app/a", "1").envelope,
    });
  }
  assert.equal(log.machine.recoveries.length, LIMITS.primaryRecoveriesMax);
  assert.deepEqual(log.machine.recoveries.at(-1)!.without, [member]);
});

/** Commands of some clients on few keys, good and bad, with a clock that moves on. */
const anyCommands: fc.Arbitrary<Uint8Array[]> = fc.array(
  fc.oneof(
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("open" as const), who: fc.nat(2), dt: fc.nat(SESSION_MS) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("junk" as const), data: fc.uint8Array({ maxLength: 40 }) }) },
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant("write" as const),
        who: fc.nat(2),
        session: fc.nat(12),
        seq: fc.integer({ min: 1, max: 6 }),
        floor: fc.nat(4),
        key: fc.constantFrom("app/a", "app/b", "net/n", `node/${member}/x`),
        value: fc.option(fc.string({ maxLength: 5 }), { nil: undefined }),
        number: fc.nat(5),
        expect: fc.option(fc.nat(12), { nil: undefined }),
        dt: fc.nat(DAY),
      }),
    },
  ),
  { maxLength: 25 },
).map((steps) => {
  let timeMs = T0;
  return steps.map((one) => {
    if (one.kind === "junk") return one.data;
    timeMs += one.dt;
    const by = KEYS[one.who]!;
    const client = nodeIdOf(by.publicKey);
    if (one.kind === "open") return encodeCommand({ op: "open", timeMs, client });
    const { session, seq, floor, key, value, number, expect } = one;
    const { envelope } = spore(key, value, { seq: number, by, issuedMs: timeMs - one.dt });
    return encodeCommand({
      op: "write",
      timeMs,
      client,
      session,
      seq,
      floor,
      envelope,
      ...(expect === undefined ? {} : { expect }),
    });
  });
});

function replay(machine: StateMachine, log: readonly Uint8Array[], from = 0): CommandResult[] {
  return log.slice(from).map((data, i) => machine.apply({ index: from + i + 1, term: 1, data }).result);
}

Deno.test("[3.1c] [10.1b] state: the same log gives the same state, the same answers and the same snapshot", () => {
  fc.assert(
    fc.property(anyCommands, fc.nat(), (commands, at) => {
      const log = [encodeCommand({ op: "issuers", timeMs: T0, epoch: 1, issuers: [issuer] }), ...commands];
      const [a, b, c] = [new StateMachine(NETWORK), new StateMachine(NETWORK), new StateMachine(NETWORK)];
      const answers = replay(a, log);
      assert.deepEqual(replay(b, log), answers);
      const whole = a.snapshot();
      assert.equal(toHex(b.snapshot()), toHex(whole));
      // A snapshot in the middle and what follows it lead to the same.
      const cut = at % (log.length + 1);
      const part = new StateMachine(NETWORK);
      replay(part, log.slice(0, cut));
      c.restore(part.snapshot());
      assert.deepEqual(replay(c, log, cut), answers.slice(cut));
      assert.equal(toHex(c.snapshot()), toHex(whole));
      assert.equal(toHex(c.hash), toHex(a.hash));
    }),
    { numRuns: 60 },
  );
});

Deno.test("[10.1b] state: a damaged snapshot is refused with a WireError, and changes nothing", () => {
  const log = new Log();
  for (let i = 0; i < 5; i++) log.write(spore(`app/${i}`, `${i}`), { seq: i + 1, floor: 1 });
  const good = log.machine.snapshot();
  const machine = new StateMachine(NETWORK);
  machine.restore(good);
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(2), (at, mask, kind) => {
      const bad = kind === 0 ? good.slice(0, at) : kind === 1 ? new Uint8Array([...good, mask]) : good.slice();
      if (kind === 2) bad[at]! ^= mask;
      try {
        new StateMachine(NETWORK).restore(bad);
      } catch (error) {
        assert.ok(error instanceof WireError, `${error}`);
        assert.throws(() => machine.restore(bad), WireError);
        assert.equal(toHex(machine.snapshot()), toHex(good));
      }
    }),
    { numRuns: 400 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    assert.throws(() => machine.restore(bytes), WireError);
  }));
  // Whole, but of another entry than the log says: what follows there would not follow here.
  const { index } = log.machine;
  machine.restore(good, { index, term: 1 });
  for (const at of [{ index: index - 1, term: 1 }, { index: index + 1, term: 1 }, { index, term: 2 }]) {
    assert.throws(() => machine.restore(good, at), WireError);
  }
});

Deno.test("[10.1b] commands: what is encoded is read again; anything else is a WireError", () => {
  const commands: Command[] = [
    { op: "open", timeMs: T0, client: member },
    {
      op: "write",
      timeMs: T0,
      client: member,
      session: 1,
      seq: 2,
      floor: 1,
      envelope: spore("app/a", "1").envelope,
      expect: 4,
    },
    { op: "issuers", timeMs: T0, epoch: 3, issuers: [issuer] },
    { op: "recovered", timeMs: T0, by: issuer, without: [member], statement: spore("app/a", "1").envelope },
  ];
  for (const one of commands) {
    const data = encodeCommand(one);
    assert.deepEqual(decodeCommand(data), one);
    for (let at = 0; at < data.length; at++) assert.throws(() => decodeCommand(data.slice(0, at)), WireError);
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
    try {
      decodeCommand(bytes);
    } catch (error) {
      assert.ok(error instanceof WireError);
    }
  }));
});
