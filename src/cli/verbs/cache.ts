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
import { RECIPE_FLAGS, withRecipe } from "./distill.ts";

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

async function fill(invocation: Invocation): Promise<number> {
  const { out } = invocation;
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
