/**
 * Which models adapters say that they belong to.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { openModel } from "../../formats/open_model.ts";

/**
 * The models among some names: one name for each. Copies of a model are one, where the names are of models that can be read here.
 *
 * @param names As adapters have them: paths, or names of a hub
 */
export async function differentModels(names: Iterable<string>): Promise<string[]> {
  const known = [...new Set(names)];
  if (known.length < 2) return known;
  const byContent = new Map<string, string>();
  for (const name of known) {
    const content = await weightsOf(name) ?? `name ${name}`;
    if (!byContent.has(content)) byContent.set(content, name);
  }
  return [...byContent.values()];
}

/** SHA-256 of a model's weights; undefined where they are not here. */
async function weightsOf(name: string): Promise<string | undefined> {
  try {
    const source = await openModel(name);
    try {
      return await source.fingerprint();
    } finally {
      source.close();
    }
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}
