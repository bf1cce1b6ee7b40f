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
import type { AuditedLoss, CacheAudit } from "../../distill/evaluate/audit_sums.ts";
import { auditCache } from "../../distill/evaluate/cache_audit.ts";
import { openGpu } from "../../gpu/device.ts";
import { dataCaches } from "../../runs/store/data_folder.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { registryWith } from "../setup/registry.ts";
import { noteTaken, tunedDevices } from "../tuned_devices.ts";
import { table } from "../terminal/table.ts";
import { fillCaches, type FilledCache } from "../../distill/run/fill_cache.ts";
import type { Command, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { stoppable } from "../terminal/stoppable_work.ts";

import type { Recipe } from "../../distill/recipe/recipe.ts";
import {
  cacheField,
  cacheOf,
  isMoving,
  passesOf,
  servedTeachers,
  teachersOf,
} from "../../distill/recipe/teachers.ts";
import { preparedOf, setupOf } from "../../distill/teacher/teacher_targets.ts";
import { type FilledServed, fillServed } from "../../runs/served/fill_served.ts";
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
    "the runs of the data folder find it; of several teachers each over its own samples, and servers are asked. Rows that are there already are not made again, whatever run they were made for. Stop it whenever you like: what is finished stays. Several may work " +
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
  return await withRecipe(invocation, async ({ recipe: { teacher }, prepared, setup }) => {
    const here = teachersOf(teacher).flatMap(({ server, self, name }, i) =>
      server || isMoving(self) ? [] : [{ i, name }]
    );
    if (here.length === 0) {
      throw new InputError(
        "is behind a server: what payloads cost can be told of models that are here alone",
        {
          where: "recipe teacher.model",
          hint: "Audit where its weights are.",
        },
      );
    }
    for (const { name, field } of servedTeachers(teacher)) {
      out.note(`${name ?? field} is behind a server, and left out`);
    }
    const gpu = await openGpu();
    try {
      const audited: (CacheAudit & { readonly teacher?: string })[] = [];
      for (const { i, name } of here) {
        const whose = name === undefined ? "" : `${name}: `;
        const found = await stoppable(
          out,
          "auditing",
          ({ signal, onProgress }) =>
            auditCache(gpu, preparedOf(prepared, i), setupOf(setup, i), {
              ...{ registry, signal, tokens: flags.number("tokens") ?? 128 },
              onProgress: (done, all) => onProgress(done, all, `${whose}${done} of ${all} tokens`),
            }),
        );
        audited.push(name === undefined ? found : { teacher: name, ...found });
      }
      out.value(teacher.teachers ? { teachers: audited } : audited[0]!);
      out.line(`${audited[0]!.tokens} held-out tokens; the student as the run begins with it`);
      for (const { teacher, losses } of audited) {
        for (const loss of losses) {
          out.line();
          out.line(
            `${bold(teacher === undefined ? loss.name : `${teacher}: ${loss.name}`)}  ${number3(loss.value)}`,
          );
          for (const line of lossLines(loss)) out.line(line);
        }
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

/** Asks the servers that teachers are behind. */
async function fillFromServers(invocation: Invocation, recipe: Recipe): Promise<FilledServed[]> {
  const { out, plugins = [] } = invocation;
  const { teacher } = recipe;
  const served = servedTeachers(teacher);
  for (const { index } of served) {
    if (cacheOf(teacher, index)?.folder !== undefined) continue;
    const field = `${cacheField(teacher, index)}.folder`;
    throw new InputError("is absent, and the cache would lie in the folder of a run that is not there yet", {
      where: `recipe ${field}`,
      hint: `Name a folder that runs share, such as --set ${field}=caches.`,
    });
  }
  return await stoppable(
    out,
    "asking",
    async ({ signal, onProgress }) => {
      const counts = new Map<string | undefined, readonly [done: number, all: number]>();
      const filled = await fillServed(recipe, {
        // All of them lie where the recipe says.
        place: cacheOf(teacher, served[0]!.index)!.folder!,
        // What is under way is paid for: it is waited for.
        stopped: () => signal.aborted,
        plugins: plugins.map(({ path }) => path),
        onStage: (message) => out.note(message),
        onProgress(done, all, name) {
          counts.set(name, [done, all]);
          const sum = (k: 0 | 1) => counts.values().reduce((total, pair) => total + pair[k], 0);
          const each = [...counts].map(([name, [done, all]]) =>
            `${name === undefined ? "" : `${name} `}${done} of ${all}`
          );
          onProgress(sum(0), sum(1), `${each.join(", ")} samples`);
        },
      });
      if (filled.some(({ complete }) => !complete)) signal.throwIfAborted();
      return filled;
    },
    "stopped; what was answered stays, and is not asked again",
  );
}

function tellServed(out: Invocation["out"], { teacher, samples, asked, used, path }: FilledServed): void {
  const { requests, tokens } = used;
  out.line(
    `${whose(teacher)}${count(samples)} samples, ${count(asked)} asked now; ${count(requests)} requests and ${
      count(tokens)
    } tokens used for this cache in all`,
  );
  out.line(`In ${shownPath(path)}`);
}

function tellMade(
  out: Invocation["out"],
  { teacher, samples, cacheBytes, bytesPerToken, seconds, heldOut, path }: FilledCache,
): void {
  out.line(
    `${whose(teacher)}${count(samples)} samples: ${
      bytes(cacheBytes)
    }, ${bytesPerToken} bytes a token that counts, ${duration(seconds)}`,
  );
  for (const { name, loss, tokens } of heldOut) {
    out.line(`The teacher's loss on ${name}: ${loss.toFixed(4)} nats a token, ${count(tokens)} tokens`);
  }
  out.line(`In ${shownPath(path)}`);
}

function whose(teacher: string | undefined): string {
  return teacher === undefined ? "" : `${teacher}: `;
}

async function fill(invocation: Invocation): Promise<number> {
  const { out, flags } = invocation;
  const recipe = await readRecipe(invocation.args[0], invocation);
  const { teachers } = recipe.teacher;
  const served = servedTeachers(recipe.teacher).length > 0 ? await fillFromServers(invocation, recipe) : [];
  for (const one of served) tellServed(out, one);
  if (served.length > 0 && passesOf(recipe.teacher).length === 0) {
    out.value(teachers ? { teachers: served } : served[0]!);
    return 0;
  }
  return await withRecipe(invocation, async (opened) => {
    const left = "stopped; what is finished stays, and is not made again";
    const devices = await tunedDevices(invocation);
    const made = await stoppable(out, "caching", ({ signal, onProgress }) =>
      fillCaches(opened, {
        ...{ signal, place: dataCaches(flags.text("data")), devices },
        onStage: (message) => out.note(message),
        onProgress: (done, all, name) => onProgress(done, all, `${whose(name)}${done} of ${all} samples`),
      }), left);
    noteTaken(devices, invocation);
    const kernels = devices.taken;
    out.value(teachers ? { teachers: [...served, ...made], kernels } : { ...made[0]!, kernels });
    for (const one of made) tellMade(out, one);
    return 0;
  });
}
