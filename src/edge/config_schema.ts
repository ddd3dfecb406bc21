/**
 * The words in which the configuration's schema is written: settings of four kinds, in sections.
 *
 * Not a library: a general one costs 8 MB of memory and 20 ms at each start, a tenth of what a node may have, for
 * checks that take a page.
 *
 * @module
 */

/** Why a value does not fit: its type, its size, what it says, or the entry of a list (from 0) that does not fit. */
export type Misfit = "type" | "range" | "value" | { readonly entry: number };

/** One setting. `T` holds `undefined` where it has no default. */
export interface Setting<T> {
  /** What a text from a flag or the environment is read as. */
  readonly kind: "boolean" | "integer" | "text" | "list";
  /** What it wants, in words, to follow "wanted". */
  readonly wanted: string;
  /** What it is for. */
  readonly description: string;
  /** The value where nothing is given; missing where there is none. */
  readonly preset?: T;
  /** Why a value does not fit; `undefined` where it does. */
  readonly misfit: (value: unknown) => Misfit | undefined;
  /** Its keywords of JSON Schema, draft 2020-12. */
  readonly keywords: Readonly<Record<string, unknown>>;
}

/** Settings and further sections by name. */
export interface Section {
  /** By name, in the order in which it is shown. */
  readonly [name: string]: Setting<unknown> | Section;
}

/** The values that a section's settings take. */
export type ValuesOf<S> =
  & { [K in keyof S as undefined extends ValueOf<S[K]> ? never : K]: ValueOf<S[K]> }
  & { [K in keyof S as undefined extends ValueOf<S[K]> ? K : never]?: ValueOf<S[K]> };

/** The value of a setting, or those of a section. */
export type ValueOf<S> = S extends Setting<infer T> ? T : ValuesOf<S>;

/** What a text must be like; each rule that is there has to hold. */
export interface TextRules {
  readonly charsMin?: number;
  readonly charsMax?: number;
  readonly pattern?: RegExp;
  readonly check?: (value: string) => boolean;
}

/** Words about a setting. */
export interface SettingWords<T> {
  readonly wanted: string;
  readonly description: string;
  readonly preset?: T;
}

/** Yes or no. */
export function flagSetting(preset: boolean, description: string): Setting<boolean> {
  const misfit = (value: unknown) => typeof value === "boolean" ? undefined : "type";
  return { kind: "boolean", wanted: "true or false", description, preset, misfit, keywords: { type: "boolean" } };
}

/** A whole number from `minimum` to `maximum`. */
export function integerSetting(
  preset: number,
  range: { readonly minimum: number; readonly maximum: number },
  description: string,
): Setting<number> {
  const { minimum, maximum } = range;
  return {
    kind: "integer",
    wanted: `a whole number from ${minimum} to ${maximum}`,
    description,
    preset,
    misfit(value) {
      if (typeof value !== "number" || !Number.isInteger(value)) return "type";
      return value < minimum || value > maximum ? "range" : undefined;
    },
    keywords: { type: "integer", minimum, maximum },
  };
}

/** A text with a default. */
export function textSetting(
  rules: TextRules,
  words: SettingWords<string> & { readonly preset: string },
): Setting<string>;
/** A text without a default. */
export function textSetting(rules: TextRules, words: SettingWords<string>): Setting<string | undefined>;
export function textSetting(rules: TextRules, words: SettingWords<string>): Setting<string | undefined> {
  return { kind: "text", ...words, misfit: (value) => misfitOfText(value, rules), keywords: textKeywords(rules) };
}

/** One of several words. */
export function wordSetting<const T extends string>(
  choices: readonly T[],
  words: { readonly preset: NoInfer<T>; readonly description: string },
): Setting<T> {
  return {
    kind: "text",
    wanted: `one of ${choices.join(", ")}`,
    ...words,
    misfit: (value) => choices.some((one) => one === value) ? undefined : "value",
    keywords: { type: "string", enum: choices },
  };
}

/** A list of texts of one kind. */
export function listSetting(
  rules: TextRules & { readonly entriesMax: number },
  words: { readonly wanted: string; readonly description: string; readonly preset: readonly string[] },
): Setting<string[]> {
  const { entriesMax, ...entry } = rules;
  const { wanted, description, preset } = words;
  return {
    kind: "list",
    wanted: `a list of ${wanted}, at most ${entriesMax}`,
    description,
    preset: [...preset],
    misfit(value) {
      if (!Array.isArray(value)) return "type";
      if (value.length > entriesMax) return "range";
      const at = value.findIndex((one) => misfitOfText(one, entry) !== undefined);
      return at < 0 ? undefined : { entry: at };
    },
    keywords: { maxItems: entriesMax, type: "array", items: textKeywords(entry) },
  };
}

/** All settings of a section and those below it, by path with dots, in order. */
export function settingsOf(section: Section): ReadonlyMap<string, Setting<unknown>> {
  const out = new Map<string, Setting<unknown>>();
  const walk = (at: Section, prefix: string) => {
    for (const [name, one] of Object.entries(at)) {
      if (isSetting(one)) out.set(prefix + name, one);
      else walk(one, `${prefix}${name}.`);
    }
  };
  walk(section, "");
  return out;
}

/** A section as JSON Schema, draft 2020-12. Every section may be left out, and nothing else may be in one. */
export function jsonSchemaOf(section: Section): Readonly<Record<string, unknown>> {
  const properties = Object.entries(section).map(([name, one]) => {
    if (!isSetting(one)) return [name, { default: {}, ...jsonSchemaOf(one) }];
    const { preset, description, keywords } = one;
    return [name, { ...(preset === undefined ? {} : { default: preset }), description, ...keywords }];
  });
  return { type: "object", properties: Object.fromEntries(properties), additionalProperties: false };
}

function isSetting(one: Setting<unknown> | Section): one is Setting<unknown> {
  return typeof one.misfit === "function";
}

function misfitOfText(value: unknown, rules: TextRules): Misfit | undefined {
  const { charsMin = 0, charsMax = Infinity, pattern, check } = rules;
  if (typeof value !== "string") return "type";
  if (value.length < charsMin || value.length > charsMax) return "range";
  if (pattern && !pattern.test(value)) return "value";
  return check && !check(value) ? "value" : undefined;
}

function textKeywords({ charsMin, charsMax, pattern }: TextRules): Readonly<Record<string, unknown>> {
  return {
    type: "string",
    ...(charsMin === undefined ? {} : { minLength: charsMin }),
    ...(charsMax === undefined ? {} : { maxLength: charsMax }),
    ...(pattern ? { pattern: pattern.source } : {}),
  };
}
