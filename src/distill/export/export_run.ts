/**
 * What a run has trained, from its last checkpoint, for exports after the run.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Registry } from "../../registry/registry.ts";
import { type AdapterForm, type AdapterOrigin, writeAdapter } from "./adapter_files.ts";
import { adapterOrigin, writeMerged } from "./exports.ts";
import { MERGE } from "./modules_to_save.ts";
import type { Recipe } from "../recipe/recipe.ts";
import { RunStudent } from "../checkpoint/run_student.ts";
import { isTaken } from "../../formats/files.ts";

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
  if (await isTaken(output)) {
    throw new InputError("is already there", { where: output, hint: "choose another name, or remove it" });
  }
  const student = await RunStudent.open({ folder, recipe, registry });
  try {
    const { model, adapter, tensors } = student;
    const values = await student.values();
    if (target === "merged") await writeMerged(output, model, student, values);
    else if (adapter) {
      const origin = { ...adapterOrigin(folder, model, { recipe, adapter, tensors }), ...about };
      await writeAdapter(output, adapter, values, origin, target);
    } else {
      throw new InputError("the run trained no adapter", { where: "recipe adapter", hint: MERGE });
    }
    return student.step;
  } finally {
    student.close();
  }
}
