/**
 * JSON Schema written beside a TypeScript type, where the compiler checks that both have the same fields.
 *
 * @module
 */

/** A JSON Schema object (2020-12, as in OpenAPI 3.1). */
export type JsonSchema = { readonly [key: string]: unknown };

/** A schema of values of `T`; `T` is known to the compiler only. */
export interface Schema<T> {
  readonly json: JsonSchema;
  readonly optional: boolean;
  /** Never there: carries the type. */
  readonly type?: T;
}

/** Every field of `T`; one that may be missing takes an {@linkcode optional} schema. */
export type Fields<T> = {
  readonly [K in keyof T]-?: undefined extends T[K] ? Schema<Exclude<T[K], undefined>> & { readonly optional: true }
    : Schema<T[K]> & { readonly optional: false };
};

type Required<T> = Schema<T> & { readonly optional: false };

function make<T>(json: JsonSchema): Required<T> {
  return { json, optional: false };
}

/** Milliseconds since the epoch. */
export function time(description: string): Required<number> {
  return make({ type: "number", description: `${description} Milliseconds since the epoch.` });
}

/** A whole number of at least `minimum`. */
export function count(description: string, minimum = 0): Required<number> {
  return make({ type: "integer", minimum, description });
}

/** Any number. */
export function number(description: string): Required<number> {
  return make({ type: "number", description });
}

/** A text. */
export function text(description: string): Required<string> {
  return make({ type: "string", description });
}

/** True or false. */
export function bool(description: string): Required<boolean> {
  return make({ type: "boolean", description });
}

/** One of `values`; each of them must be listed, which the type of the map checks. */
export function choice<T extends string>(values: Readonly<Record<T, true>>, description = ""): Required<T> {
  return make({ type: "string", enum: Object.keys(values), ...(description ? { description } : {}) });
}

/** A list. */
export function list<T>(items: Schema<T>, description = ""): Required<readonly T[]> {
  return make({ type: "array", items: items.json, ...(description ? { description } : {}) });
}

/** A map of numbers with free names. */
export function numbers(description: string): Required<{ readonly [name: string]: number }> {
  return make({ type: "object", additionalProperties: { type: "number" }, description });
}

/** An object with exactly the fields of `T`. */
export function object<T>(fields: Fields<T>, description = ""): Required<T> {
  const entries = Object.entries(fields) as [string, Schema<unknown>][];
  return make({
    type: "object",
    properties: Object.fromEntries(entries.map(([name, field]) => [name, field.json])),
    required: entries.filter(([, field]) => !field.optional).map(([name]) => name),
    ...(description ? { description } : {}),
  });
}

/** A field that may be missing. */
export function optional<T>(schema: Schema<T>): Schema<T> & { readonly optional: true } {
  return { json: schema.json, optional: true };
}

/** A reference to a named schema of the same document. */
export function named<T>(name: string): Required<T> {
  return make({ $ref: `#/components/schemas/${name}` });
}
