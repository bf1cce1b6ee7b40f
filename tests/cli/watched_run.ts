/** Watches a run of the fake trainer as the command line does, in a process of its own, so that it can be sent signals. */
import { FlagReader } from "../../src/cli/command.ts";
import { Output, processTerminal } from "../../src/cli/terminal/output.ts";
import { watchRun } from "../../src/cli/terminal/watch_run.ts";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { fakeEntry, fakeRecipe } from "../runs/fake_run.ts";
import { testStore } from "../runs/test_store.ts";

const [folder, fault] = Deno.args;
const run = await createRun({
  recipe: fakeRecipe(folder, JSON.parse(fault), 1000),
  store: testStore(folder),
});
const out = new Output(processTerminal(), false);
Deno.exit(
  await watchRun(run, { resume: false, entry: fakeEntry }, { args: [], flags: new FlagReader({}), out }),
);
