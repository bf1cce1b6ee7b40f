/**
 * Taking a run in.
 *
 * @module
 */
import { RecipeError } from "../distill/recipe/parse.ts";
import { runFolder } from "../runs/store/layout.ts";
import { newManifest } from "../runs/store/run_folder.ts";
import type { IdempotencyKey, StoredRun } from "../runs/store/store.ts";
import type { RunRecipe } from "../runs/task/run_recipe.ts";
import { TakenIdError } from "../runs/store/store_errors.ts";
import { HttpError } from "./http/http_error.ts";
import { resolveNamed } from "./named_recipe.ts";
import type { Service } from "./service.ts";
import type { Identity } from "./auth/tokens.ts";

/**
 * Checks a recipe or a task with names and queues it. Once the promise is fulfilled, the run lies on the disk.
 *
 * @param prefix where the recipe stands in the request, for errors
 * @throws {HttpError} 400 what is wrong with it; 429 the queue is full
 */
export async function submitRun(
  service: Service,
  identity: Identity,
  { recipe: named, metadata }: { recipe: unknown; metadata?: Readonly<Record<string, string>> },
  key?: IdempotencyKey,
  prefix = "recipe",
): Promise<StoredRun> {
  const recipe = await checkNamed(service, named, prefix);
  if (await service.store.countQueued() >= service.queueLimit) {
    throw new HttpError(
      429,
      `${service.queueLimit} runs are waiting already, as many as this service allows`,
      {
        code: "queue_full",
        headers: { "Retry-After": "30" },
      },
    );
  }
  for (;;) {
    const manifest = newManifest(recipe, service.plugins);
    try {
      return await service.store.create({
        manifest,
        recipe,
        folder: runFolder(service.store, manifest.id),
        worker: "service",
        owner: identity.name,
        named,
        ...(metadata ? { metadata } : {}),
      }, key);
    } catch (error) {
      if (!(error instanceof TakenIdError)) throw error;
    }
  }
}

/**
 * Resolves a recipe with names; its problems get their path in the request.
 *
 * @throws {HttpError} 400 what is wrong with it
 */
export function checkNamed(service: Service, named: unknown, prefix = "recipe"): Promise<RunRecipe> {
  return inRecipe(() => resolveNamed(named, service), prefix);
}

/** Does something with a recipe; the problems that are found get their path in the request. */
export async function inRecipe<T>(work: () => Promise<T>, prefix = "recipe"): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof RecipeError)) throw error;
    const at = (path: string) => [prefix, path].filter(Boolean).join(".");
    throw new RecipeError(
      "recipe",
      error.problems.map(({ path, message }) => ({ path: at(path), message })),
    );
  }
}
