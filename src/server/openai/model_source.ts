/**
 * Where a model that is to be tried lies.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { familiesOf } from "../../registry/families.ts";
import type { InferenceModel } from "../../runs/child/inference.ts";
import { distillationOf } from "../../runs/task/run_recipe.ts";
import { HttpError } from "../http/http_error.ts";
import { keptCheckpoints, parseRunModel } from "../run_model.ts";
import type { Service } from "../service.ts";

/**
 * What a model's name stands for: a path; or a run's student as of a checkpoint, where that is not merged.
 *
 * @throws {HttpError} 404 there is no such model, or no such checkpoint
 */
export async function sourceOf(
  service: Service,
  name: string,
): Promise<{ model: InferenceModel; plugins?: string[] }> {
  const path = await service.catalogue.model(name);
  if (path !== undefined) {
    // A model of a plugin's family can be read by that plugin alone.
    const needs = familiesOf(service.registry).length > 0;
    return { model: { path }, ...(needs ? { plugins: service.plugins.map(({ path }) => path) } : {}) };
  }
  const made = parseRunModel(name);
  const run = made && await service.store.get(made.run);
  if (!run) {
    throw new HttpError(404, `there is no model "${name}"; GET /v1/models lists them`, {
      code: "unknown_model",
      param: "model",
    });
  }
  const kept = await keptCheckpoints(service.store, run);
  const { step } = made;
  if (step === undefined ? kept.length === 0 : !kept.some((checkpoint) => checkpoint.step === step)) {
    const steps = kept.map((checkpoint) => checkpoint.step).join(", ");
    const what = kept.length === 0 ? "no checkpoint" : `no checkpoint of step ${step}, only of ${steps}`;
    throw new HttpError(404, `run ${run.id} has ${what}`, { code: "unknown_model", param: "model" });
  }
  // The process reads the run's folder, so its recipe there must be the one that is told.
  await Deno.stat(join(run.folder, "recipe.json"));
  const plugins = run.manifest.plugins.map((plugin) => plugin.path);
  const { folder } = run;
  const recipe = distillationOf(run.recipe, run.id);
  return { model: { folder, recipe, ...(step === undefined ? {} : { step }) }, plugins };
}
