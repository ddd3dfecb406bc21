/** Messages to systemd, received on a real socket. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { openServiceNotifier } from "../../src/edge/process/sd_notify.ts";

interface Systemd extends AsyncDisposable {
  readonly socket: string;
  next(): Promise<string>;
}

async function systemd(abstract = false): Promise<Systemd> {
  const dir = await Deno.makeTempDir({ prefix: "mycelium-notify-" });
  const name = abstract ? `mycelium-test-${crypto.randomUUID()}` : join(dir, "notify");
  const socket = Deno.listenDatagram({ transport: "unixpacket", path: abstract ? `\0${name}` : name });
  return {
    socket: abstract ? `@${name}` : name,
    next: async () => new TextDecoder().decode((await socket.receive())[0]),
    [Symbol.asyncDispose]: async () => {
      socket.close();
      await Deno.remove(dir, { recursive: true });
    },
  };
}

for (const abstract of [false, true]) {
  Deno.test(`[9.1e] READY, STATUS, WATCHDOG, RELOADING and STOPPING arrive in order on ${abstract ? "an abstract" : "a file"} socket`, async () => {
    await using pid1 = await systemd(abstract);
    await using notifier = openServiceNotifier({ socket: pid1.socket, watchdogUsec: "30000000" });
    assert.ok(notifier.active);
    assert.equal(notifier.watchdogMs, 30_000);
    notifier.status("looking for\nthe network");
    notifier.ready("member of home");
    notifier.watchdog();
    notifier.extendTimeout(1_500);
    notifier.reloading();
    notifier.stopping();
    assert.equal(await pid1.next(), "STATUS=looking for the network");
    assert.equal(await pid1.next(), "READY=1\nSTATUS=member of home");
    assert.equal(await pid1.next(), "WATCHDOG=1");
    assert.equal(await pid1.next(), "EXTEND_TIMEOUT_USEC=1500000");
    assert.match(await pid1.next(), /^RELOADING=1\nMONOTONIC_USEC=\d+$/);
    assert.equal(await pid1.next(), "STOPPING=1");
  });
}

Deno.test("without NOTIFY_SOCKET it does nothing", async () => {
  await using notifier = openServiceNotifier({ socket: undefined });
  assert.ok(!notifier.active);
  assert.equal(notifier.watchdogMs, undefined);
  notifier.ready();
  notifier.stopping();
});

Deno.test("it takes the variables out of the environment, so that children do not speak for the service", async () => {
  await using pid1 = await systemd();
  Deno.env.set("NOTIFY_SOCKET", pid1.socket);
  Deno.env.set("WATCHDOG_USEC", "10000000");
  Deno.env.set("WATCHDOG_PID", String(Deno.pid));
  await using notifier = openServiceNotifier();
  assert.equal(notifier.watchdogMs, 10_000);
  for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) assert.equal(Deno.env.get(name), undefined);
  notifier.ready();
  assert.equal(await pid1.next(), "READY=1");
});

Deno.test("a watchdog of another process, or one that makes no sense, is not ours", async () => {
  await using pid1 = await systemd();
  for (const over of [{ watchdogUsec: "5000000", watchdogPid: "1" }, { watchdogUsec: "soon" }, { watchdogUsec: "0" }]) {
    await using notifier = openServiceNotifier({ socket: pid1.socket, ...over });
    assert.equal(notifier.watchdogMs, undefined, JSON.stringify(over));
  }
});

Deno.test("a socket that is gone or senseless is reported once and never throws", async () => {
  for (const socket of ["/nowhere/notify", "relative/path"]) {
    const errors: unknown[] = [];
    const notifier = openServiceNotifier({ socket, onError: (error) => void errors.push(error) });
    for (let i = 0; i < 5; i++) notifier.watchdog();
    await notifier[Symbol.asyncDispose]();
    assert.equal(errors.length, 1, socket);
  }
});

Deno.test("a reader that does not read holds nothing up, not even the end, and closing twice is fine", async () => {
  await using pid1 = await systemd();
  const notifier = openServiceNotifier({ socket: pid1.socket });
  const begin = performance.now();
  for (let i = 0; i < 10_000; i++) notifier.watchdog();
  await notifier[Symbol.asyncDispose]();
  await notifier[Symbol.asyncDispose]();
  assert.ok(performance.now() - begin < 3_000);
  notifier.ready();
  assert.equal(await pid1.next(), "WATCHDOG=1");
});
