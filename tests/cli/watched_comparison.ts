/** Continues a comparison of the fake trainer as the command line does, in a process of its own, so that it can be sent signals. */
import { FlagReader } from "../../src/cli/command.ts";
import { runComparison } from "../../src/cli/verbs/compare.ts";
import { Output, processTerminal } from "../../src/cli/terminal/output.ts";
import { fakeEntry } from "../runs/fake_run.ts";

const flags = new FlagReader({ resume: Deno.args[0], "no-setup": true });
const out = new Output(processTerminal(), false);
Deno.exit(await runComparison({ args: [], flags, out }, fakeEntry));
