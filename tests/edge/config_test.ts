import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { stringify } from "yaml";
import {
  type Config,
  CONFIG_BYTES_MAX,
  ConfigError,
  configJsonSchema,
  configOfFlags,
  formatConfig,
  httpAddress,
  listenAddresses,
  loadConfig,
  parseConfigEnv,
  parseConfigText,
  parseHostPort,
  redactConfig,
  resolveConfig,
  SETTINGS,
  variableOf,
} from "../../src/edge/config.ts";
import { temporaryFolder } from "../testkit/cli.ts";

const FILE = "/etc/mycelium/config.yaml";

function problemsOf(text: string): readonly string[] {
  try {
    resolveConfig([parseConfigText(text, FILE)]);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message.split("\n");
  }
  return [];
}

Deno.test("[9.1b] A configuration without anything has a default for every setting", () => {
  const { config, origins } = resolveConfig([], "pi-4");
  assert.equal(config.name, "pi-4");
  assert.equal(config.role, "auto");
  assert.equal(config.port, 4871);
  assert.equal(config.http.listen, "127.0.0.1:4873");
  assert.ok(config.discovery.mdns && config.discovery.multicast && config.discovery.broadcast);
  assert.equal(config.log.level, "info");
  for (const [name, origin] of origins) assert.match(origin.source, /^default/, name);
});

Deno.test("[9.1b] Later sources win: file, environment, flags; each value knows where it came from", () => {
  const file = parseConfigText("name: file\npool: file\nport: 1\n", FILE);
  const env = parseConfigEnv({ MYCELIUM_POOL: "env", MYCELIUM_PORT: "2", PATH: "/bin" });
  const flags = configOfFlags({ port: "3", "log.level": undefined }, { port: "--port" });
  const { config, origins } = resolveConfig([file, env, flags]);
  assert.deepEqual([config.name, config.pool, config.port], ["file", "env", 3]);
  assert.deepEqual(origins.get("name"), { source: FILE, line: 1 });
  assert.deepEqual(origins.get("pool"), { source: "MYCELIUM_POOL" });
  assert.deepEqual(origins.get("port"), { source: "--port" });
  assert.deepEqual(origins.get("log.level"), { source: "default" });
});

Deno.test("[9.1b] An unknown key is an error that says what was probably meant", () => {
  assert.match(
    problemsOf("discovery:\n  mdsn: true\n")[0]!,
    /^Cannot use discovery\.mdsn: .*perhaps discovery\.mdns \(\/etc\/mycelium\/config\.yaml:2\)$/,
  );
  assert.match(problemsOf("mdns: true\n")[0]!, /perhaps discovery\.mdns/);
  assert.match(problemsOf("htttp: {listen: off}\n")[0]!, /perhaps http /);
  assert.match(problemsOf("zzzzzzzzzzzzzzzzzz: 1\n")[0]!, /config schema/);
  assert.match(problemsOf("__proto__: {polluted: 1}\nconstructor: 2\n").join(), /__proto__.*constructor/);
  assert.equal(({} as { polluted?: number }).polluted, undefined);
});

Deno.test("[9.1b] Every error names file, line, path, value and what was wanted, and all errors come at once", () => {
  const problems = problemsOf(
    "name: a b\nport: 70000\nlog:\n  level: loud\nlisten: 5\ndiscovery:\n  domains: [ok.example, 'no way']\n",
  );
  assert.deepEqual(problems, [
    'Cannot use name "a b": does not fit, wanted letters, digits, dots and dashes, at most 63 (/etc/mycelium/config.yaml:1)',
    "Cannot use port 70000: out of range, wanted a whole number from 0 to 65535 (/etc/mycelium/config.yaml:2)",
    'Cannot use listen 5: it is a number, wanted a list of addresses: "*", an IP address, IP:PORT, or /ip4/IP/udp/PORT/quic-v1, at most 16 (/etc/mycelium/config.yaml:5)',
    'Cannot use discovery.domains ["ok.example","no way"]: entry 2, "no way", does not fit, wanted a list of domain names, at most 16 (/etc/mycelium/config.yaml:7)',
    'Cannot use log.level "loud": does not fit, wanted one of debug, info, warn, error (/etc/mycelium/config.yaml:4)',
  ]);
});

Deno.test("[9.1b] Keys with nothing behind them, comments and an empty file mean defaults", () => {
  for (const text of ["", "# only this\n", "---\n", "discovery:\nhttp:\n  # listen: off\nname:\n", "null\n"]) {
    assert.deepEqual(problemsOf(text), [], text);
  }
});

Deno.test("The status page leaves this machine only with token and TLS", () => {
  assert.match(problemsOf("http: {listen: '0.0.0.0:4873'}\n")[0]!, /tokenFile, http\.tlsCert, http\.tlsKey/);
  assert.match(problemsOf("http: {listen: '[::]:4873', tokenFile: /t}\n")[0]!, /tlsCert/);
  assert.match(problemsOf("http: {tlsKey: /k}\n")[0]!, /without http\.tlsCert/);
  assert.deepEqual(problemsOf("http: {listen: '0.0.0.0:1', tokenFile: /t, tlsCert: /c, tlsKey: /k}\n"), []);
  for (const local of ["127.0.0.1:0", "'[::1]:80'", "localhost:80", "'off'", "off"]) {
    assert.deepEqual(problemsOf(`http: {listen: ${local}}\n`), [], local);
  }
});

Deno.test("Secrets in a configuration are neither shown nor repeated in errors", () => {
  const invite = "myc1" + "S".repeat(60);
  const [problem] = problemsOf(`join: {inviteFile: ${invite}}\n`);
  assert.match(problem!, /an invite itself/);
  assert.doesNotMatch(problem!, /SSSS/);
  assert.doesNotMatch(problemsOf(`discovery: {seedUrls: [${invite}, "ftp://u:hunter2@h/"]}\n`).join(), /SSSS|hunter2/);
  const loaded = resolveConfig([parseConfigText("discovery: {seedUrls: ['https://u:hunter2@h.example/s']}\n", FILE)]);
  assert.doesNotMatch(formatConfig(loaded, { origin: true }), /hunter2/);
  assert.doesNotMatch(JSON.stringify(redactConfig(loaded.config)), /hunter2/);
  assert.match(loaded.config.discovery.seedUrls[0]!, /hunter2/);
});

Deno.test("listenAddresses() gives both transports for plain addresses and keeps what is exact", () => {
  const listen = (...listen: string[]) => listenAddresses({ listen, port: 4871 });
  assert.deepEqual(listen("*"), [
    "/ip4/0.0.0.0/udp/4871/quic-v1",
    "/ip4/0.0.0.0/tcp/4871",
    "/ip6/::/udp/4871/quic-v1",
    "/ip6/::/tcp/4871",
  ]);
  assert.deepEqual(listen("10.0.0.1:9"), ["/ip4/10.0.0.1/udp/9/quic-v1", "/ip4/10.0.0.1/tcp/9"]);
  assert.deepEqual(listen("fd00::1"), ["/ip6/fd00::1/udp/4871/quic-v1", "/ip6/fd00::1/tcp/4871"]);
  assert.deepEqual(listen("[fd00::1]:0"), ["/ip6/fd00::1/udp/0/quic-v1", "/ip6/fd00::1/tcp/0"]);
  assert.deepEqual(listen("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"), ["/ip4/10.0.0.1/tcp/1"]);
  assert.equal(listen("*:7").length, 4);
});

Deno.test("parseHostPort() reads addresses, not names, and default ports", () => {
  assert.deepEqual(parseHostPort("127.0.0.1:80"), { hostname: "127.0.0.1", port: 80 });
  assert.deepEqual(parseHostPort("[::1]:80"), { hostname: "::1", port: 80 });
  assert.deepEqual(parseHostPort("::1", 53), { hostname: "::1", port: 53 });
  assert.deepEqual(parseHostPort("9.9.9.9", 53), { hostname: "9.9.9.9", port: 53 });
  for (
    const bad of [
      "",
      ":80",
      "127.0.0.1",
      "127.0.0.1:",
      "127.0.0.1:99999",
      "300.0.0.1:1",
      "host:80",
      "[1.2.3.4]:1",
      "::1:80",
    ]
  ) {
    assert.equal(parseHostPort(bad), undefined, bad);
  }
});

Deno.test("[9.1b] loadConfig() reads the file, config.d by name, the environment and flags", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "config.yaml");
  Deno.mkdirSync(join(folder.path, "config.d"));
  Deno.writeTextFileSync(file, "name: main\npool: main\nlog: {level: debug}\n");
  Deno.writeTextFileSync(join(folder.path, "config.d/20-b.yaml"), "pool: b\n");
  Deno.writeTextFileSync(join(folder.path, "config.d/10-a.yaml"), "pool: a\nport: 1\n");
  Deno.writeTextFileSync(join(folder.path, "config.d/ignored.txt"), "nonsense: {");
  const { config, files, origins } = await loadConfig({ file, env: { MYCELIUM_PORT: "2" } });
  assert.deepEqual([config.name, config.pool, config.port, config.log.level], ["main", "b", 2, "debug"]);
  assert.deepEqual(files, [file, join(folder.path, "config.d/10-a.yaml"), join(folder.path, "config.d/20-b.yaml")]);
  assert.equal(origins.get("pool")?.source, files[2]);
  await assert.rejects(loadConfig({ file: join(folder.path, "missing.yaml"), env: {} }), ConfigError);
  await assert.rejects(loadConfig({ env: { MYCELIUM_CONFIG: folder.path } }), ConfigError);
});

Deno.test("Variables: every setting has one, unknown ones are warnings with a guess, lists are split at commas", () => {
  const names = [...SETTINGS.keys()].map(variableOf);
  assert.equal(new Set(names).size, names.length);
  assert.ok(names.includes("MYCELIUM_HTTP_TOKEN_FILE") && names.includes("MYCELIUM_DISCOVERY_INTERFACES_ALLOW"));
  const layer = parseConfigEnv({
    MYCELIUM_LOG_LEVL: "x",
    MYCELIUM_DISCOVERY_DOMAINS: "a.example, b.example",
    MYCELIUM_DISCOVERY_MDNS: "no",
  });
  assert.deepEqual(layer.warnings, ["Variable MYCELIUM_LOG_LEVL is no setting, did you mean MYCELIUM_LOG_LEVEL?"]);
  const { config } = resolveConfig([layer]);
  assert.deepEqual(config.discovery.domains, ["a.example", "b.example"]);
  assert.equal(config.discovery.mdns, false);
});

Deno.test("formatConfig() prints what reads back as the same configuration", () => {
  const loaded = resolveConfig([
    parseConfigText(
      "name: x\nlisten: ['[::1]:9', '*']\nhttp: {listen: 'off'}\npool: 'no'\nstate: '#odd: path'\n",
      FILE,
    ),
  ]);
  for (const origin of [false, true]) {
    const again = resolveConfig([parseConfigText(formatConfig(loaded, { origin }), "again")]);
    assert.deepEqual(again.config, loaded.config);
  }
  assert.match(formatConfig(loaded, { origin: true }), /^name: x {2}# \/etc\/mycelium\/config\.yaml:1$/m);
  assert.equal(httpAddress(loaded.config), undefined);
});

Deno.test("configJsonSchema() describes every setting and allows nothing else", async () => {
  interface Node {
    readonly properties?: Readonly<Record<string, Node>>;
    readonly additionalProperties?: boolean;
    readonly description?: string;
  }
  const schema = await configJsonSchema() as Node;
  for (const name of SETTINGS.keys()) {
    let node: Node | undefined = schema;
    for (const part of name.split(".")) {
      assert.equal(node?.additionalProperties, false, name);
      node = node?.properties?.[part];
    }
    assert.ok(node?.description, name);
  }
});

/** Values of every kind that YAML can say. */
const anyValue = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.string({ maxLength: 20 }),
    fc.double(),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.oneof(fc.string({ maxLength: 8 }), fc.constantFrom("listen", "mdns", "__proto__")), tie("value"), {
      maxKeys: 4,
    }),
  ),
})).value;

/** Either a whole configuration or an error of the right kind with at least one problem. */
function neverCrashes(text: string): Config | undefined {
  try {
    return resolveConfig([parseConfigText(text, "fuzz")]).config;
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.ok(error.problems.length > 0 && error.problems.length <= 50);
    for (const problem of error.problems) assert.ok(problem.wanted !== "" && problem.cause !== "");
    return undefined;
  }
}

Deno.test("[9.1b] No document crashes the configuration: random values at random settings", () => {
  const names = [...SETTINGS.keys(), "http", "discovery", "discovery.interfaces", "x", "log.levle"];
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom(...names), anyValue), { maxLength: 6 }), (entries) => {
      const tree: Record<string, unknown> = {};
      for (const [name, value] of entries) {
        const [section, ...rest] = name.split(".");
        tree[section!] = rest.length === 0 ? value : { [rest.join(".")]: value };
      }
      neverCrashes(stringify(tree));
      neverCrashes(JSON.stringify(tree));
    }),
    { numRuns: 300 },
  );
});

Deno.test("[9.1b] No text crashes the configuration: noise, and mutations of a good one", () => {
  const good = formatConfig(resolveConfig([]));
  const noise = fc.string({ unit: fc.constantFrom(..."{}[]:,-?&*!|>'\"%@`#\n\t ab01~"), maxLength: 60 });
  fc.assert(
    fc.property(fc.oneof(noise, fc.string({ unit: "binary", maxLength: 60 })), (text) => void neverCrashes(text)),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(fc.nat(good.length), fc.nat(20), noise, (at, cut, insert) => {
      neverCrashes(good.slice(0, at) + insert + good.slice(at + cut));
    }),
    { numRuns: 300 },
  );
});

Deno.test("[9.1b] Hostile documents end as errors in bounded time: depth, aliases, size, tags", () => {
  const bomb = [
    "a: &a [x,x,x,x,x,x,x,x,x]",
    ..."bcdefghi".split("").map((key, i) => `${key}: &${key} [${Array(9).fill("*" + "abcdefgh"[i]).join(",")}]`),
  ].join("\n");
  const hostile = [
    "[".repeat(100_000),
    "{a: ".repeat(50_000),
    "- ".repeat(20_000),
    "? ".repeat(20_000),
    bomb.replace("a: &a", "listen: &a"),
    `name: &x [*x]\n`,
    "name: *nowhere\n",
    "&a [*a]",
    "!!binary: x\n",
    "name: !!js/function 'return 1'\n",
    "x".repeat(CONFIG_BYTES_MAX + 1),
    "a: 1\n--- \nb: 2\n",
    "\u0000",
  ];
  for (const text of hostile) {
    const started = performance.now();
    const config = neverCrashes(text);
    assert.ok(performance.now() - started < 5_000, text.slice(0, 20));
    if (config) assert.doesNotMatch(config.name, /function/);
  }
});
