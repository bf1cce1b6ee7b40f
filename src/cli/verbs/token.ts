/**
 * `limbeck token`
 *
 * @module
 */
import { newToken, type Scope, SCOPES } from "../../server/auth/tokens.ts";
import { UsageError } from "../../base/errors.ts";
import type { Command, Invocation } from "../command.ts";

/** Makes a token of a service. */
export const token: Command = {
  name: "token",
  usage: "NAME",
  positional: [1, 1],
  details:
    "Prints a line for the token file of `limbeck serve --tokens FILE`. The token itself is told once, on stderr: the file holds only its " +
    "hash. read looks, submit also begins runs and controls those of its own, admin controls all.",
  flags: { scope: { value: "SCOPE", help: `What it allows: ${SCOPES.join(", ")} (default submit)` } },
  examples: ["limbeck token ada >> tokens", "limbeck token grafana --scope read >> tokens"],
  run({ args, flags, out }: Invocation): Promise<number> {
    const scope = flags.text("scope") ?? "submit";
    if (!SCOPES.includes(scope as Scope)) {
      throw new UsageError(`--scope must be one of ${SCOPES.join(", ")}, not "${scope}"`);
    }
    const { secret, line } = newToken(args[0]!, scope as Scope);
    out.value({ name: args[0], scope, token: secret, line });
    out.line(line);
    if (!out.json) out.terminal.stderr(`The token of ${args[0]}, which is not shown again: ${secret}\n`);
    return Promise.resolve(0);
  },
};
