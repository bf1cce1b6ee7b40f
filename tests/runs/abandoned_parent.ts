/** Starts a run so slow that nothing is on its way when this process is killed, says where, and waits for that. */
import { startFake } from "./fake_run.ts";

const { run, supervised, until } = await startFake(Deno.args[0], { pace: 150 }, { steps: 30 });
await until((event) => event.type === "metrics" && event.step === 7);
console.log(run.folder);
await supervised.outcome;
