/**
 * Starts a child that is to outlive this process, which a test kills: a run so slow that nothing is on its way then, whose folder is
 * printed; or a child of some kind that never ends.
 */
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { Inspector } from "../../src/runs/child/inspection.ts";
import { inspectPlugins } from "../../src/runs/child/plugin_check.ts";
import { startFake } from "./fake_run.ts";

const [kind, given] = Deno.args as [string, string];
switch (kind) {
  case "run": {
    const { run, supervised, until } = await startFake(given, { pace: 150 }, { steps: 30 });
    await until((event) => event.type === "metrics" && event.step === 7);
    console.log(run.folder);
    await supervised.outcome;
    break;
  }
  case "a run that hangs":
  case "a run that speaks": {
    const fault = kind === "a run that hangs" ? { hangAt: 2 } : { deaf: true, pace: 100 };
    const { supervised, until } = await startFake(given, fault, { steps: 1000, watchdogSeconds: 3 });
    const pid = await until((event) => event.type === "warning" && event.code === "pid");
    await until((event) => event.type === "metrics" && event.step === 2);
    console.log(pid.type === "warning" && pid.message);
    await supervised.outcome;
    break;
  }
  case "a check of plugins":
    await inspectPlugins({ files: [given], ids: [], check: false, options: {}, timeoutSeconds: 300 });
    break;
  case "a look at a recipe": {
    const recipe = parseRecipe(JSON.parse(await Deno.readTextFile(given)));
    await new Inspector().inspect({ kind: "validate", recipe }, { timeoutSeconds: 300 });
  }
}
