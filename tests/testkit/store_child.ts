/**
 * A process that writes to a store, to be killed or to run out of disk. What it has been told is durable goes to stdout.
 *
 * @module
 */

import { keyPairFromSeed } from "../../src/core/crypto.ts";
import { AuditLog } from "../../src/edge/disk/audit_log.ts";
import { openStore, StateError } from "../../src/edge/disk/store.ts";

/** The puts of one round: a counter, rows that belong to it, and a secret, all of one transaction. */
export function roundOf(n: number): readonly (readonly [string, Uint8Array | null])[] {
  const value = new Uint8Array(200).fill(n % 251);
  new DataView(value.buffer).setUint32(0, n);
  return [
    ["counter", value],
    [`row/${n % 7}`, value],
    [`row/${(n + 3) % 7}`, null],
    ["secret/counter", value],
    ["secret/odd", n % 2 === 1 ? value : null],
  ];
}

function say(what: unknown): void {
  const bytes = new TextEncoder().encode(JSON.stringify(what) + "\n");
  for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
}

/** Signs the audit log. */
const KEY = keyPairFromSeed(new Uint8Array(32).fill(7));

/** Writes until it is killed. */
function writeOn(dir: string): void {
  const store = openStore(dir);
  const audit = new AuditLog(dir, { segmentEntriesMax: 5 });
  audit.signWith(KEY);
  const counter = store.load().get("counter");
  let n = counter ? new DataView(counter.buffer, counter.byteOffset).getUint32(0) : 0;
  while (true) {
    n += 1;
    audit.append({ atMs: 0, action: "round", by: "", detail: String(n) });
    store.apply(roundOf(n));
    say(n);
  }
}

/** Writes until the disk is full, makes room, and writes again. */
function fill(dir: string): void {
  const store = openStore(dir);
  const audit = new AuditLog(dir, { segmentEntriesMax: 5 });
  audit.signWith(KEY);
  const ballast = `${dir}/ballast`;
  Deno.writeFileSync(ballast, new Uint8Array(200_000));
  let n = 0;
  let failure = "";
  for (; failure === "" && n < 100_000; n++) {
    try {
      store.apply([...roundOf(n + 1), [`big/${n}`, new Uint8Array(3_000)]]);
    } catch (error) {
      failure = (error as Error).message;
      break;
    }
  }
  let audited = 0;
  let auditFailure = "";
  for (; auditFailure === "" && audited < 100_000; audited++) {
    try {
      audit.append({ atMs: 0, action: "fill", by: "", detail: "x".repeat(900) });
    } catch (error) {
      auditFailure = (error as Error).message;
      break;
    }
  }
  Deno.removeSync(ballast);
  const counter = store.load().get("counter")!;
  const before = new DataView(counter.buffer, counter.byteOffset).getUint32(0);
  const secret = store.load().get("secret/counter")!;
  const secretBefore = new DataView(secret.buffer, secret.byteOffset).getUint32(0);
  store.apply(roundOf(n + 1));
  audit.append({ atMs: 0, action: "after", by: "", detail: "" });
  audit.close();
  store.close();
  const entries = openStore(dir);
  const after = entries.load().get("counter")!;
  entries.close();
  say({
    failure,
    auditFailure,
    acknowledged: n,
    before,
    secretBefore,
    after: new DataView(after.buffer, after.byteOffset).getUint32(0),
    audited,
    log: Deno.readTextFileSync(`${dir}/audit.log`),
  });
}

if (import.meta.main) {
  const [mode, dir = ""] = Deno.args;
  try {
    if (mode === "write") writeOn(dir);
    else if (mode === "fill") fill(dir);
    else if (mode === "open") {
      openStore(dir).close();
      say("opened");
    }
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    say({ refused: error.message, cure: error.cure });
  }
}
