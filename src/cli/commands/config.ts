/** `config`: what is set, where from, whether it is right, and changing it with a way back. @module */

import type { Command } from "commander";
import {
  ConfigError,
  configJsonSchema,
  configOfFlags,
  describeOrigin,
  describeProblem,
  formatConfig,
  formatYaml,
  type LoadedConfig,
  parseConfigEnv,
  parseConfigText,
  redactConfig,
  resolveConfig,
} from "../../edge/config.ts";
import { type Context, durationFlag, type Register } from "../context.ts";
import { EXIT, usageError } from "../exit.ts";
import { readText } from "../files.ts";
import { duration, safe } from "../output.ts";
import { configOf, examples } from "./up.ts";

/** Adds the commands. */
export function registerConfig(program: Command, register: Register): void {
  const config = program.command("config").summary("show, check and change the configuration")
    .description(
      "Settings come from /etc/mycelium/config.yaml, config.d/*.yaml beside it, MYCELIUM_* variables and flags; " +
        "later ones win.",
    );

  const show = config.command("show").summary("the configuration in force, defaults filled in")
    .option("--origin", "say where each value came from")
    .option("--running", "what the running agent uses, instead of what the files say now");
  examples(show, [["mycelium config show --origin", ""], ["mycelium config show --config ./test.yaml", ""]]);
  register(show, async (context, _args, command) => {
    const flags = command.opts<{ origin?: boolean; running?: boolean }>();
    const { out } = context;
    if (flags.running) {
      using client = await context.agent();
      const result = await client.control({ verb: "config-get" });
      const { version, config: running } = (result ?? {}) as { readonly version?: unknown; readonly config?: unknown };
      if (out.json || running === undefined) out.document(result ?? {});
      else out.line(`# version ${version}\n${safe(formatYaml(running)).trimEnd()}`);
      return EXIT.ok;
    }
    const loaded = await configOf(context, command);
    if (out.json) {
      const origins = Object.fromEntries([...loaded.origins].map(([name, one]) => [name, describeOrigin(one)]));
      out.document({ config: redactConfig(loaded.config), origins });
    } else out.line(formatConfig(loaded, { origin: flags.origin === true }).trimEnd());
    for (const warning of loaded.warnings) out.warn(warning);
    return EXIT.ok;
  });

  const validate = config.command("validate").argument(
    "[files...]",
    "instead of the configuration of this machine; - is stdin",
  )
    .summary("check the configuration without using it");
  examples(validate, [["mycelium config validate", ""], ["mycelium config validate new.yaml", ""]]);
  register(validate, async (context, args, command) => {
    const { out } = context;
    try {
      const loaded = args.length === 0 ? await configOf(context, command) : await readFiles(context, args);
      if (out.json) out.document({ valid: true, files: loaded.files, warnings: loaded.warnings, problems: [] });
      else {
        for (const warning of loaded.warnings) out.warn(warning);
        out.note(`The configuration is right (${loaded.files.join(", ") || "defaults, no file"})`);
      }
      return EXIT.ok;
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      if (out.json) out.document({ valid: false, problems: error.problems });
      else for (const problem of error.problems) out.error(safe(describeProblem(problem)));
      return EXIT.usage;
    }
  });

  register(config.command("schema").summary("JSON Schema of the configuration, for editors"), async (context) => {
    context.out.document(await configJsonSchema());
    return EXIT.ok;
  });

  const attempt = config.command("try").argument("<file>", "new configuration; - is stdin")
    .summary("use a configuration, and go back unless it is confirmed")
    .description(
      "Gives the running agent a new configuration. Unless `mycelium config confirm` follows in time it goes back to " +
        "the old one by itself: a change that cuts the network off undoes itself.",
    )
    .option("--confirm-within <duration>", "time to confirm in", "2m");
  examples(attempt, [[
    "mycelium config try new.yaml && sleep 10 && mycelium status --exit-code && mycelium config confirm",
    "",
  ]]);
  register(attempt, async (context, args, command) => {
    const { out } = context;
    const confirmWithinMs = durationFlag("--confirm-within", command.opts<{ confirmWithin: string }>().confirmWithin)!;
    if (confirmWithinMs < 5_000 || confirmWithinMs > 86_400_000) {
      throw usageError("Cannot use --confirm-within: wanted between 5s and 24h");
    }
    const text = await readText(context, args[0]!);
    resolveConfig([parseConfigText(text, args[0]!)], context.deps.hostName);
    using client = await context.agent();
    const result = await client.control({ verb: "config-try", text, confirmWithinMs });
    if (out.json) out.document(result ?? {});
    else out.note(`In force for ${duration(confirmWithinMs)}. Keep it with: mycelium config confirm`);
    return EXIT.ok;
  });

  for (
    const [name, summary, done] of [
      ["confirm", "keep the configuration that is on trial", "The configuration stays"],
      ["revert", "go back to the configuration before", "The configuration before is in force again"],
    ] as const
  ) {
    register(config.command(name).summary(summary), async (context) => {
      using client = await context.agent();
      const result = await client.control({ verb: `config-${name}` });
      if (context.out.json) context.out.document(result ?? {});
      else context.out.note(done);
      return EXIT.ok;
    });
  }
}

async function readFiles(context: Context, files: readonly string[]): Promise<LoadedConfig> {
  const layers = [];
  for (const file of files) layers.push(parseConfigText(await readText(context, file), file));
  return resolveConfig([...layers, parseConfigEnv({}), configOfFlags({})], context.deps.hostName);
}
