/**
 * What a run has trained, from its last checkpoint, for exports after the run.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../errors.ts";
import type { Registry } from "../registry/registry.ts";
import { ModelAdapter } from "./adapter.ts";
import { type AdapterForm, type AdapterOrigin, writeAdapter } from "./adapter_files.ts";
import { listCheckpoints, readCheckpoint } from "./checkpoint.ts";
import { adapterOrigin, writeMerged } from "./exports.ts";
import { openStudent } from "./prepare.ts";
import type { Recipe } from "./recipe.ts";
import { Trainables } from "./trainables.ts";

/** What {@linkcode exportRun} writes. */
export type RunExport = AdapterForm | "merged";

/**
 * Writes the adapter of a run, or its student with the adapter merged in, as of the last checkpoint.
 *
 * @param folder The run's folder
 * @param about What a GGUF file says of itself
 * @returns Steps the run had done
 * @throws {InputError} without a checkpoint, for an adapter that does not exist in that form, or where `output` is there already
 */
export async function exportRun(
  folder: string,
  recipe: Recipe,
  registry: Registry,
  output: string,
  target: RunExport,
  about: Pick<AdapterOrigin, "name" | "about"> = {},
): Promise<number> {
  if (await Deno.lstat(output).then(() => true, () => false)) {
    throw new InputError("is already there", { where: output, hint: "choose another name, or remove it" });
  }
  const last = (await listCheckpoints(join(folder, "checkpoints"))).at(-1);
  if (!last) {
    throw new InputError("the run has no checkpoint to export from", {
      where: folder,
      hint: "let it run on: `limbeck resume`",
    });
  }
  const student = await openStudent(recipe);
  try {
    const plugin = registry.get("adapter", recipe.adapter.type);
    const options = registry.options(plugin, recipe.adapter.options, "adapter.options");
    const adapter = new ModelAdapter(plugin, recipe.adapter, options, student);
    const { layout } = new Trainables([adapter]);
    const { flat, state } = await readCheckpoint(last.path, layout);
    const values = await adapter.namedValues(layout.gather(flat.parameters), recipe.train.seed);
    if (target === "merged") await writeMerged(output, student, adapter, values);
    else {
      const origin = { ...adapterOrigin(folder, student, recipe), ...about };
      await writeAdapter(output, adapter, values, origin, target);
    }
    return state.step;
  } finally {
    student.close();
  }
}
