/**
 * The head of a model for those who have its hidden states: a folder with the model cut to one layer. Besides the head it holds embedding,
 * final norm and that layer, so that it opens as any model does; only its head is of use.
 *
 * @module
 */
import type { ModelFamily } from "../../models/family.ts";
import { Model } from "../inputs/models.ts";
import { writeModelFolder } from "./exports.ts";

/**
 * Writes it.
 *
 * @param model Folder or GGUF file
 * @param path A folder that is not there yet
 */
export async function writeHeadFolder(
  model: string,
  path: string,
  families: readonly ModelFamily[] = [],
): Promise<void> {
  const cut = await Model.open(model, { layers: [0], category: "weights" }, families);
  try {
    await writeModelFolder(path, cut);
  } finally {
    cut.close();
  }
}
