/** What `deno task release` makes. @module */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { RUNTIME_VERSION } from "../../tools/get_denort.ts";
import { sbom } from "../../tools/sbom.ts";
import { readKey } from "../../tools/release_key.ts";
import { folder, has, makeKey, makeRelease, ROOT, sh, snapshot } from "./kit.ts";

const target = Deno.build.target;
const runtime = await Deno.stat(join(ROOT, ".cache", "runtime", `denort-${RUNTIME_VERSION}-${target}`)).then(
  () => true,
  () => false,
);
if (!runtime) {
  console.error(
    "SKIP release: there is no runtime in .cache, run deno task compile: nothing shows that programs are reproducible",
  );
}
const verifiers = await has("openssl") && await has("ssh-keygen") && await has("gpgv");
if (!verifiers) console.error("SKIP release: wanted openssl, ssh-keygen and gpgv to check signatures with");

Deno.test("a release of the same commit, key and programs has the same bytes", async () => {
  await using at = await folder();
  const key = await makeKey(join(at.path, "key.pem"));
  const made = [];
  for (const name of ["one", "two"]) {
    const inside = join(at.path, name);
    await Deno.mkdir(inside);
    const url = "https://example.net/mycelium";
    made.push(
      await snapshot(await makeRelease({ folder: inside, version: "1.0.0", program: "#!/bin/sh\n", key, url })),
    );
  }
  assert.ok(made[0]!.size >= 9);
  assert.deepEqual([...made[0]!].sort(), [...made[1]!].sort());
});

Deno.test({
  name: "a program of the same commit, date and recording has the same bytes",
  ignore: !runtime,
  fn: async () => {
    await using at = await folder();
    // A copy: nobody changes a file of it meanwhile.
    const copy = join(at.path, "checkout");
    await Deno.mkdir(join(copy, ".cache"), { recursive: true });
    const files = ["main.ts", "src", "tools", "deno.json", "deno.lock"].map((one) => join(ROOT, one));
    assert.equal((await sh(["cp", "-a", ...files, copy])).code, 0);
    for (const one of ["node_modules", ".cache/runtime"]) await Deno.symlink(join(ROOT, one), join(copy, one));
    const sums = [];
    for (const name of ["one", "two"]) {
      const output = join(at.path, name);
      const args = ["--output", output, "--cache", join(at.path, "recording")];
      const result = await sh([Deno.execPath(), "run", "-A", join(copy, "tools", "compile.ts"), ...args], {
        env: { SOURCE_DATE_EPOCH: "1790000000", HOME: Deno.env.get("HOME") ?? "/root", DENO_NO_UPDATE_CHECK: "1" },
        timeoutMs: 180_000,
      });
      assert.equal(result.code, 0, result.text);
      sums.push(createHash("sha256").update(await Deno.readFile(output)).digest("hex"));
      await Deno.remove(output);
    }
    assert.equal(sums[0], sums[1]);
  },
});

Deno.test({
  name: "a release's list and its signatures hold by the ordinary programs, also inside the bundle",
  ignore: !verifiers,
  fn: async () => {
    await using at = await folder();
    const key = await makeKey(join(at.path, "key.pem"));
    const made = await makeRelease({ folder: at.path, version: "1.0.0", program: "#!/bin/sh\n", key });
    const inside = join(at.path, "unpacked");
    await Deno.mkdir(inside);
    assert.equal((await sh(["tar", "-C", inside, "-xf", join(made, "mycelium-1.0.0-bundle.tar")])).code, 0);
    // The programs unpacked are in the list, too.
    assert.equal((await sh(["sh", "-c", `cd ${inside} && gunzip -k *.gz`])).code, 0);
    const sums = await sh(["sh", "-c", `cd ${inside} && sha256sum -c SHA256SUMS`]);
    assert.equal(sums.code, 0, sums.text);
    const names = [...Deno.readDirSync(inside)].map(({ name }) => name).filter((name) =>
      !name.startsWith("SHA256SUMS")
    );
    assert.equal(sums.stdout.trim().split("\n").length, names.length);

    const pub = await sh(["openssl", "pkey", "-in", key, "-pubout", "-out", join(at.path, "pub.pem")]);
    assert.equal(pub.code, 0, pub.text);
    const raw = ["pkeyutl", "-verify", "-pubin", "-inkey", join(at.path, "pub.pem"), "-rawin"];
    const checked = await sh([
      "openssl",
      ...raw,
      "-in",
      join(inside, "SHA256SUMS"),
      "-sigfile",
      join(inside, "SHA256SUMS.sig"),
    ]);
    assert.equal(checked.code, 0, checked.text);
  },
});

Deno.test("the list of parts names every package of deno.lock with its checksum, and what is not shipped", async () => {
  const lock = await Deno.readTextFile(join(ROOT, "deno.lock"));
  const options = { lock, version: "1.0.0", commit: "c".repeat(40), madeSec: 1_790_000_000 };
  const text = sbom(options);
  assert.equal(text, sbom(options));
  const document = JSON.parse(text) as {
    readonly bomFormat: string;
    readonly components: readonly {
      readonly "bom-ref": string;
      readonly scope: string;
      readonly purl: string;
      readonly hashes: readonly { readonly content: string }[];
    }[];
    readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
  };
  assert.equal(document.bomFormat, "CycloneDX");
  const refs = document.components.map((one) => one["bom-ref"]);
  assert.equal(new Set(refs).size, refs.length);
  const locked = Object.keys((JSON.parse(lock) as { readonly npm: object }).npm);
  assert.deepEqual(refs.filter((one) => !one.startsWith("denort-")).sort(), locked.sort());
  for (const { ref, dependsOn } of document.dependencies) {
    for (const one of dependsOn) assert.ok(refs.includes(one), `${ref} depends on ${one}, which is not listed`);
  }
  const scope = (name: string) => document.components.find(({ purl }) => purl.startsWith(`pkg:npm/${name}@`))?.scope;
  assert.deepEqual(["libp2p", "hono", "esbuild", "fast-check"].map(scope), [
    "required",
    "required",
    "excluded",
    "excluded",
  ]);
  for (const { hashes } of document.components) assert.match(hashes[0]!.content, /^[0-9a-f]{64,128}$/);
});

Deno.test("a release key that others may read is refused, one that is made is not for others", async () => {
  await using at = await folder();
  const made = join(at.path, "sub", "development.key");
  await readKey(made, true);
  assert.equal((await Deno.stat(made)).mode! & 0o777, 0o600);
  assert.deepEqual(
    (await readKey(made, true)).export({ format: "jwk" }),
    (await readKey(made, false)).export({ format: "jwk" }),
  );
  await Deno.chmod(made, 0o644);
  await assert.rejects(readKey(made, false), /others may read it, wanted mode 0600/);
  await assert.rejects(readKey(join(at.path, "none"), false), /Cannot read the release key/);
});
