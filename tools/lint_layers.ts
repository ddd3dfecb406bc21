/**
 * The import rule of ARCHITECTURE.md and the purity rule, as a `deno lint` plugin.
 *
 * `layers/imports`: a file under `src/` imports from its own folder and from earlier layers; the
 * protocol folders never import each other; third-party modules appear in `edge/` and `cli/` only.
 * `layers/pure`: below `edge/` there is no clock, timer, randomness, waiting, fetch or `Deno.*`.
 *
 * Tests, tools and benches are not held to either.
 *
 * @module
 */

import { dirname, join, normalize } from "node:path";

/** Folders of `src/` in the order in which they may be imported: a group sees all groups before it. */
export const LAYERS: readonly (readonly string[])[] = [
  ["core"],
  [
    "identity",
    "bootstrap",
    "membership",
    "spore",
    "raft",
    "consensus",
    "trust",
    "access",
    "storage",
    "services",
    "k3s",
    "links",
    "overlay",
  ],
  ["agent"],
  ["ports"],
  ["edge"],
  ["cli"],
  ["main"],
];

/** First layer that may touch the world. */
const EDGE = LAYERS.findIndex((group) => group.includes("edge"));
const MAIN = LAYERS.length - 1;

/** Third-party modules that are pure functions and that `core/` may wrap. */
const CORE_MODULES = [/^cborg(\/|$)/, /^node:crypto$/, /^node:buffer$/, /^node:zlib$/, /^@noble\/hashes(\/|$)/];

/** Exports of `node:crypto` that draw randomness or wait. */
const IMPURE_CRYPTO = new Set([
  "randomBytes",
  "randomFill",
  "randomFillSync",
  "randomInt",
  "randomUUID",
  "getRandomValues",
  "generateKey",
  "generateKeySync",
  "generateKeyPair",
  "generateKeyPairSync",
  "generatePrime",
  "generatePrimeSync",
  "webcrypto",
  "subtle",
]);

/** Globals that read a clock, wait, draw or reach the world. */
const IMPURE_GLOBALS = new Set([
  "Deno",
  "fetch",
  "performance",
  "setTimeout",
  "setInterval",
  "setImmediate",
  "queueMicrotask",
  "requestAnimationFrame",
  "WebSocket",
  "EventSource",
  "XMLHttpRequest",
  "Worker",
  "BroadcastChannel",
  "localStorage",
  "sessionStorage",
]);

/** Members of otherwise harmless objects that do the same. */
const IMPURE_MEMBERS = new Set([
  "Date.now",
  "Math.random",
  "AbortSignal.timeout",
  "Temporal.Now",
  "crypto.getRandomValues",
  "crypto.randomUUID",
  "crypto.subtle",
  "globalThis.crypto",
  "process.hrtime",
  "process.env",
  ...[...IMPURE_CRYPTO].map((name) => `crypto.${name}`),
  ...[...IMPURE_GLOBALS].map((name) => `globalThis.${name}`),
]);

/** Where a file stands: its folder under `src/` and that folder's layer. */
interface Place {
  readonly folder: string;
  readonly layer: number;
}

const ROOT = dirname(import.meta.dirname ?? ".");

/** Path of `filename` from the top of the repository, with `/`. */
function repositoryPath(filename: string): string {
  return filename.startsWith(`${ROOT}/`) ? filename.slice(ROOT.length + 1) : filename;
}

/** The place of a file, `undefined` for one outside `src/` and `main.ts`; layer -1 for a folder without a layer. */
function placeOf(path: string): Place | undefined {
  if (path === "main.ts") return { folder: "main", layer: MAIN };
  const parts = path.split("/");
  const folder = parts[1];
  if (parts[0] !== "src" || folder === undefined) return undefined;
  return { folder, layer: LAYERS.findIndex((group) => group.includes(folder)) };
}

/** Why the file at `path` may not import `specifier`; `undefined` where it may. */
function importFault(path: string, place: Place, specifier: string): string | undefined {
  if (!specifier.startsWith(".")) return packageFault(place, specifier);
  const target = normalize(join(dirname(path), specifier));
  const other = placeOf(target);
  if (!other) {
    return place.layer >= EDGE ? undefined : `"${target}" is outside src/, wanted a file of an earlier layer`;
  }
  if (other.folder === place.folder) return undefined;
  if (other.layer === -1) return `folder "${other.folder}" has no layer, add it to LAYERS in tools/lint_layers.ts`;
  if (other.layer === place.layer) {
    return `"${place.folder}" and "${other.folder}" are siblings and never import each other; what one needs travels ` +
      "as an event through agent/";
  }
  return other.layer < place.layer
    ? undefined
    : `"${other.folder}" comes after "${place.folder}" in the layers, wanted an earlier one`;
}

/** Why a file at `place` may not import the module `specifier` that is not ours; `undefined` where it may. */
function packageFault(place: Place, specifier: string): string | undefined {
  if (place.folder === "edge" || place.folder === "cli") return undefined;
  if (place.folder === "main" && specifier.startsWith("node:")) return undefined;
  if (place.folder === "core" && CORE_MODULES.some((one) => one.test(specifier))) return undefined;
  return `module "${specifier}" is not ours: such modules are imported in edge/ and cli/ only` +
    (place.folder === "core"
      ? ", and core/ may wrap cborg, node:crypto, node:buffer, node:zlib and @noble/hashes"
      : "");
}

/** The text of a string literal, `undefined` for any other expression. */
function literalText(node: unknown): string | undefined {
  const { type, value } = node as { type: string; value?: unknown };
  return type === "Literal" && typeof value === "string" ? value : undefined;
}

const imports: Deno.lint.Rule = {
  create(context) {
    const path = repositoryPath(context.filename);
    const place = placeOf(path);
    if (!place) return {};
    if (place.layer === -1) {
      return {
        Program(node) {
          context.report({
            node,
            message: `Folder "src/${place.folder}" has no layer, add it to LAYERS in tools/lint_layers.ts`,
          });
        },
      };
    }
    const check = (node: Deno.lint.Node, specifier: string | undefined) => {
      if (specifier === undefined) return;
      const fault = importFault(path, place, specifier);
      if (fault) context.report({ node, message: `Cannot import "${specifier}": ${fault}` });
    };
    return {
      ImportDeclaration: (node) => check(node, literalText(node.source)),
      ExportAllDeclaration: (node) => check(node, literalText(node.source)),
      ExportNamedDeclaration: (node) => check(node, node.source ? literalText(node.source) : undefined),
      ImportExpression: (node) => check(node, literalText(node.source)),
      TSImportType(node) {
        const argument = node.argument as unknown as { literal?: unknown };
        check(node, literalText(argument.literal ?? argument));
      },
    };
  },
};

const pure: Deno.lint.Rule = {
  create(context) {
    const place = placeOf(repositoryPath(context.filename));
    if (!place || place.layer === -1 || place.layer >= EDGE) return {};
    const report = (node: Deno.lint.Node, what: string) =>
      context.report({
        node,
        message:
          `Cannot use ${what} in src/${place.folder}/: below edge/ time, randomness and the world arrive as inputs`,
      });
    const checkFunction = (node: Deno.lint.Node & { async: boolean }) => {
      if (node.async) report(node, "an async function");
    };
    return {
      Identifier(node) {
        if (IMPURE_GLOBALS.has(node.name) && isValueReference(node)) report(node, node.name);
      },
      MemberExpression(node) {
        const member = `${context.sourceCode.getText(node.object)}.${memberName(node)}`;
        if (IMPURE_MEMBERS.has(member)) report(node, member);
      },
      NewExpression(node) {
        if (isNamed(node.callee, "Date") && node.arguments.length === 0) report(node, "new Date()");
      },
      CallExpression(node) {
        if (isNamed(node.callee, "Date")) report(node, "Date()");
      },
      ImportDeclaration(node) {
        if (literalText(node.source) !== "node:crypto") return;
        for (const one of node.specifiers) {
          if (one.type !== "ImportSpecifier") continue;
          const name = one.imported.type === "Identifier" ? one.imported.name : one.imported.value;
          if (IMPURE_CRYPTO.has(name)) report(one, `node:crypto ${name}`);
        }
      },
      AwaitExpression: (node) => report(node, "await"),
      ForOfStatement(node) {
        if (node.await) report(node, "for await");
      },
      ImportExpression: (node) => report(node, "import()"),
      FunctionDeclaration: checkFunction,
      FunctionExpression: checkFunction,
      ArrowFunctionExpression: checkFunction,
    };
  },
};

/** Whether `node` is a plain identifier called `name`. */
function isNamed(node: Deno.lint.Node, name: string): boolean {
  return node.type === "Identifier" && node.name === name;
}

/** Name of the member that is read, empty for one that is computed from anything but a string. */
function memberName(node: Deno.lint.MemberExpression): string {
  if (!node.computed && node.property.type === "Identifier") return node.property.name;
  return literalText(node.property) ?? "";
}

/** Whether an identifier stands for a value here, rather than naming a member, a key, a parameter's type or a type. */
function isValueReference(node: Deno.lint.Identifier): boolean {
  const parent = node.parent as Deno.lint.Node & Record<string, unknown>;
  if (parent.type.startsWith("TS") && !parent.type.endsWith("Expression")) return false;
  if (parent.type === "MemberExpression") return parent.object === node || parent.computed === true;
  const names = ["Property", "PropertyDefinition", "MethodDefinition"].includes(parent.type);
  // In `{ fetch }` the key and the value are the same name: the value counts.
  if (names) return parent.value === node || parent.computed === true || parent.shorthand === true;
  return !["ImportSpecifier", "ExportSpecifier", "LabeledStatement"].includes(parent.type);
}

const plugin: Deno.lint.Plugin = { name: "layers", rules: { imports, pure } };
export default plugin;
