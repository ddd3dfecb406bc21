/** The guide to the command line, made of its own help, so that the two cannot differ. @module */

import type { Command } from "commander";
import { SETTINGS, variableOf } from "../edge/config.ts";
import { EXIT_MEANINGS } from "./exit.ts";

const INTRODUCTION = `# The command line

<!-- Made by tools/cli_guide.ts from the program's own help; a test compares the two. -->

\`mycelium\` runs a node and talks to one. \`mycelium up\` and, where no agent runs, \`init\` and \`join\` run the node of this
machine in the foreground; all other commands talk to the agent that runs, over its unix socket.

**Where the agent is.** \`--socket\`, else \`agent.sock\` in \`--state\`, else the variable \`MYCELIUM_SOCKET\`, else that of
\`MYCELIUM_STATE\`. Where none of them is given: \`./mycelium-data\`, \`~/.local/share/mycelium\` (or \`XDG_DATA_HOME\`),
\`/run/mycelium\`, \`/var/lib/mycelium\`; the first that answers is taken.

**Who you are.** Who may use the socket may do everything. \`mycelium login\` makes you an operator to this agent, \`--url\` (or
\`MYCELIUM_URL\`) speaks to the agent of another machine, where you have to be one. Variables: \`MYCELIUM_TOKEN_FILE\`, a service token in a
file, in place of a session; \`MYCELIUM_CODE\`, a code of the second factor; \`MYCELIUM_SESSIONS\`, the folder of the sessions;
\`MYCELIUM_CA\`, a file with a certificate to trust. See [access](access.md).

**Output.** Results go to stdout; progress, notes, warnings and errors to stderr. Every command takes \`--json\`: one
document, or one a line where it is a stream (\`status --watch\`, \`exec\`, \`logs\`). With \`--json\` an error is
\`{"error": {"code", "message", "cure"}}\` on stdout. Colours and the moving line appear on a terminal only, and not with
\`--no-color\`, \`NO_COLOR\` or \`TERM=dumb\`. \`--quiet\` leaves results, errors and warnings.

**Documents of \`--json\`.** \`status\`: the document of \`/status\` (see \`/openapi.json\`). \`peers\`: its \`members\`. \`node list\`:
its \`members\` and \`pending\`. \`invite list\`: its \`invites\`. \`invite create\`: \`token\`, \`id\`, \`expiresMs\`. \`up\`, once ready:
\`event\`, \`nodeId\`, \`networkId\`, \`networkName\`, \`statusUrl\`, \`socket\`, \`invite\`, \`inviteExpiresMs\`. \`join\`: \`stage\`, \`nodeId\`,
\`role\`, \`networkId\`, \`networkName\`, \`members\`. \`doctor\`: \`ready\`, \`stage\`, \`findings\` (each with \`severity\`, \`code\`, \`what\`,
\`tried\`, \`cure\`), \`checked\`. \`config show\`: \`config\`, \`origins\`. \`config validate\`: \`valid\`, \`files\`, \`warnings\`, \`problems\`.
\`version\`: \`version\`, \`commit\`, \`builtAt\`, \`runtime\`, and \`agent\` where one runs. \`exec\`: lines of \`type\` \`output\`, \`error\` or
\`end\`. Others: what the agent answered. Fields are added, never renamed. Times are milliseconds since the epoch.

**Invites are secrets.** What stands on a command line can be seen by everybody on the machine (\`ps\`): pass an invite by
stdin (\`mycelium join -\`), by \`--invite-file\`, or by the variable \`MYCELIUM_INVITE\`.

**Dangerous commands** (\`node remove\`, \`bootstrap reset\`, \`leave\`, \`genesis export\`, \`genesis recover\`; \`exec\` with \`leave\` or \`isolate\`) ask on a
terminal. Where there is none they refuse unless \`--yes\` is given; all but \`exec\` and \`genesis recover\` take \`--dry-run\`.
`;

/** The whole guide, Markdown. */
export function guide(program: Command): string {
  const codes = EXIT_MEANINGS.map(([code, meaning]) => `| ${code} | ${meaning} |`);
  const settings = [...SETTINGS].map(([name, schema]) =>
    `| \`${name}\` | \`${variableOf(name)}\` | ${schema.description ?? ""} |`
  );
  return [
    INTRODUCTION,
    "## Exit codes\n",
    "| code | meaning |",
    "|---|---|",
    ...codes,
    "\n## Commands\n",
    ...sections(program, "mycelium"),
    "## Settings\n",
    "From `/etc/mycelium/config.yaml` (or `--config`, or `MYCELIUM_CONFIG`), `config.d/*.yaml` beside it, variables and flags; " +
    "later ones win. Lists in variables are split at commas. `mycelium config schema` prints the JSON Schema, `mycelium config " +
    "show --origin` where each value came from.\n",
    "| setting | variable | meaning |",
    "|---|---|---|",
    ...settings,
    "",
  ].join("\n");
}

function sections(command: Command, path: string): string[] {
  return command.createHelp().visibleCommands(command).filter((one) => one.name() !== "help").flatMap((one) => {
    const name = `${path} ${one.name()}`;
    if (one.commands.length > 0) return sections(one, name);
    let text = "";
    one.configureOutput({
      ...one.configureOutput(),
      writeOut: (part) => void (text += part),
      getOutHelpWidth: () => 100,
    });
    one.configureHelp({ ...one.configureHelp(), showGlobalOptions: false });
    one.outputHelp();
    return [`### ${name}\n`, "```text", text.trimEnd(), "```\n"];
  });
}
