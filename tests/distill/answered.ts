/**
 * A model that is here in the place of servers: it fills the caches of a recipe's served teachers as a server would that has it and tells f32.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import { writeHeadFolder } from "../../src/distill/export/head_folder.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { servedHeadPath } from "../../src/distill/inputs/served_teacher.ts";
import { headChunks } from "../../src/distill/program/plan_training.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { keepsPart, recipeOfTeacher, servedTeachers } from "../../src/distill/recipe/teachers.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { CacheFolder } from "../../src/distill/teacher/cache_folder.ts";
import { CacheWriter } from "../../src/distill/teacher/cache_writer.ts";
import { openTeacherCache, wantedCache } from "../../src/distill/teacher/make_cache.ts";
import { sampleLosses } from "../../src/distill/teacher/measure_samples.ts";
import { keepLosses, lossKey, measuredTokens } from "../../src/distill/teacher/sample_losses.ts";
import { preparedOf, setupOf } from "../../src/distill/teacher/teacher_targets.ts";
import { exists, openFile } from "../../src/formats/files.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { Registry } from "../../src/registry/registry.ts";

/** @param model A folder: what every server of the recipe has; its caches all have a folder */
export async function answerAs(gpu: Gpu, recipe: Recipe, model: string): Promise<void> {
  const registry = new Registry().addAll(builtins);
  for (const { index } of servedTeachers(recipe.teacher)) {
    const one = recipeOfTeacher(recipe, index);
    const head = servedHeadPath(one.teacher);
    if (head !== undefined && !await exists(head)) await writeHeadFolder(model, head);
    const { server: _, ...teacher } = one.teacher;
    const here = await prepareRun({ ...one, teacher: { ...teacher, model } });
    const served = await prepareRun(recipe);
    try {
      const setup = setUp(here, registry);
      const choices = headChunks(recipe.train, setup.student.config.vocabularySize, gpu.description);
      const nothing = { onSlice() {}, onFound() {}, onPlanned() {} };
      (await openTeacherCache(gpu, here, setup, { choices, texts: undefined }, [], nothing))!.cache.close();
      const made = (await wantedCache(here, setup, []))!;
      const of = setupOf(setUp(served, registry), index);
      const wanted = (await wantedCache(preparedOf(served, index), of, []))!;
      const from = await CacheFolder.open(made.place, made.origin);
      const to = await CacheFolder.open(wanted.place, wanted.origin);
      const writer = new CacheWriter(to);
      for (const key of wanted.keys.values()) {
        const entry = from.entry(key.hash);
        if (!entry) continue;
        const file = await openFile(entry.shard);
        await writer.put(key, await file.read(entry.begin, entry.bytes));
        file.close?.();
      }
      await writer.flush();
      if (!keepsPart(teacher.cache)) continue;
      const samples = [...here.train, ...here.heldOut];
      const losses = await sampleLosses(gpu, here, setup, samples, { caches: [], choices }, () => {});
      const named = samples.map((sample, i) =>
        [lossKey(sample.ids, measuredTokens(sample)), losses[i]!] as const
      );
      await keepLosses(to, new Map(named));
    } finally {
      here.close();
      served.close();
    }
  }
}
