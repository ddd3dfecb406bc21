/** `completion`: scripts for shells, made by walking the commands. @module */

import { Argument, type Command, type Option } from "commander";
import { COMMAND_VERBS } from "../../agent/commands.ts";
import { ROLES } from "../../core/roles.ts";
import type { Register } from "../context.ts";
import { EXIT } from "../exit.ts";
import { examples } from "./up.ts";

/** Shells that a script can be had for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** A command in the form that the scripts need. */
interface Word {
  /** Words that lead here, separated by spaces; empty for the program. */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly summary: string }[];
  readonly flags: readonly {
    readonly name: string;
    readonly summary: string;
    readonly takes: "nothing" | "file" | readonly string[];
  }[];
  /** First argument, where its words are known. */
  readonly values: readonly string[];
  readonly files: boolean;
}

/** Adds the command. */
export function registerCompletion(program: Command, register: Register): void {
  const completion = program.command("completion").addArgument(
    new Argument("<shell>", "which shell").choices([...SHELLS]),
  )
    .summary("script that completes commands in a shell");
  examples(completion, [
    ["source <(mycelium completion bash)", "in ~/.bashrc"],
    ['mycelium completion zsh > "${fpath[1]}/_mycelium"', ""],
    ["mycelium completion fish > ~/.config/fish/completions/mycelium.fish", ""],
  ]);
  register(completion, (context, args) => {
    context.out.line(completionScript(program, args[0] as typeof SHELLS[number]).trimEnd());
    return Promise.resolve(EXIT.ok);
  });
}

/** The script for a shell. */
export function completionScript(program: Command, shell: typeof SHELLS[number]): string {
  const words = walk(program, program, "");
  if (shell === "bash") return bash(words);
  return shell === "zsh" ? zsh(words) : fish(words);
}

function walk(program: Command, command: Command, path: string): Word[] {
  const visible = command.commands.filter((one) =>
    !(one as unknown as { _hidden?: boolean })._hidden && one.name() !== "help"
  );
  const own = command.createHelp().visibleOptions(command);
  const flags = command === program ? own : [...own, ...program.createHelp().visibleOptions(program)];
  const known = new Map(flags.filter((one) => one.long).map((one) => [one.long!, one]));
  const first = command.registeredArguments[0];
  return [
    {
      path,
      commands: visible.map((one) => ({ name: one.name(), summary: one.summary() || one.description() })),
      flags: [...known.values()].map((one) => ({ name: one.long!, summary: one.description, takes: takesOf(one) })),
      values: first?.argChoices ?? (first?.name() === "verb" ? [...COMMAND_VERBS] : []),
      files: first !== undefined && /file/.test(first.name()),
    },
    ...visible.flatMap((one) => walk(program, one, path === "" ? one.name() : `${path} ${one.name()}`)),
  ];
}

function takesOf(option: Option): "nothing" | "file" | readonly string[] {
  if (!option.required && !option.optional) return "nothing";
  if (/file|state|socket|config/.test(option.long ?? "")) return "file";
  if (option.long === "--role") return ["auto", ...ROLES];
  if (option.long === "--log-level") return ["debug", "info", "warn", "error"];
  if (option.long === "--log-format") return ["auto", "text", "json"];
  return option.argChoices ?? [];
}

function bash(words: readonly Word[]): string {
  const cases = words.map((word) => {
    const list = [...word.commands.map((one) => one.name), ...word.values].join(" ");
    const flags = word.flags.map((one) => one.name).join(" ");
    return `    "${word.path}") words="${list}"; flags="${flags}"; files=${word.files ? 1 : 0} ;;`;
  });
  const all = new Map(words.flatMap((word) => word.flags.map((one) => [one.name, one.takes] as const)));
  const values = [...all].filter(([, takes]) => takes !== "nothing").map(([name, takes]) =>
    takes === "file"
      ? `    ${name}) COMPREPLY=($(compgen -f -- "$current")); return ;;`
      : `    ${name}) COMPREPLY=($(compgen -W "${(takes as readonly string[]).join(" ")}" -- "$current")); return ;;`
  );
  const valued = [...all].filter(([, takes]) => takes !== "nothing").map(([name]) => name).join("|");
  const commands = words.filter((word) => word.path !== "").map((word) => `"${word.path}"`).join("|");
  return `# bash completion for mycelium; load it with: source <(mycelium completion bash)
_mycelium() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}"
  local path="" word next words flags files i
  COMPREPLY=()
  case "$previous" in
${values.join("\n")}
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    case "$word" in
      ${valued}) ((i++)); continue ;;
      -*) continue ;;
    esac
    next="\${path:+$path }$word"
    case "$next" in
      ${commands}) path="$next" ;;
    esac
  done
  case "$path" in
${cases.join("\n")}
  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$current"))
  elif ((files)); then
    COMPREPLY=($(compgen -f -- "$current"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}
complete -o filenames -F _mycelium mycelium
`;
}

function zsh(words: readonly Word[]): string {
  const quote = (text: string) => text.replaceAll("'", "'\\''").replaceAll(/[:\[\]]/g, "\\$&");
  const cases = words.map((word) => {
    const items = [
      ...word.commands.map((one) => `'${quote(one.name)}:${quote(one.summary)}'`),
      ...word.values.map((one) => `'${quote(one)}'`),
    ];
    const flags = word.flags.map((one) => `'${quote(one.name)}:${quote(one.summary)}'`);
    return `    '${word.path}') words_=(${items.join(" ")}); flags_=(${flags.join(" ")}); files_=${
      word.files ? 1 : 0
    } ;;`;
  });
  const all = new Map(words.flatMap((word) => word.flags.map((one) => [one.name, one.takes] as const)));
  const values = [...all].filter(([, takes]) => takes !== "nothing").map(([name, takes]) =>
    takes === "file"
      ? `    ${name}) _files; return ;;`
      : `    ${name}) compadd -- ${(takes as readonly string[]).join(" ")}; return ;;`
  );
  const valued = [...all].filter(([, takes]) => takes !== "nothing").map(([name]) => name).join("|");
  const commands = words.filter((word) => word.path !== "").map((word) => `'${word.path}'`).join("|");
  return `#compdef mycelium
# zsh completion for mycelium; put it into a folder of $fpath as _mycelium
_mycelium() {
  local path_='' word next i files_=0
  local -a words_ flags_
  case "$words[CURRENT-1]" in
${values.join("\n")}
  esac
  for ((i = 2; i < CURRENT; i++)); do
    word="$words[i]"
    case "$word" in
      ${valued}) ((i++)); continue ;;
      -*) continue ;;
    esac
    next="\${path_:+$path_ }$word"
    case "$next" in
      ${commands}) path_="$next" ;;
    esac
  done
  case "$path_" in
${cases.join("\n")}
  esac
  if [[ "$words[CURRENT]" == -* ]]; then
    _describe 'flag' flags_
  elif ((files_)); then
    _files
  elif ((\${#words_})); then
    _describe 'command' words_
  fi
}
if [[ "$funcstack[1]" == _mycelium ]]; then _mycelium "$@"; else compdef _mycelium mycelium; fi
`;
}

function fish(words: readonly Word[]): string {
  const quote = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const all = new Map(words.flatMap((word) => word.flags.map((one) => [one.name, one.takes] as const)));
  const valued = [...all].filter(([, takes]) => takes !== "nothing").map(([name]) => name).join(" ");
  const commands = words.filter((word) => word.path !== "").map((word) => quote(word.path)).join(" ");
  const lines = words.flatMap((word) => {
    const at = `-n ${quote(`__mycelium_at ${word.path === "" ? '""' : `"${word.path}"`}`)}`;
    return [
      ...word.commands.map((one) => `complete -c mycelium -f ${at} -a ${one.name} -d ${quote(one.summary)}`),
      ...(word.values.length > 0 ? [`complete -c mycelium -f ${at} -a ${quote(word.values.join(" "))}`] : []),
      ...word.flags.map((one) => {
        const takes = one.takes === "nothing"
          ? "-f"
          : one.takes === "file"
          ? "-r -F"
          : `-x${one.takes.length > 0 ? ` -a ${quote(one.takes.join(" "))}` : ""}`;
        return `complete -c mycelium ${at} -l ${one.name.slice(2)} ${takes} -d ${quote(one.summary)}`;
      }),
      ...(word.files ? [`complete -c mycelium ${at} -F`] : []),
    ];
  });
  return `# fish completion for mycelium; put it into ~/.config/fish/completions/mycelium.fish
function __mycelium_at
  set -l path
  set -l skip 0
  for word in (commandline -opc)[2..-1]
    if test $skip = 1
      set skip 0
      continue
    end
    if string match -q -- '-*' $word
      contains -- $word ${valued}; and set skip 1
      continue
    end
    set -l next (string join ' ' $path $word)
    contains -- $next ${commands}; and set path $next
  end
  test "$path" = "$argv[1]"
end
${lines.join("\n")}
`;
}
