/** Runs of the fake trainer in temporary folders. */
import { type Recipe } from "../../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { RunEvent } from "../../src/distill/run/events.ts";
import { adoptRun, createRun, type LockedRun, openRun } from "../../src/runs/store/run_folder.ts";
import {
  type SupervisedRun,
  type SuperviseOptions,
  superviseRun,
} from "../../src/runs/supervise/supervisor.ts";
import type { Fault } from "./fake_trainer.ts";
import { closeTestStore, testStore } from "./test_store.ts";

export const fakeEntry = import.meta.resolve("./fake_trainer.ts");

/** Calls `fn` with a fresh folder holding `data/` and `runs/`, and removes it. */
export async function withFolder(fn: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    await Deno.mkdir(`${folder}/data/model`, { recursive: true });
    await Deno.mkdir(`${folder}/runs`);
    await Deno.writeTextFile(`${folder}/data/train.jsonl`, '{"text":"once"}\n');
    await fn(folder);
  } finally {
    closeTestStore(folder);
    await Deno.remove(folder, { recursive: true });
  }
}

/** A recipe for the fake trainer. */
export function fakeRecipe(folder: string, fault: Fault = {}, steps = 12): Recipe {
  return parseRecipe({
    teacher: { model: `${folder}/data/model` },
    student: { model: "teacher" },
    data: { train: `${folder}/data/train.jsonl` },
    objective: [{ loss: "cross-entropy", options: fault }],
    train: { steps, warmup: 0 },
  });
}

/** A run under supervision and the events it has said so far. */
export interface FakeRun {
  run: LockedRun;
  events: RunEvent[];
  supervised: SupervisedRun;
  /** Fulfilled with the first event that fits; also looks back. */
  until(fits: (event: RunEvent) => boolean): Promise<RunEvent>;
}

/** Makes and starts a run. */
export async function startFake(
  folder: string,
  fault: Fault = {},
  options: Partial<SuperviseOptions> & { plugins?: string[]; steps?: number } = {},
): Promise<FakeRun> {
  const { plugins, steps, ...rest } = options;
  const run = await createRun({
    recipe: fakeRecipe(folder, fault, steps),
    store: testStore(folder),
    plugins,
  });
  return await watch(run, rest, 0);
}

/** Resumes a run. */
export async function resumeFake(
  run: Pick<LockedRun, "folder" | "store">,
  options: Partial<SuperviseOptions> = {},
): Promise<FakeRun> {
  const before = (await adoptRun(run.folder, run.store)).seq;
  return await watch(await openRun(run.folder, run.store), { resume: true, ...options }, before);
}

async function watch(run: LockedRun, options: Partial<SuperviseOptions>, seen: number): Promise<FakeRun> {
  // What was said of it before it was watched.
  const events: RunEvent[] = await run.store.events(run.id, { after: seen });
  const waiting: { fits: (event: RunEvent) => boolean; resolve: (event: RunEvent) => void }[] = [];
  const supervised = superviseRun({
    run,
    entry: fakeEntry,
    graceSeconds: 1,
    ...options,
    onEvent(event) {
      events.push(event);
      for (const { fits, resolve } of waiting) if (fits(event)) resolve(event);
    },
  });
  supervised.outcome.then(run.release, run.release);
  return {
    run,
    events,
    supervised,
    until: (fits) => {
      const found = events.find(fits);
      return found ? Promise.resolve(found) : new Promise((resolve) => waiting.push({ fits, resolve }));
    },
  };
}
