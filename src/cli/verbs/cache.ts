/**
 * `limbeck cache`
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { didYouMean } from "../../base/did_you_mean.ts";
import { InputError, UsageError } from "../../base/errors.ts";
import { bytes, count, duration, number3 } from "../../base/units.ts";
import type { AuditedLoss } from "../../distill/evaluate/audit_sums.ts";
import { auditCache } from "../../distill/evaluate/cache_audit.ts";
import { openGpu } from "../../gpu/device.ts";
import { dataCaches } from "../../runs/store/data_folder.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { registryWith } from "../setup/registry.ts";
import { noteTaken, tunedDevices } from "../tuned_devices.ts";
import { table } from "../terminal/table.ts";
import { fillCache } from "../../distill/run/fill_cache.ts";
import type { Command, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { stoppable } from "../terminal/stoppable_work.ts";

import type { Recipe } from "../../distill/recipe/recipe.ts";
import { fillServed } from "../../runs/served/fill_served.ts";
import { readRecipe, RECIPE_FLAGS, withRecipe } from "./distill.ts";

/** Makes the cache of a teacher ahead of the runs that train on it. */
export const cache: Command = {
  name: "cache",
  usage: "RECIPE | audit RECIPE",
  positional: [1, 2],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Runs the teacher over all samples of a recipe and keeps what teacher.cache says, in the folder that it names, or where " +
    "the runs of the data folder find it. Rows that are there already are not made again, whatever run they were made for. Stop it whenever you like: what is finished stays. Several may work " +
    "on one folder at once. `audit` measures on held-out tokens what each payload would cost each loss, beside what the weight of the " +
    "tokens left out allows at most; the student is as the run begins with it. It needs no cache.",
  flags: {
    ...RECIPE_FLAGS,
    ...DATA_FLAG,
    ...PROVIDER_FLAG,
    tokens: { value: "COUNT", kind: "count", least: 1, help: "Held-out tokens of an audit (default 128)" },
  },
  examples: [
    "limbeck cache my.yaml",
    "limbeck cache my.yaml --set teacher.cache='{payload: hidden, precision: bf16, folder: caches}'",
    "limbeck cache audit my.yaml",
  ],
  async run(invocation: Invocation): Promise<number> {
    const { args } = invocation;
    const [first, second] = args;
    if (second === undefined) return await fill(invocation);
    if (first !== "audit") {
      throw new UsageError(`there is no "${first}" of a cache${didYouMean(first!, ["audit"])}`, {
        hint: "`limbeck cache RECIPE` makes it, `limbeck cache audit RECIPE` tells what payloads cost.",
      });
    }
    return await audit({ ...invocation, args: [second] });
  },
};

async function audit(invocation: Invocation): Promise<number> {
  const { out, flags, plugins } = invocation;
  const registry = await registryWith(plugins);
  return await withRecipe(invocation, async ({ prepared, setup }) => {
    const gpu = await openGpu();
    try {
      const found = await stoppable(
        out,
        "auditing",
        ({ signal, onProgress }) =>
          auditCache(gpu, prepared, setup, {
            ...{ registry, signal, tokens: flags.number("tokens") ?? 128 },
            onProgress: (done, all) => onProgress(done, all, `${done} of ${all} tokens`),
          }),
      );
      out.value(found);
      out.line(`${found.tokens} held-out tokens; the student as the run begins with it`);
      for (const loss of found.losses) {
        out.line();
        out.line(`${bold(loss.name)}  ${number3(loss.value)}`);
        for (const line of lossLines(loss)) out.line(line);
      }
      return 0;
    } finally {
      gpu.destroy();
    }
  });
}

function lossLines({ payloads }: AuditedLoss): string[] {
  const rows = payloads.map(({ payload, bytesPerToken, mean, largest, bound }) => [
    ...[`  ${payload}`, String(bytesPerToken)],
    ...(mean === null ? ["cannot be had", ""] : [scientific(mean), scientific(largest!)]),
    ...(bound ? [scientific(bound.mean), scientific(bound.largest)] : ["", ""]),
  ]);
  return table(["  payload", "bytes a token", "off by", "at most", "bound", "at most"], rows);
}

function scientific(value: number): string {
  return value.toExponential(1);
}

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
  const { out, flags } = invocation;
  const recipe = await readRecipe(invocation.args[0], invocation);
  if (recipe.teacher.server) return await fillFromServer(invocation, recipe);
  return await withRecipe(invocation, async (opened) => {
    const left = "stopped; what is finished stays, and is not made again";
    const devices = await tunedDevices(invocation);
    const made = await stoppable(out, "caching", ({ signal, onProgress }) =>
      fillCache(opened, {
        ...{ signal, place: dataCaches(flags.text("data")), devices },
        onStage: (message) => out.note(message),
        onProgress: (done, all) => onProgress(done, all, `${done} of ${all} samples`),
      }), left);
    noteTaken(devices, invocation);
    out.value({ ...made, kernels: devices.taken });
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
