// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { distillRun } from "../../src/distill/run/distill.ts";
import type { RunEventBody, RunHost } from "../../src/distill/run/events.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { type TinyFiles, tinyRecipe, withTiny } from "./tiny_model.ts";

/** Runs the tiny recipe in this process. */
async function run(files: TinyFiles, host: Partial<RunHost>, steps = 3) {
  const events: RunEventBody[] = [];
  const folder = `${files.folder}/run`;
  await Deno.mkdir(folder);
  const recipe = tinyRecipe(files, { train: { steps }, samples: { tokens: 0 } });
  const result = await distillRun(recipe, {
    folder,
    resume: false,
    resumeLimit: -1,
    registry: new Registry().addAll(builtins),
    emit: (event) => event.type !== "heartbeat" && events.push(event),
    control: () => "run",
    ...host,
  });
  return { events, result, folder };
}

Deno.test("distillRun() stops before the first step when asked to, and leaves nothing half-done", () =>
  withTiny(async (files) => {
    const { events, result, folder } = await run(files, { control: () => "stop" });
    assertEquals([result.status, result.steps, result.paths], ["paused", 0, {}]);
    assertEquals(events.filter(({ type }) => ["metrics", "checkpoint", "evaluation"].includes(type)), []);
    assertEquals([...Deno.readDirSync(folder)].filter(({ name }) => name.startsWith(".")), []);
  }));

Deno.test("distillRun() measures each kernel of training when it is to be profiled", () =>
  withTiny(async (files) => {
    const { events } = await run(files, { profile: true });
    const { kernels } = events.find((event) => event.type === "profile")!;
    const adamw = kernels.find(({ kernel }) => kernel.startsWith("adamw"))!;
    assertEquals(adamw.launches % 3, 0, "three steps, and nothing from before them");
    assert(kernels.every(({ milliseconds, launches }) => milliseconds >= 0 && launches > 0));
    assert(kernels.some(({ milliseconds }) => milliseconds > 0));
    assertEquals(kernels, kernels.toSorted((a, b) => b.milliseconds - a.milliseconds));
  }));
