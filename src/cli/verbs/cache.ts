/**
 * `limbeck cache`
 *
 * @module
 */
import { bytes, count, duration } from "../../base/units.ts";
import { fillCache } from "../../distill/run/fill_cache.ts";
import type { Command, Invocation } from "../command.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { stoppable } from "../terminal/stoppable_work.ts";
import { InputError } from "../../base/errors.ts";
import type { Recipe } from "../../distill/recipe/recipe.ts";
import { fillServed } from "../../runs/served/fill_served.ts";
import { readRecipe, RECIPE_FLAGS, withRecipe } from "./distill.ts";

/** Makes the cache of a teacher ahead of the runs that train on it. */
export const cache: Command = {
  name: "cache",
  usage: "RECIPE",
  positional: [1, 1],
  loadsPlugins: true,
  details:
    "Runs the teacher over all samples of a recipe and keeps what teacher.cache says, in the folder that it names. Rows that are there " +
    "already are not made again, whatever run they were made for. Stop it whenever you like: what is finished stays. Several may work " +
    "on one folder at once.",
  flags: { ...RECIPE_FLAGS },
  examples: [
    "limbeck cache my.yaml",
    "limbeck cache my.yaml --set teacher.cache='{payload: hidden, precision: bf16, folder: caches}'",
  ],
  async run(invocation: Invocation): Promise<number> {
    return await fill(invocation);
  },
};

/** Asks the server that the teacher is behind. */
async function fillFromServer(invocation: Invocation, recipe: Recipe): Promise<number> {
  const { out, plugins = [] } = invocation;
  const place = recipe.teacher.cache?.folder;
  if (place === undefined) {
    throw new InputError("is absent, and the cache would lie in the folder of a run that is not there yet", {
      where: "recipe teacher.cache.folder",
      hint: "Name a folder that runs share, such as --set teacher.cache.folder=caches.",
    });
  }
  const filled = await stoppable(
    out,
    "asking",
    async ({ signal, onProgress }) => {
      const filled = await fillServed(recipe, {
        place,
        // What is under way is paid for: it is waited for.
        stopped: () => signal.aborted,
        plugins: plugins.map(({ path }) => path),
        onStage: (message) => out.note(message),
        onProgress: (done, all) => onProgress(done, all, `${done} of ${all} samples`),
      });
      if (!filled.complete) signal.throwIfAborted();
      return filled;
    },
    "stopped; what was answered stays, and is not asked again",
  );
  out.value(filled);
  const { requests, tokens } = filled.used;
  out.line(
    `${count(filled.samples)} samples, ${count(filled.asked)} asked now; ${count(requests)} requests and ${
      count(tokens)
    } tokens used for this cache in all`,
  );
  out.line(`In ${shownPath(filled.path)}`);
  return 0;
}

async function fill(invocation: Invocation): Promise<number> {
  const { out } = invocation;
  const recipe = await readRecipe(invocation.args[0], invocation);
  if (recipe.teacher.server) return await fillFromServer(invocation, recipe);
  return await withRecipe(invocation, async (opened) => {
    const left = "stopped; what is finished stays, and is not made again";
    const made = await stoppable(out, "caching", ({ signal, onProgress }) =>
      fillCache(opened, {
        signal,
        onStage: (message) => out.note(message),
        onProgress: (done, all) => onProgress(done, all, `${done} of ${all} samples`),
      }), left);
    out.value(made);
    out.line(
      `${count(made.samples)} samples: ${
        bytes(made.cacheBytes)
      }, ${made.bytesPerToken} bytes a token that counts, ${duration(made.seconds)}`,
    );
    for (const { name, loss, tokens } of made.heldOut) {
      out.line(`The teacher's loss on ${name}: ${loss.toFixed(4)} nats a token, ${count(tokens)} tokens`);
    }
    out.line(`In ${shownPath(made.path)}`);
    return 0;
  });
}
