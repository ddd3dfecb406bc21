import assert from "node:assert/strict";
import { defaultStateDir, socketCandidates } from "../../src/cli/socket.ts";

const root = { env: { HOME: "/root" }, cwd: "/w", userId: 0 };
const person = { env: { HOME: "/home/a" }, cwd: "/w", userId: 1000 };

Deno.test("defaultStateDir() is the system's for root, the user's for others, systemd's in a unit", () => {
  assert.equal(defaultStateDir(root), "/var/lib/mycelium");
  assert.equal(defaultStateDir(person), "/home/a/.local/share/mycelium");
  assert.equal(defaultStateDir({ env: { XDG_DATA_HOME: "/data" }, userId: 1000 }), "/data/mycelium");
  assert.equal(
    defaultStateDir({ env: { XDG_DATA_HOME: "relative", HOME: "/h" }, userId: 1 }),
    "/h/.local/share/mycelium",
  );
  assert.equal(defaultStateDir({ env: { STATE_DIRECTORY: "/var/lib/mycelium:/x" }, userId: 1 }), "/var/lib/mycelium");
});

Deno.test("socketCandidates() takes a flag before a variable before the usual places", () => {
  const env = { MYCELIUM_SOCKET: "/v.sock", MYCELIUM_STATE: "/vs" };
  assert.deepEqual(socketCandidates({ socket: "f.sock", state: "/s" }, { ...person, env }), ["/w/f.sock"]);
  assert.deepEqual(socketCandidates({ state: "s" }, { ...person, env }), ["/w/s/agent.sock"]);
  assert.deepEqual(socketCandidates({}, { ...person, env }), ["/v.sock"]);
  assert.deepEqual(socketCandidates({}, { ...person, env: { MYCELIUM_STATE: "/vs" } }), ["/vs/agent.sock"]);
  assert.deepEqual(socketCandidates({}, person), [
    "/w/mycelium-data/agent.sock",
    "/home/a/.local/share/mycelium/agent.sock",
    "/run/mycelium/agent.sock",
    "/var/lib/mycelium/agent.sock",
  ]);
  assert.equal(new Set(socketCandidates({}, root)).size, socketCandidates({}, root).length);
});
