/**
 * Configuration: one schema with defaults, read in layers (files, environment, flags; later wins), every value with
 * the place that it came from, and every error with the file, the line, the path, the value and what was wanted.
 *
 * @module
 */

import * as v from "valibot";
import { isAlias, isCollection, isMap, isScalar, LineCounter, parseDocument, stringify } from "yaml";
import { INCIDENT_RULES, type IncidentSettings, RESPONSES, THRESHOLD_MAX } from "../access/incidents.ts";
import { parseAddress, parseIpv4, parseIpv6 } from "../core/ids.ts";
import { LIMITS } from "../core/limits.ts";
import { ROLES } from "../core/roles.ts";
import { BUNDLE_KINDS } from "../spore/seed_bundle.ts";
import { CONTAINER_INTERFACES } from "./discovery/types.ts";

/** Largest configuration text that is read. */
export const CONFIG_BYTES_MAX = 256 << 10;
/** Problems reported for one configuration; more are counted only. */
const PROBLEMS_MAX = 50;
/** Brackets open at once; the configuration itself needs four. */
const NESTING_MAX = 64;
/** Where the configuration of a machine is. */
export const CONFIG_FILE = "/etc/mycelium/config.yaml";

/** An invite, whole or not; a file may well be called myc1 and a little more. */
const INVITE = /^\s*myc1[A-Za-z0-9_-]{24}/;
const NAME = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/;
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const DOMAIN = /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*\.?$/;
const INTERFACE = /^[^\s/*]{1,15}\*?$/;

/** Places that seeds are published to. */
const PUBLISH_MAX = 8;

/** Longest path, address or other text. */
const CHARS_MAX = 4096;

/** A setting: what it takes, its default where it has one, what it wants in words, and what it is for. */
const setting = <const S extends v.GenericSchema, const D extends v.Default<S, undefined>>(
  schema: S,
  preset: D,
  wanted: string,
  description: string,
) => v.pipe(v.optional(schema, preset), v.metadata({ wanted }), v.description(description));

const flag = (preset: boolean, description: string) => setting(v.boolean(), preset, "true or false", description);

const number = (preset: number, min: number, max: number, description: string) =>
  setting(
    v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max)),
    preset,
    `a whole number from ${min} to ${max}`,
    description,
  );

const word = <const T extends string>(choices: readonly T[], preset: NoInfer<T>, description: string) =>
  setting(v.picklist(choices), preset, `one of ${choices.join(", ")}`, description);

const list = (
  entry: v.GenericSchema<string>,
  entriesMax: number,
  preset: readonly string[],
  wanted: string,
  description: string,
) =>
  setting(
    // Counted before its entries are looked at; what the JSON Schema says is the second half.
    v.pipe(v.array(v.unknown()), v.maxLength(entriesMax), v.array(entry), v.maxLength(entriesMax)),
    // A new one each time, so that nobody who changes a configuration changes the default.
    () => [...preset],
    `a list of ${wanted}, at most ${entriesMax}`,
    description,
  );

const matching = (pattern: RegExp) => v.pipe(v.string(), v.regex(pattern));
const checked = (check: (value: string) => boolean) => v.pipe(v.string(), v.maxLength(CHARS_MAX), v.check(check));
const PATH = v.pipe(v.string(), v.minLength(1), v.maxLength(CHARS_MAX));

/** An invite where a path belongs is a secret in a file that many may read. */
const path = (description: string) =>
  setting(
    v.pipe(PATH, v.check((value) => !INVITE.test(value) && !value.includes("\0"))),
    undefined,
    "the path of a file",
    description,
  );

/** Where and how a seed is published; see `docs/guide/spores.md`. */
const PUBLISH = v.strictObject({
  to: v.union([
    checked((value) => isHttpUrl(value) || value.startsWith("/") && !value.endsWith("/") && !value.includes("\0")),
    v.strictObject({ command: v.pipe(v.array(PATH), v.minLength(1), v.maxLength(64)) }),
  ]),
  kind: v.optional(v.picklist(BUNDLE_KINDS), "full"),
  every: v.optional(v.pipe(v.string(), v.check((value) => everyMs(value) !== undefined)), "5m"),
  tokenFile: v.optional(PATH),
  keep: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(20)), 3),
  redundant: v.optional(v.boolean()),
});

const COUNT = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(THRESHOLD_MAX));
const LASTS = v.pipe(v.string(), v.check((value) => everyMs(value) !== undefined));

/** What is set of a rule about incidents; see `docs/guide/audit.md`. */
const INCIDENT_RULE = v.strictObject({
  rule: v.picklist(INCIDENT_RULES.map((one) => one.id)),
  enabled: v.optional(v.boolean()),
  threshold: v.optional(COUNT),
  window: v.optional(LASTS),
  response: v.optional(v.picklist(RESPONSES)),
  sharperAt: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(THRESHOLD_MAX))),
  sharper: v.optional(v.picklist(RESPONSES)),
  hold: v.optional(LASTS),
});

/** The schema. Every setting has a default or may be missing; a key that is not in it is an error. */
const SCHEMA = v.strictObject({
  name: setting(
    matching(NAME),
    "node",
    "letters, digits, dots and dashes, at most 63",
    "Name of this node, for people. Default: the host name.",
  ),
  role: word(["auto", ...ROLES], "auto", "Role of this node; auto measures the machine."),
  pool: setting(
    matching(LABEL),
    "default",
    "lower-case letters, digits and dashes, at most 63",
    "Resource pool that this node belongs to.",
  ),
  state: path("Folder for identity, membership and everything else that must last."),
  socket: path("Unix socket for the command line. Default: agent.sock in the state folder."),
  port: number(4871, 0, 65535, "Port for QUIC (UDP) and TCP where `listen` does not say; 0 takes a free one."),
  listen: list(
    checked((value) => parseListen(value) !== undefined),
    LIMITS.addressesPerNodeMax,
    ["*"],
    'addresses: "*", an IP address, IP:PORT, or /ip4/IP/udp/PORT/quic-v1',
    "Addresses to listen on.",
  ),
  advertise: list(
    checked((value) => parseAddress(value) !== undefined),
    LIMITS.addressesPerNodeMax,
    [],
    "multiaddrs such as /ip4/203.0.113.7/udp/4871/quic-v1",
    "Addresses told to others besides those found on the interfaces, for example behind a port forwarding.",
  ),
  http: v.optional(
    v.strictObject({
      listen: setting(
        checked((value) => value === "off" || parseHostPort(value) !== undefined),
        "127.0.0.1:4873",
        'IP:PORT such as 127.0.0.1:4873, or "off"',
        "Where the status page is served. Anywhere but on loopback it needs tokenFile, tlsCert and tlsKey.",
      ),
      tokenFile: path("File with the bearer token that readers must show."),
      tlsCert: path("File with the certificate chain, PEM."),
      tlsKey: path("File with the certificate's private key, PEM."),
    }),
    {},
  ),
  discovery: v.optional(
    v.strictObject({
      domains: list(
        matching(DOMAIN),
        16,
        [],
        "domain names",
        "Domains asked for _mycelium._udp SRV and TXT records.",
      ),
      nameServers: list(
        checked((value) => parseHostPort(value, 53) !== undefined),
        8,
        [],
        "IP addresses, with :PORT where it is not 53",
        "Name servers to ask; empty: those of the machine.",
      ),
      mdns: flag(true, "Look for nodes by multicast DNS, and answer."),
      multicast: flag(true, "Send and hear beacons by multicast."),
      broadcast: flag(true, "Send and hear beacons by broadcast."),
      seedFiles: list(PATH, 32, [], "paths", "Files with seed spores."),
      seedUrls: list(checked(isHttpUrl), 32, [], "http:// or https:// addresses", "Addresses that serve seed spores."),
      addresses: list(
        checked((value) => parseAddress(value) !== undefined),
        64,
        [],
        "multiaddrs such as /ip4/203.0.113.7/udp/4871/quic-v1",
        "Nodes to try besides all that is found.",
      ),
      interfaces: v.optional(
        v.strictObject({
          allow: list(
            matching(INTERFACE),
            64,
            [],
            'interface names, "*" at the end for any',
            "Interfaces used for beacons and mDNS; empty: all that are up.",
          ),
          deny: list(
            matching(INTERFACE),
            64,
            CONTAINER_INTERFACES,
            'interface names, "*" at the end for any',
            "Interfaces never used for beacons and mDNS.",
          ),
        }),
        {},
      ),
    }),
    {},
  ),
  seeds: v.optional(
    v.strictObject({
      publish: setting(
        v.pipe(
          v.array(v.unknown()),
          v.maxLength(PUBLISH_MAX),
          v.transform((entries) => entries.map((one) => plain(one))),
          v.array(PUBLISH),
        ),
        () => [],
        "a list of {to, kind, every, tokenFile, keep, redundant}, at most " + PUBLISH_MAX,
        "Files, servers and commands that an issuer puts seed spores to.",
      ),
    }),
    {},
  ),
  security: v.optional(
    v.strictObject({
      incidents: v.optional(
        v.strictObject({
          dryRun: flag(false, "Responses to incidents beyond the alert are only told of, and not carried out."),
          rules: setting(
            v.pipe(
              v.array(v.unknown()),
              v.maxLength(64),
              v.transform((entries) => entries.map((one) => plain(one))),
              v.array(INCIDENT_RULE),
            ),
            () => [],
            "a list of {rule, enabled, threshold, window, response, sharperAt, sharper, hold}, at most 64, of rules that " +
              "mycelium incident rules lists",
            "What differs from the rules about incidents as they are.",
          ),
        }),
        {},
      ),
    }),
    {},
  ),
  join: v.optional(
    v.strictObject({
      inviteFile: path("File that holds an invite; used where this node has no network yet."),
      network: setting(
        matching(NAME),
        undefined,
        "letters, digits, dots and dashes, at most 63",
        "Name of the network to form where this node has none and nothing to join.",
      ),
      approval: flag(false, "In a network formed here: whether an operator approves each join."),
    }),
    {},
  ),
  log: v.optional(
    v.strictObject({
      level: word(["debug", "info", "warn", "error"], "info", "Least level that is logged."),
      format: word(["auto", "text", "json"], "auto", "Form of the log on stderr; auto: text on a terminal, else JSON."),
    }),
    {},
  ),
  limits: v.optional(
    v.strictObject({
      channelsMax: number(LIMITS.channelsMax, 8, LIMITS.channelsMax, "Open channels to other nodes."),
      drainMs: number(10_000, 0, 600_000, "Time that stopping may take before it is forced, in milliseconds."),
    }),
    {},
  ),
});

/** A whole configuration, defaults filled in. */
export type Config = v.InferOutput<typeof SCHEMA>;

/** Something wrong with a configuration. */
export interface ConfigProblem {
  /** File, `environment` or `flags`. */
  readonly source: string;
  /** Line in the file, from 1. */
  readonly line?: number;
  /** Setting, for example `http.listen`; empty where the text as a whole is meant. */
  readonly path: string;
  /** The value as it was given, shortened; missing where it is secret or there is none. */
  readonly value?: string;
  /** What was wrong. */
  readonly cause: string;
  /** What was wanted. */
  readonly wanted: string;
}

/** Thrown where a configuration cannot be used; the message names every problem. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  /** At least one, at most 50. */
  readonly problems: readonly ConfigProblem[];

  /** Makes the error of `problems`. */
  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map(describeProblem).join("\n"));
    this.problems = problems;
  }
}

/** One sentence for a person. */
export function describeProblem(problem: ConfigProblem): string {
  const where = problem.line === undefined ? problem.source : `${problem.source}:${problem.line}`;
  const what = problem.path === "" ? "configuration" : problem.path;
  const value = problem.value === undefined ? "" : ` ${problem.value}`;
  return `Cannot use ${what}${value}: ${problem.cause}, wanted ${problem.wanted} (${where})`;
}

/** Where a value came from. */
export interface Origin {
  /** `default`, a file, the name of a variable of the environment, or a flag. */
  readonly source: string;
  /** Line in the file, from 1. */
  readonly line?: number;
}

/** What one source says: values by path, and what is wrong with them. */
export interface ConfigLayer {
  readonly source: string;
  readonly values: ReadonlyMap<string, { readonly value: unknown; readonly origin: Origin }>;
  readonly problems: readonly ConfigProblem[];
  /** What a person should know and what does not stop anything. */
  readonly warnings: readonly string[];
}

/** A configuration with the origin of each value. */
export interface LoadedConfig {
  readonly config: Config;
  /** One entry for every setting that has a value. */
  readonly origins: ReadonlyMap<string, Origin>;
  /** Files that were read, in order. */
  readonly files: readonly string[];
  readonly warnings: readonly string[];
}

/** One setting of the schema. */
export interface Setting {
  /** What is checked where a value is given. */
  readonly schema: v.GenericSchema;
  /** What it wants, in words, to follow "wanted". */
  readonly wanted: string;
  /** What it is for. */
  readonly description: string;
  /** Whether it has a value where none is given. */
  readonly hasPreset: boolean;
}

/** All settings by path, in the order of the schema. */
export const SETTINGS: ReadonlyMap<string, Setting> = settingsOf(SCHEMA.entries);
const SECTIONS: ReadonlySet<string> = new Set(
  [...SETTINGS.keys()].flatMap((key) => key.split(".").slice(0, -1).map((_, i, all) => all.slice(0, i + 1).join("."))),
);
/** Variables of the environment that are not settings of the agent. */
const OTHER_VARIABLES = /^MYCELIUM_(CONFIG|INVITE|INSTALL(_.*)?|TEST_.*)$/;

/** The variable of the environment for a setting: `http.tokenFile` is `MYCELIUM_HTTP_TOKEN_FILE`. */
export function variableOf(setting: string): string {
  return "MYCELIUM_" + setting.replaceAll(".", "_").replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

/**
 * Reads a configuration text in YAML (or JSON, which is YAML). Never throws; what is wrong is in `problems`.
 *
 * @param text Contents of a file, at most {@linkcode CONFIG_BYTES_MAX} characters.
 * @param source Name of the file, for messages.
 */
export function parseConfigText(text: string, source: string): ConfigLayer {
  const values = new Map<string, { value: unknown; origin: Origin }>();
  const problems: ConfigProblem[] = [];
  const add = (problem: Omit<ConfigProblem, "source">) => {
    if (problems.length < PROBLEMS_MAX) problems.push({ source, ...problem });
  };
  const layer = { source, values, problems, warnings: [] };
  if (text.length > CONFIG_BYTES_MAX) {
    add({ path: "", cause: `it has ${text.length} characters`, wanted: `at most ${CONFIG_BYTES_MAX}` });
    return layer;
  }
  if (nestingOf(text) > NESTING_MAX) {
    add({ path: "", cause: `brackets are nested more than ${NESTING_MAX} deep`, wanted: "the settings of mycelium" });
    return layer;
  }
  try {
    const lines = new LineCounter();
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, logLevel: "silent" });
    const fault = document.errors[0];
    if (fault) {
      const position = lines.linePos(fault.pos[0]);
      const cause = `not YAML, ${fault.message.split("\n")[0]}`;
      add({ path: "", line: position.line, cause, wanted: "YAML" });
      return layer;
    }
    if (document.contents === null || isScalar(document.contents) && document.contents.value === null) return layer;
    const walk = (node: unknown, prefix: string, offset: number): void => {
      const line = lines.linePos(offset).line;
      if (!isMap(node)) {
        const cause = "not a mapping";
        add({ path: prefix, line, value: showNode(node), cause, wanted: "`key: value` lines" });
        return;
      }
      for (const pair of node.items) {
        const keyNode: unknown = pair.key;
        const key = isScalar(keyNode) ? String(keyNode.value) : showNode(keyNode);
        const at = isScalar(keyNode) && keyNode.range ? keyNode.range[0] : offset;
        const name = prefix === "" ? key : `${prefix}.${key}`;
        const value: unknown = pair.value;
        // A key with nothing behind it is what remains when all below it is commented out.
        if (SECTIONS.has(name)) {
          if (value !== null && !(isScalar(value) && value.value === null)) walk(value, name, at);
        } else if (!SETTINGS.has(name)) {
          const wanted = suggest(name);
          add({ path: name.slice(0, 100), line: lines.linePos(at).line, cause: "there is no such setting", wanted });
        } else if (value !== null && !(isScalar(value) && value.value === null)) {
          const plain: unknown = isScalar(value)
            ? value.value
            : isCollection(value)
            ? value.toJS(document, { maxAliasCount: 20, mapAsMap: true })
            : resolveAlias(value, document);
          values.set(name, { value: plain, origin: { source, line: lines.linePos(at).line } });
        }
      }
    };
    walk(document.contents, "", 0);
  } catch (error) {
    // The parser recurses and limits aliases by throwing; either way the text is not a configuration.
    add({ path: "", cause: `not readable, ${error instanceof Error ? error.message : "unknown"}`, wanted: "YAML" });
  }
  return layer;
}

/** Reads the settings among the variables of an environment. Unknown `MYCELIUM_…` names are warnings. */
export function parseConfigEnv(env: Readonly<Record<string, string | undefined>>): ConfigLayer {
  const byVariable = new Map([...SETTINGS.keys()].map((name) => [variableOf(name), name]));
  const values = new Map<string, { value: unknown; origin: Origin }>();
  const warnings: string[] = [];
  for (const [variable, value] of Object.entries(env).sort(([a], [b]) => a < b ? -1 : 1)) {
    if (value === undefined || !variable.startsWith("MYCELIUM_")) continue;
    const name = byVariable.get(variable);
    if (name !== undefined) {
      values.set(name, { value: fromText(name, value), origin: { source: variable } });
    } else if (!OTHER_VARIABLES.test(variable)) {
      const near = nearest(variable, [...byVariable.keys()]);
      warnings.push(`Variable ${variable} is no setting${near ? `, did you mean ${near}?` : ""}`);
    }
  }
  return { source: "environment", values, problems: [], warnings };
}

/**
 * A layer of values that were given as flags.
 *
 * @param flags Value by setting; `undefined` is not given. Text is read as in the environment.
 * @param names Flag by setting, for messages, for example `--http`.
 */
export function configOfFlags(
  flags: Readonly<Record<string, unknown>>,
  names: Readonly<Record<string, string>> = {},
): ConfigLayer {
  const values = new Map<string, { value: unknown; origin: Origin }>();
  for (const [name, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const origin = { source: names[name] ?? name };
    values.set(name, { value: typeof value === "string" ? fromText(name, value) : value, origin });
  }
  return { source: "flags", values, problems: [], warnings: [] };
}

/**
 * Puts layers over the defaults, later ones over earlier ones.
 *
 * @param layers Sources in order; lists are replaced whole.
 * @param hostName Default for `name`; made to fit.
 * @returns The configuration with the origin of each value.
 * @throws {ConfigError} With all problems of all layers.
 */
export function resolveConfig(layers: readonly ConfigLayer[], hostName = "node"): LoadedConfig {
  const problems: ConfigProblem[] = layers.flatMap((layer) => [...layer.problems]);
  const tree: Record<string, unknown> = {};
  const origins = new Map<string, Origin>();
  for (const [name, { schema }] of SETTINGS) {
    for (const layer of layers) {
      const given = layer.values.get(name);
      if (given === undefined) continue;
      const parsed = v.safeParse(schema, given.value, { abortEarly: true });
      if (parsed.success) {
        setAt(tree, name, parsed.output);
        origins.set(name, given.origin);
        continue;
      }
      const { source, line } = given.origin;
      problems.push({
        source,
        ...(line === undefined ? {} : { line }),
        path: name,
        ...valueOf(given.value),
        cause: causeOf(given.value, parsed.issues[0]),
        wanted: wantedOf(name),
      });
    }
  }
  if (!origins.has("name")) {
    const fitting = hostName.replaceAll(/[^A-Za-z0-9.-]/g, "-").slice(0, 63).replaceAll(/^[.-]+|[.-]+$/g, "");
    if (NAME.test(fitting)) setAt(tree, "name", fitting);
    origins.set("name", { source: "default (host name)" });
  }
  for (const [name, { hasPreset }] of SETTINGS) {
    if (hasPreset && !origins.has(name)) origins.set(name, { source: "default" });
  }
  // In the order of the schema, whatever was given: two equal configurations are equal as JSON too.
  const config = v.parse(SCHEMA, tree);
  checkHttp(config, origins, problems);
  if (problems.length > 0) throw new ConfigError(problems.slice(0, PROBLEMS_MAX));
  const files = layers.map((layer) => layer.source).filter((source) => source !== "environment" && source !== "flags");
  return { config, origins, files, warnings: layers.flatMap((layer) => [...layer.warnings]) };
}

/** What {@linkcode loadConfig} reads. */
export interface LoadConfigOptions {
  /** The configuration file, which must be there. Missing: {@linkcode CONFIG_FILE}, which need not. */
  readonly file?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Layers over everything else, such as {@linkcode configOfFlags}. */
  readonly over?: readonly ConfigLayer[];
  readonly hostName?: string;
}

/**
 * Reads the configuration of this machine: the file, `config.d/*.yaml` beside it by name, `MYCELIUM_*`, flags.
 *
 * @throws {ConfigError} Where a file cannot be read or anything in it is wrong.
 */
export async function loadConfig(options: LoadConfigOptions): Promise<LoadedConfig> {
  const file = options.file ?? options.env.MYCELIUM_CONFIG ?? CONFIG_FILE;
  const required = options.file !== undefined || options.env.MYCELIUM_CONFIG !== undefined;
  const layers: ConfigLayer[] = [];
  const main = await readLayer(file, required);
  if (main) layers.push(main);
  const folder = file.replace(/[^/]*$/, "") + "config.d";
  for (const name of await yamlFilesIn(folder)) {
    const layer = await readLayer(`${folder}/${name}`, false);
    if (layer) layers.push(layer);
  }
  layers.push(parseConfigEnv(options.env), ...options.over ?? []);
  return resolveConfig(layers, options.hostName);
}

/** The schema as JSON Schema (draft 2020-12), for editors. */
export async function configJsonSchema(): Promise<unknown> {
  // One command needs it: every other process is spared it.
  const { toJsonSchema } = await import("@valibot/to-json-schema");
  return {
    ...toJsonSchema(SCHEMA, {
      target: "draft-2020-12",
      typeMode: "output",
      ignoreActions: ["check", "metadata", "transform"],
    }),
    title: "mycelium configuration",
    $id: "https://mycelium.invalid/schema/config.json",
  };
}

/**
 * The configuration as YAML. Values that may hold a secret are made unreadable: the passwords in addresses.
 *
 * @param loaded What to print.
 * @param options `origin` puts behind each value where it came from.
 */
export function formatConfig(loaded: LoadedConfig, options: { readonly origin?: boolean } = {}): string {
  const lines: string[] = [];
  let open: string[] = [];
  for (const name of SETTINGS.keys()) {
    const value = getAt(loaded.config, name);
    if (value === undefined) continue;
    const parts = name.split(".");
    const sections = parts.slice(0, -1);
    sections.forEach((section, depth) => {
      if (open[depth] !== section || open.slice(0, depth).join() !== sections.slice(0, depth).join()) {
        lines.push("  ".repeat(depth) + `${section}:`);
        open = sections.slice(0, depth + 1);
      }
    });
    open = sections;
    const shown = stringify(redact(value), { collectionStyle: "flow", lineWidth: 0 }).trim();
    const origin = loaded.origins.get(name);
    const note = options.origin && origin ? `  # ${describeOrigin(origin)}` : "";
    lines.push(`${"  ".repeat(sections.length)}${parts.at(-1)}: ${shown}${note}`);
  }
  return lines.join("\n") + "\n";
}

/** A value as YAML, without what may be secret. */
export function formatYaml(value: unknown): string {
  return stringify(redact(value), { lineWidth: 0 });
}

/** The configuration without what may be secret, for `--json`. */
export function redactConfig(config: Config): unknown {
  return redact(config);
}

/** The value of a YAML document that is no configuration. @throws {Error} Saying what is wrong with it, and where. */
export function parseYaml(text: string): unknown {
  if (nestingOf(text) > NESTING_MAX) throw new Error(`brackets are nested more than ${NESTING_MAX} deep`);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, logLevel: "silent" });
  const fault = document.errors[0];
  if (fault) throw new Error(`line ${lines.linePos(fault.pos[0]).line}: ${fault.message.split("\n")[0]}`);
  return document.toJS({ maxAliasCount: 20 });
}

/** For example `/etc/mycelium/config.yaml:3`. */
export function describeOrigin(origin: Origin): string {
  return origin.line === undefined ? origin.source : `${origin.source}:${origin.line}`;
}

/** The multiaddrs that `listen` and `port` stand for; port 0 asks for a free one. */
export function listenAddresses(config: Pick<Config, "listen" | "port">): string[] {
  const out = new Set<string>();
  for (const entry of config.listen) {
    const parsed = parseListen(entry);
    if (!parsed) continue;
    for (const host of parsed.hosts) {
      const family = host.includes(":") ? "ip6" : "ip4";
      const port = parsed.port ?? config.port;
      if (parsed.transport !== "tcp") out.add(`/${family}/${host}/udp/${port}/quic-v1`);
      if (parsed.transport !== "quic") out.add(`/${family}/${host}/tcp/${port}`);
    }
  }
  return [...out];
}

/** Host and port of `http.listen`, or `undefined` where it is off. */
export function httpAddress(config: Config): { readonly hostname: string; readonly port: number } | undefined {
  return config.http.listen === "off" ? undefined : parseHostPort(config.http.listen);
}

/** Splits `IP:PORT` or `[IPv6]:PORT`; with a default port `IP` alone as well. `localhost` is 127.0.0.1. */
export function parseHostPort(
  input: string,
  defaultPort?: number,
): { readonly hostname: string; readonly port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(input);
  const bare = defaultPort !== undefined && parseIpv6(input) ? input : undefined;
  const hostname = bare ?? match?.[1] ?? (match?.[2] === "localhost" ? "127.0.0.1" : match?.[2]);
  const port = bare === undefined && match?.[3] !== undefined ? Number(match[3]) : defaultPort;
  if (hostname === undefined || port === undefined || port > 65535) return undefined;
  if (match?.[1] !== undefined ? !parseIpv6(hostname) : !parseIpv4(hostname) && !parseIpv6(hostname)) return undefined;
  return { hostname, port };
}

/** The closest of `names` to `word`, where one is close. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const short = word.slice(0, 64).toLowerCase();
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(short.length / 3)) + 1;
  for (const name of names) {
    const distance = editDistance(short, name.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [name, distance];
  }
  return best;
}

/** Settings and further sections by name, each of which may be left out. */
type Entries = Readonly<Record<string, v.OptionalSchema<v.GenericSchema, unknown>>>;

/** All settings of a section and those below it, by path with dots, in order. */
function settingsOf(entries: Entries, prefix = ""): Map<string, Setting> {
  const out = new Map<string, Setting>();
  for (const [key, one] of Object.entries(entries)) {
    const name = prefix + key;
    const schema = one.wrapped;
    if (isSection(schema)) {
      for (const [below, inner] of settingsOf(schema.entries, `${name}.`)) out.set(below, inner);
      continue;
    }
    const words: Readonly<Record<string, unknown>> = v.getMetadata(one);
    const wanted = String(words.wanted);
    const description = v.getDescription(one) ?? "";
    out.set(name, { schema, wanted, description, hasPreset: one.default !== undefined });
  }
  return out;
}

function isSection(schema: v.GenericSchema): schema is v.GenericSchema & { readonly entries: Entries } {
  return schema.type === "strict_object";
}

/** Milliseconds of an interval such as `90s`, `5m`, `6h` or `7d`: ten seconds to thirty days. */
export function everyMs(text: string): number | undefined {
  const match = /^(\d{1,6})(s|m|h|d)$/.exec(text);
  if (!match) return undefined;
  const ms = Number(match[1]) * { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] as "s" | "m" | "h" | "d"];
  return ms >= 10_000 && ms <= 30 * 86_400_000 ? ms : undefined;
}

/** What a configuration says about incidents. */
export function incidentSettings(config: Config): IncidentSettings {
  const { dryRun, rules } = config.security.incidents;
  return {
    dryRun,
    rules: rules.map(({ window, hold, ...rest }) => ({
      ...rest,
      ...(window === undefined ? {} : { windowMs: everyMs(window)! }),
      ...(hold === undefined ? {} : { holdMs: everyMs(hold)! }),
    })),
  };
}

/** A mapping of the YAML reader as an object without a prototype: what stands in it are keys and nothing else. */
function plain(value: unknown, depth = 0): unknown {
  if (depth > 4) return null;
  if (Array.isArray(value)) return value.slice(0, 256).map((one) => plain(one, depth + 1));
  if (!(value instanceof Map)) return value;
  const out: Record<string, unknown> = Object.create(null);
  for (const [key, one] of value) out[String(key)] = plain(one, depth + 1);
  return out;
}

function parseListen(
  input: string,
): { hosts: readonly string[]; port?: number; transport?: "quic" | "tcp" } | undefined {
  if (input === "*") return { hosts: ["0.0.0.0", "::"] };
  if (input.startsWith("/")) {
    const match = /^\/ip([46])\/([^/]+)\/(?:udp\/(\d{1,5})\/quic-v1|tcp\/(\d{1,5}))$/.exec(input);
    const [, family, host, udp, tcp] = match ?? [];
    const port = Number(udp ?? tcp);
    if (host === undefined || port > 65535 || !(family === "4" ? parseIpv4(host) : parseIpv6(host))) return undefined;
    return { hosts: [host], port, transport: udp === undefined ? "tcp" : "quic" };
  }
  const any = /^\*:(\d{1,5})$/.exec(input);
  if (any) return Number(any[1]) > 65535 ? undefined : { hosts: ["0.0.0.0", "::"], port: Number(any[1]) };
  const parsed = parseHostPort(input, -1);
  return parsed && { hosts: [parsed.hostname], ...(parsed.port < 0 ? {} : { port: parsed.port }) };
}

function isHttpUrl(value: string): boolean {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  return url !== undefined && (url.protocol === "http:" || url.protocol === "https:");
}

/** The page tells who is who in the network: off this machine it goes to those who show the token, encrypted. */
function checkHttp(config: Config, origins: ReadonlyMap<string, Origin>, problems: ConfigProblem[]): void {
  const { tlsCert, tlsKey, tokenFile } = config.http;
  const fail = (path: string, cause: string, wanted: string) => {
    const origin = origins.get(path) ?? origins.get("http.listen") ?? { source: "default" };
    problems.push({ ...origin, path, ...valueOf(getAt(config, path)), cause, wanted });
  };
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    const given = tlsCert === undefined ? "http.tlsKey" : "http.tlsCert";
    const other = tlsCert === undefined ? "http.tlsCert" : "http.tlsKey";
    fail(given, `it is given without ${other}`, "both or none");
  }
  const host = httpAddress(config)?.hostname;
  if (host === undefined || host === "::1" || host.startsWith("127.")) return;
  if (tokenFile === undefined || tlsCert === undefined || tlsKey === undefined) {
    const missing = [
      tokenFile === undefined ? "http.tokenFile" : "",
      tlsCert === undefined ? "http.tlsCert" : "",
      tlsKey === undefined ? "http.tlsKey" : "",
    ].filter((name) => name !== "");
    fail("http.listen", `it is reachable from other machines and ${missing.join(", ")} not set`, "these, or loopback");
  }
}

/** Text of the environment or of a flag as the setting wants it; what does not fit stays text and fails there. */
function fromText(name: string, value: string): unknown {
  const kind = SETTINGS.get(name)?.schema.type;
  if (kind === "boolean") {
    const word = value.trim().toLowerCase();
    if (["true", "1", "yes", "on"].includes(word)) return true;
    if (["false", "0", "no", "off"].includes(word)) return false;
  }
  if (kind === "number" && /^\s*-?\d{1,15}\s*$/.test(value)) return Number(value);
  if (kind === "array" && /^\s*\[/.test(value)) {
    try {
      // Only JSON can say a list of mappings; an IPv6 address with its brackets is none.
      const entries: unknown = JSON.parse(value);
      if (Array.isArray(entries)) return entries;
    } catch {
      // A list with commas then.
    }
  }
  if (kind === "array") return value.split(",").map((part) => part.trim()).filter((part) => part !== "");
  return value;
}

function wantedOf(name: string): string {
  return SETTINGS.get(name)?.wanted ?? "a setting";
}

function causeOf(value: unknown, issue: v.BaseIssue<unknown>): string {
  if (typeof value === "string" && INVITE.test(value)) return "that is an invite itself, and secret";
  const entry = issue.path?.[0].key;
  if (Array.isArray(value) && typeof entry === "number") {
    return `entry ${entry + 1}, ${show(redact(value[entry]))}, does not fit`;
  }
  switch (issue.type) {
    case "array":
    case "boolean":
    case "integer":
    case "number":
    case "string":
      return `it is ${kindOf(value)}`;
    case "min_length":
    case "max_length":
    case "min_value":
    case "max_value":
      return "out of range";
    default:
      return "does not fit";
  }
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return "empty";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a mapping";
  if (typeof value === "number") return Number.isInteger(value) ? "a number" : "a fraction";
  return typeof value === "boolean" ? "true or false" : "text";
}

/** The value as a message may show it. */
function valueOf(value: unknown): { value?: string } {
  if (value === undefined || typeof value === "string" && INVITE.test(value)) return {};
  return { value: show(redact(value)) };
}

/** Takes out what may be secret: invites, and user and password in addresses. */
function redact(value: unknown, depth = 0): unknown {
  if (typeof value === "string") {
    return value.replaceAll(/myc1[A-Za-z0-9_-]{24,}/g, "myc1…").replaceAll(/:\/\/[^/@\s]*@/g, "://…@");
  }
  if (Array.isArray(value)) return depth > 4 ? "…" : value.slice(0, 256).map((item) => redact(item, depth + 1));
  if (typeof value === "object" && value !== null && !(value instanceof Map)) {
    if (depth > 4) return "…";
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, redact(item, depth + 1)]));
  }
  return value instanceof Map ? "{…}" : value;
}

function show(value: unknown): string {
  let out: string;
  try {
    out = JSON.stringify(value) ?? String(value);
  } catch {
    out = "…"; // BigInt, or a list that holds itself through an alias.
  }
  return out.length > 80 ? out.slice(0, 79) + "…" : out;
}

function showNode(node: unknown): string {
  return isScalar(node) ? show(redact(node.value)) : isMap(node) ? "{…}" : isCollection(node) ? "[…]" : "…";
}

function resolveAlias(node: unknown, document: ReturnType<typeof parseDocument>): unknown {
  if (!isAlias(node)) return undefined;
  const target = node.resolve(document);
  if (!target) throw new Error(`*${node.source} names no anchor`);
  return target.toJS(document, { maxAliasCount: 20, mapAsMap: true });
}

function suggest(name: string): string {
  const all = [...SETTINGS.keys(), ...SECTIONS];
  const last = name.split(".").at(-1)!;
  // `mdns` at the top belongs below `discovery`: the last word alone may name the setting.
  const moved = all.filter((other) => other.split(".").at(-1)!.toLowerCase() === last.toLowerCase());
  const parent = name.slice(0, name.length - last.length);
  const siblings = all.filter((other) => other.startsWith(parent) && !other.slice(parent.length).includes("."));
  const near = nearest(last, siblings.map((other) => other.slice(parent.length)));
  const found = near !== undefined ? parent + near : moved[0] ?? nearest(name, all);
  return found === undefined ? "one of those that `mycelium config schema` lists" : `perhaps ${found}`;
}

/** Edits between two words; two neighbours that changed places are one (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let older: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? older[j - 2]! + 1 : Infinity;
      row.push(Math.min(previous[j]! + 1, row[j - 1]! + 1, replaced, swapped));
    }
    [older, previous] = [previous, row];
  }
  return previous[b.length]!;
}

function nestingOf(text: string): number {
  let depth = 0, deepest = 0;
  for (const character of text) {
    if (character === "[" || character === "{") deepest = Math.max(deepest, ++depth);
    else if (character === "]" || character === "}") depth = Math.max(0, depth - 1);
  }
  return deepest;
}

function setAt(tree: Record<string, unknown>, name: string, value: unknown): void {
  const parts = name.split(".");
  let node = tree;
  for (const part of parts.slice(0, -1)) node = (node[part] ??= {}) as Record<string, unknown>;
  node[parts.at(-1)!] = value;
}

function getAt(tree: unknown, name: string): unknown {
  return name.split(".").reduce<unknown>(
    (node, part) => typeof node === "object" && node !== null ? (node as Record<string, unknown>)[part] : undefined,
    tree,
  );
}

async function readLayer(file: string, required: boolean): Promise<ConfigLayer | undefined> {
  try {
    const { size } = await Deno.stat(file);
    if (size > CONFIG_BYTES_MAX) {
      const problem = { source: file, path: "", cause: `it has ${size} bytes`, wanted: `at most ${CONFIG_BYTES_MAX}` };
      return { source: file, values: new Map(), problems: [problem], warnings: [] };
    }
    return parseConfigText(await Deno.readTextFile(file), file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound && !required) return undefined;
    const cause = error instanceof Error ? error.message : "cannot be read";
    const problem = { source: file, path: "", cause, wanted: "a file that this user may read" };
    return { source: file, values: new Map(), problems: [problem], warnings: [] };
  }
}

async function yamlFilesIn(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) {
      if (!entry.isDirectory && /^[^.].*\.ya?ml$/.test(entry.name) && names.length < 100) names.push(entry.name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory)) throw error;
  }
  return names.sort();
}
