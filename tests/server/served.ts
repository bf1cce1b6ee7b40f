/** A service in a process of its own, with the fake trainer: `served.ts FOLDER PORT`. Prints its port; ends at SIGTERM as the command does. */
import { FlagReader } from "../../src/cli/command.ts";
import { Output, processTerminal } from "../../src/cli/terminal/output.ts";
import { runService } from "../../src/cli/verbs/serve.ts";
import { fakeEntry } from "../runs/fake_run.ts";

// Where it is exposed, garbage is collected every second, so that what is left is what is held.
const { gc } = globalThis as { gc?: () => void };
if (gc) Deno.unrefTimer(setInterval(gc, 1000));

const [folder, port] = Deno.args as [string, string];
const flags = new FlagReader({
  data: `${folder}/service`,
  models: [`${folder}/models`],
  datasets: [`${folder}/datasets`],
  port: Number(port),
  rate: 1e6,
  "no-setup": true,
  "no-example": true,
});
Deno.exit(await runService({ args: [], flags, out: new Output(processTerminal(), true) }, fakeEntry));
