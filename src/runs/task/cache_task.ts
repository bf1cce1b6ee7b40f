/**
 * Making the caches of teachers as a run of its own.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, join } from "@std/path";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { DataWarning } from "../../distill/inputs/data_warnings.ts";
import type { RunResult } from "../../distill/export/exports.ts";
import type { RunHost } from "../../distill/run/events.ts";
import { passesOf } from "../../distill/recipe/teachers.ts";
import { fillCaches } from "../../distill/run/fill_cache.ts";
import { openRecipe } from "../../distill/run/open_recipe.ts";
import { headChunks } from "../../distill/program/plan_training.ts";
import { planTeacherPass } from "../../distill/teacher/plan_pass.ts";
import { setupOf } from "../../distill/teacher/teacher_targets.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Plan } from "../../tensor/plan.ts";
import { TunedDevices } from "../../tune/tuned_devices.ts";
import type { CacheTask } from "./cache_recipe.ts";
import type { Work } from "./work.ts";

/** Where a run keeps its own caches. */
const OWN_FOLDER = "teacher-cache";

/** Makes what is missing of the cache. What an earlier attempt has made is not made again. */
export async function cacheTeacher(
  { recipe }: CacheTask,
  { folder, registry, caches, gpu, tuning, emit }: RunHost,
  work: Work,
): Promise<{ paths: RunResult["paths"]; findings: Readonly<Record<string, unknown>> }> {
  work.stage("cache", "reading models and data");
  return await openRecipe(recipe, registry, async (opened) => {
    for (const warning of opened.warnings) emit({ type: "warning", ...warning });
    let [done, total, whose] = [0, 1, ""];
    const tell = () => work.progress({ done, total, message: `${whose}${done} of ${total} samples` });
    const filled = await fillCaches(opened, {
      place: caches ?? join(folder, OWN_FOLDER),
      signal: work.signal,
      ...(gpu ? { gpu } : {}),
      devices: new TunedDevices(tuning?.kept),
      onStage: (message) => work.stage("cache", message),
      onSlice: tell,
      onProgress(samples, all, teacher) {
        [done, total, whose] = [samples, all, teacher === undefined ? "" : `${teacher}: `];
        tell();
      },
    });
    const found = filled.map(({ path, ...found }) => ({ name: basename(path), ...found }));
    const findings = recipe.teacher.teachers ? { caches: found } : { cache: found[0]! };
    return { paths: {}, findings };
  });
}

/** What can be told of it without doing it. */
export async function previewCache(
  { recipe }: CacheTask,
  registry: Registry,
  device?: DeviceDescription,
): Promise<{ warnings: readonly DataWarning[]; plan?: Plan }> {
  return await openRecipe(recipe, registry, ({ setup, warnings }) => {
    if (!device) return { warnings };
    const choices = headChunks(recipe.train, setup.student.config.vocabularySize, device);
    const plans = passesOf(recipe.teacher).map((i) =>
      planTeacherPass(setupOf(setup, i), device, { choices, texts: undefined }).plan
    );
    // One teacher after another: there must be room for the largest.
    const [plan] = plans.toSorted((a, b) => b.totalBytes - a.totalBytes);
    return { warnings, ...(plan ? { plan } : {}) };
  });
}
