/**
 * The models of the hub that a run names. They are fetched before it begins: its process has no network. From then on its recipe holds
 * their places in the cache, which tell the commit, so that resuming it needs no hub and uses the same bytes.
 *
 * @module
 */
import { isOnHub } from "../../distill/recipe/paths.ts";
import { type FetchOptions, fetchPlace, isWhole } from "../../hub/fetch_model.ts";
import { type CachedPlace, type HubRecord, hubRecord, placeOf } from "../../hub/hub_cache.ts";
import { mapRunRecipePaths, type RunRecipe, runRecipePaths } from "./run_recipe.ts";

/**
 * A copy of a recipe or a task with paths in place of models of the hub.
 *
 * @param local Fetches one that is named, and returns its path
 */
export async function withLocalModels<R>(recipe: R, local: (name: string) => Promise<string>): Promise<R> {
  const names = runRecipePaths(recipe).flatMap((named) => isOnHub(named) ? [named.path] : []);
  const paths = new Map<string, string>();
  for (const name of new Set(names)) paths.set(name, await local(name));
  return mapRunRecipePaths(recipe, (named) => isOnHub(named) ? paths.get(named.path)! : named.path);
}

function mayBeOnHub(of: string): boolean {
  return of === "model" || of === "dataset";
}

/** The places of models of the hub that a recipe names and the cache does not have, by field. */
export async function absentModels(recipe: RunRecipe): Promise<Map<string, CachedPlace>> {
  const absent = new Map<string, CachedPlace>();
  for (const { field, of, path } of runRecipePaths(recipe)) {
    const place = mayBeOnHub(of) ? placeOf(path) : undefined;
    if (place && !await isWhole(path)) absent.set(field, place);
  }
  return absent;
}

/**
 * Fetches the models of the hub that a recipe names by their places in the cache, where someone removed them from it or they were never
 * there.
 *
 * @throws as {@linkcode fetchPlace}
 */
export async function restoreModels(recipe: RunRecipe, options: FetchOptions = {}): Promise<void> {
  for (const place of (await absentModels(recipe)).values()) await fetchPlace(place, options);
}

/** What of the hub a run uses, by the field of its recipe; undefined where nothing is. */
export async function hubModels(recipe: RunRecipe): Promise<Record<string, HubRecord> | undefined> {
  const records: Record<string, HubRecord> = {};
  for (const { field, of, path } of runRecipePaths(recipe)) {
    const record = mayBeOnHub(of) && await isWhole(path) ? await hubRecord(path) : undefined;
    if (record) records[field] = record;
  }
  return Object.keys(records).length > 0 ? records : undefined;
}
