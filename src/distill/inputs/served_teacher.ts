/**
 * What of a teacher behind a server lies here.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { canonicalJson } from "../../base/json.ts";
import { exists } from "../../formats/files.ts";
import type { TeacherRecipe } from "../recipe/recipe.ts";
import { sha256 } from "./identity.ts";
import { Model } from "./models.ts";

/** What a teacher behind a server is known by: its address and name, since nobody can look at its weights. */
export function servedIdentity({ server }: TeacherRecipe): string {
  const { url, model } = server!;
  return sha256(`served ${canonicalJson({ url: url.replace(/\/+$/, ""), model })}`);
}

/** Where its head lies, if hidden states are kept of it; undefined where they are not. */
export function servedHeadPath(teacher: TeacherRecipe): string | undefined {
  const { server, cache } = teacher;
  if (!server || cache?.payload !== "hidden") return undefined;
  return join(cache.folder!, "heads", servedIdentity(teacher).slice(0, 16));
}

/**
 * Opens its head: the model cut to one layer, of which only the head is used.
 *
 * @returns undefined where no hidden states are kept of it
 * @throws {InputError} it has not been fetched
 */
export async function openServedHead(teacher: TeacherRecipe): Promise<Model | undefined> {
  const path = servedHeadPath(teacher);
  if (path === undefined) return undefined;
  if (await exists(path)) return await Model.open(path, { category: "teacher weights" });
  throw new InputError("the teacher's head has not been fetched from its server", {
    where: path,
    hint: "`limbeck cache RECIPE` fetches it, and `limbeck distill RECIPE` does so before it trains.",
  });
}
