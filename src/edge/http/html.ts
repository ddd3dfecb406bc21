/**
 * HTML from template strings, escaped unless it is already HTML.
 *
 * @module
 */

/** Text that is HTML already. Only {@linkcode html} and {@linkcode raw} make it. */
export class Html {
  /** The markup. */
  readonly text: string;

  /** @param text Trusted markup. */
  constructor(text: string) {
    this.text = text;
  }

  /** The markup. */
  toString(): string {
    return this.text;
  }
}

/** What a template takes: `false`, `null` and `undefined` give nothing, arrays are joined. */
export type HtmlValue = Html | string | number | boolean | null | undefined | readonly HtmlValue[];

/** Text for an element or a quoted attribute. */
export function escapeHtml(text: string): string {
  return /[&<>"'`]/.test(text) ? text.replace(/[&<>"'`]/g, (char) => `&#${char.charCodeAt(0)};`) : text;
}

/** Markup that the program itself wrote; never outside input. */
export function raw(text: string): Html {
  return new Html(text);
}

/** Builds {@linkcode Html}; every value is escaped unless it is `Html`. Attributes must be quoted. */
export function html(strings: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  const parts = compact(strings);
  let text = parts[0] ?? "";
  values.forEach((value, index) => text += render(value) + (parts[index + 1] ?? ""));
  return new Html(text);
}

const compacted = new WeakMap<TemplateStringsArray, readonly string[]>();

/** Indentation of the source is not worth sending: white space around a line break is one line break. */
function compact(strings: TemplateStringsArray): readonly string[] {
  let parts = compacted.get(strings);
  if (!parts) {
    parts = strings.map((part) => part.replace(/\s*\n\s*/g, "\n"));
    compacted.set(strings, parts);
  }
  return parts;
}

function render(value: HtmlValue): string {
  if (value instanceof Html) return value.text;
  if (typeof value === "string") return escapeHtml(value);
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return value.map(render).join("");
  return "";
}
