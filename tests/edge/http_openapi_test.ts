/** The OpenAPI document against what is really answered. */

import assert from "node:assert/strict";
import { createControlApp, createStatusApp } from "../../src/edge/http/app.ts";
import { openApiDocument } from "../../src/edge/http/openapi.ts";
import type { JsonSchema } from "../../src/edge/http/schema.ts";
import { FixtureSource, isolatedStatus, singleNodeStatus, troubledStatus } from "../testkit/status_fixture.ts";

type Tree = { readonly [key: string]: Tree } & JsonSchema;

/** What a value breaks of a schema. Keywords that it does not know are a failure, so that none is passed over. */
function faults(
  schema: JsonSchema,
  value: unknown,
  schemas: Readonly<Record<string, JsonSchema>>,
  path = "$",
): string[] {
  const known = new Set([
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "minimum",
    "maximum",
    "description",
    "additionalProperties",
    "$ref",
    "oneOf",
  ]);
  for (const keyword of Object.keys(schema)) assert.ok(known.has(keyword), `${path}: keyword ${keyword}`);
  if (typeof schema.$ref === "string") {
    const name = schema.$ref.replace("#/components/schemas/", "");
    const target = schemas[name];
    return target ? faults(target, value, schemas, path) : [`${path}: no schema ${name}`];
  }
  if ("const" in schema && value !== schema.const) return [`${path}: wanted ${schema.const}`];
  if (Array.isArray(schema.enum) && !schema.enum.includes(value)) {
    return [`${path}: ${value} is none of ${schema.enum}`];
  }
  const type = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  if (schema.type === "integer" ? !Number.isInteger(value) : schema.type !== undefined && schema.type !== type) {
    return [`${path}: ${type}, wanted ${schema.type}`];
  }
  if (typeof schema.minimum === "number" && (value as number) < schema.minimum) {
    return [`${path}: below ${schema.minimum}`];
  }
  if (type === "array") {
    return (value as unknown[]).flatMap((item, index) =>
      faults(schema.items as JsonSchema, item, schemas, `${path}[${index}]`)
    );
  }
  if (type !== "object") return [];
  const properties = (schema.properties ?? {}) as Readonly<Record<string, JsonSchema>>;
  const object = value as Readonly<Record<string, unknown>>;
  const missing = ((schema.required ?? []) as string[]).filter((name) => !(name in object)).map((name) =>
    `${path}: no ${name}`
  );
  return missing.concat(
    Object.entries(object).flatMap(([name, item]) => {
      const property = properties[name] ?? schema.additionalProperties as JsonSchema | undefined;
      return property ? faults(property, item, schemas, `${path}.${name}`) : [`${path}: ${name} is not described`];
    }),
  );
}

Deno.test("/status of every fixture is what the document says, with nothing left undescribed", async () => {
  for (const status of [singleNodeStatus(), troubledStatus(), isolatedStatus()]) {
    const source = new FixtureSource(status);
    using app = createStatusApp({ getStatus: source.getStatus, subscribe: source.subscribe });
    const document: Tree = await (await app.request("/openapi.json")).json();
    const schemas = document.components?.schemas as Readonly<Record<string, JsonSchema>>;
    assert.deepEqual(
      faults({ $ref: "#/components/schemas/Status" }, await (await app.request("/status")).json(), schemas),
      [],
    );
    assert.deepEqual(
      faults({ $ref: "#/components/schemas/Readiness" }, await (await app.request("/readyz")).json(), schemas),
      [],
    );
    assert.deepEqual(
      faults({ $ref: "#/components/schemas/Problem" }, await (await app.request("/x")).json(), schemas),
      [],
    );
  }
});

Deno.test("the check above sees a field that is missing, of a wrong type, or not described", () => {
  const { components } = openApiDocument({ control: false, token: false }) as Tree;
  const schemas = components?.schemas as Readonly<Record<string, JsonSchema>>;
  const check = (value: unknown) => faults({ $ref: "#/components/schemas/Event" }, value, schemas);
  const good = { atMs: 1, level: "info", event: "e", message: "m" };
  assert.deepEqual(check(good), []);
  assert.deepEqual(check({ ...good, level: "loud" }).length, 1);
  assert.deepEqual(check({ ...good, atMs: "1" }).length, 1);
  assert.deepEqual(check({ ...good, extra: 1 }).length, 1);
  assert.deepEqual(check({ atMs: 1, level: "info", event: "e" }).length, 1);
});

Deno.test("every described path is served with the described type, and every served path is described", async () => {
  const source = new FixtureSource();
  using app = createControlApp({
    getStatus: source.getStatus,
    subscribe: source.subscribe,
    control: () => Promise.resolve({ ok: true, result: 1 }),
    exec: async function* () {
      yield { type: "end", code: 0, message: "" };
    },
    shutdown: () => {},
  });
  const document: Tree = await (await app.request("/openapi.json")).json();
  const paths = Object.entries(document.paths ?? {});
  for (const [path, operations] of paths) {
    for (const method of Object.keys(operations)) {
      const answer = await app.request(path, {
        method: method.toUpperCase(),
        ...(method === "post" ? { body: "{}", headers: { "content-type": "application/json" } } : {}),
      });
      assert.equal(answer.status, 200, path);
      const type = (answer.headers.get("content-type") ?? "").split(";")[0] ?? "";
      const responses = operations[method]?.responses as Tree;
      assert.ok(Object.keys(responses["200"]?.content ?? {}).includes(type), `${path}: ${type}`);
      await answer.body?.cancel();
    }
  }
  const { cure } = await (await app.request("/none")).json();
  const served = String(cure).match(/\/[a-z.]*/g) ?? [];
  assert.deepEqual([...new Set(served)].sort(), paths.map(([path]) => path).sort());
});

Deno.test("every reference of the document resolves, and every operation has a name of its own", () => {
  for (const options of [{ control: false, token: false }, { control: true, token: true }]) {
    const document = openApiDocument(options) as Tree;
    const text = JSON.stringify(document);
    for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      assert.ok(document.components?.schemas?.[name ?? ""], name);
    }
    const names = [...text.matchAll(/"operationId":"(\w+)"/g)].map(([, name]) => name);
    assert.equal(new Set(names).size, names.length);
    assert.match(String(document.openapi), /^3\.1\./);
  }
});
