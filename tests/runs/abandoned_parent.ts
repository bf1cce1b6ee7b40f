/** Starts a slow run, says where, and waits to be killed. */
import { startFake } from "./fake_run.ts";

const { run, supervised, until } = await startFake(Deno.args[0], { pace: 20 }, { steps: 100 });
await until((event) => event.type === "metrics" && event.step === 7);
console.log(run.folder);
await supervised.outcome;
