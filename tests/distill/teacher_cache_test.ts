/** Runs whose teacher is cached: against runs whose teacher is there, resumed, shared, damaged and refused. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertLess,
  assertMatch,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { type Recipe, type TeacherCacheRecipe } from "../../src/distill/recipe/recipe.ts";
import { recipeHash } from "../../src/distill/recipe/parse.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { loadRecipe } from "../../src/distill/recipe/file.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { InputError } from "../../src/base/errors.ts";
import { cacheKey, type CacheOrigin, cachePath } from "../../src/distill/teacher/cache.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";
import { TINY_VOCABULARY, type TinyFiles, tinyRecipe, tinySetup, withTiny } from "./tiny_model.ts";

const OBJECTIVE = [
  { loss: "cross-entropy", weight: 0.4 },
  { loss: "forward-kl", weight: 0.4, temperature: 2, squareTemperature: true },
  { loss: "reverse-kl", weight: 0.2 },
];

/** A short run with everything that draws random numbers. */
function recipeFor(
  files: TinyFiles,
  cache?: Partial<TeacherCacheRecipe>,
  objective: unknown[] = OBJECTIVE,
): Recipe {
  const recipe = tinyRecipe(files, {
    objective: objective as typeof OBJECTIVE,
    adapter: { dropout: 0.1 },
    train: { steps: 8, accumulation: 2, checkpointEvery: 3, evaluateEvery: 4 },
    samples: { tokens: 3 },
  });
  return parseRecipe({ ...recipe, teacher: { ...recipe.teacher, ...(cache ? { cache } : {}) } });
}

function lossesOf(events: readonly RunEventBody[]): number[][] {
  return events.flatMap((e) =>
    e.type === "metrics" ? [[e.loss!, ...Object.values(e.losses).map((x) => x!)]] : []
  );
}

function sha(path: string): Promise<string> {
  return Deno.readFile(path).then(async (bytes) => {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
  });
}

async function cachesIn(folder: string): Promise<string[]> {
  const names = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

Deno.test("a run on a cache of all logits follows the run with the teacher, to rounding", async () => {
  await withTiny(async (files) => {
    const [live, cached, halves]: [RunEventBody[], RunEventBody[], RunEventBody[]] = [[], [], []];
    const whole = { topK: TINY_VOCABULARY, precision: "f32" } as const;
    const a = await runHere(recipeFor(files), `${files.folder}/live`, {}, live);
    const b = await runHere(recipeFor(files, whole), `${files.folder}/cached`, {}, cached);
    await runHere(recipeFor(files, { topK: TINY_VOCABULARY }), `${files.folder}/halves`, {}, halves);
    assertAlmostEquals(a.heldOut.teacher!, b.heldOut.teacher!, 1e-6);
    assertAlmostEquals(a.heldOut.before!, b.heldOut.before!, 1e-6);
    assertAlmostEquals(a.heldOut.after!, b.heldOut.after!, 1e-4);
    const [expected, exact, rounded] = [lossesOf(live), lossesOf(cached), lossesOf(halves)];
    assertEquals([exact.length, rounded.length], [8, 8]);
    expected.forEach((row, step) =>
      row.forEach((x, k) => {
        assertAlmostEquals(exact[step]![k]!, x, 1e-4, `step ${step}`);
        assertAlmostEquals(rounded[step]![k]!, x, 2e-3, `step ${step}, f16`);
      })
    );
    // It is the teacher that they follow: the losses are not those of another target.
    assert(expected.every((row) => row[2]! > 0.01));
    const of = (events: RunEventBody[], type: string) => events.filter((e) => e.type === type);
    const texts = (events: RunEventBody[]) =>
      of(events, "sample").map((e) => e.type === "sample" ? [e.model, e.step, e.prompt] : []);
    assertEquals(texts(cached), texts(live));
    const kept = (events: RunEventBody[]) =>
      events.flatMap((e) =>
        e.type === "evaluation" && e.model === "student" ? [Object.keys(e.losses)] : []
      )[0]!;
    assert(kept(live).includes("top-1-agreement") && !kept(cached).includes("top-1-agreement"));
    assert(kept(cached).includes("forward-kl") && kept(cached).includes("top-1-accuracy"));
  });
});

Deno.test("a run on a cache that is stopped and resumed leaves what an uninterrupted one leaves, bit for bit", async () => {
  await withTiny(async (files) => {
    for (const cache of [{ topK: 16 }, { samples: 12, seed: 3 }]) {
      const objective = "samples" in cache
        ? [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }]
        : OBJECTIVE;
      const recipe = recipeFor(files, cache, objective);
      const name = Object.keys(cache)[0]!;
      const [whole, parts]: [RunEventBody[], RunEventBody[]] = [[], []];
      await runHere(recipe, `${files.folder}/${name}-whole`, {}, whole);
      const folder = `${files.folder}/${name}-parts`;
      await runHere(recipe, folder, { control: (step) => step === 3 ? "stop" : "run" }, parts);
      const [only] = await cachesIn(`${folder}/teacher-cache`);
      const made = await Deno.stat(`${folder}/teacher-cache/${only}`);
      await runHere(recipe, folder, { resume: true }, parts);
      assertEquals(
        await sha(`${folder}/adapter/adapter_model.safetensors`),
        await sha(`${files.folder}/${name}-whole/adapter/adapter_model.safetensors`),
      );
      assertEquals(
        (await Deno.stat(`${folder}/teacher-cache/${only}`)).mtime,
        made.mtime,
        "it was used again",
      );
      const steps = (events: RunEventBody[]) => heldMetrics(events).filter((row) => row.type === "metrics");
      assertEquals(steps(parts), steps(whole));

      // Made anew it has the same bytes; another one in its place is refused.
      await Deno.remove(`${folder}/teacher-cache`, { recursive: true });
      await runHere(recipe, folder, { resume: true });
      const about = `${folder}/teacher-cache/${only}/teacher.json`;
      const rows = `${folder}/teacher-cache/${only}/rows.safetensors`;
      const bytes = await Deno.readFile(rows);
      bytes[bytes.length - 9]! ^= 1;
      await Deno.writeFile(rows, bytes);
      await assertRejects(
        () => runHere(recipe, folder, { resume: true }),
        InputError,
        "is not the teacher's cache it should be: the rows are not those that teacher.json describes",
      );
      const text = await Deno.readTextFile(about);
      const hash = Array.from(
        new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.slice(rowsBegin(bytes)))),
        (b) => b.toString(16).padStart(2, "0"),
      ).join("");
      await Deno.writeTextFile(about, text.replace(/"sha256": "[0-9a-f]+"/, `"sha256": "${hash}"`));
      await assertRejects(
        () => runHere(recipe, folder, { resume: true }),
        InputError,
        "cannot be resumed: changed since the checkpoint: teacher's cache",
      );
    }
  });
});

/** Where the tensor `rows` begins in a file. */
function rowsBegin(bytes: Uint8Array): number {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return 8 + length + header.rows.data_offsets[0];
}

Deno.test("a shared folder serves runs of one teacher and data, and keeps those of others apart", async () => {
  await withTiny(async (files) => {
    const folder = `${files.folder}/shared`;
    const stages = async (recipe: Recipe, name: string) => {
      const events: RunEventBody[] = [];
      await runHere(recipe, `${files.folder}/${name}`, { control: () => "stop" }, events);
      return events.flatMap((e) => (e.type === "stage" && e.stage === "cache" ? [e.message] : []));
    };
    const recipe = recipeFor(files, { topK: 8, folder });
    assertMatch((await stages(recipe, "a"))[0]!, /^running the teacher over 46 samples$/);
    const first = await cachesIn(folder);
    const other = parseRecipe({ ...recipe, train: { ...recipe.train, seed: 9, steps: 5 } });
    assertMatch((await stages(other, "b"))[0]!, /^using the teacher's cache /);
    assertEquals(await cachesIn(folder), first);
    await stages(recipeFor(files, { topK: 9, folder }), "c");
    await stages(recipeFor(files, { topK: 8, folder }, [{ loss: "forward-kl", temperature: 3 }]), "d");
    assertEquals((await cachesIn(folder)).length, 3);

    // Another cache under the name of this one.
    const another = (await cachesIn(folder)).find((name) => name !== first[0])!;
    await Deno.rename(`${folder}/${first[0]}`, `${files.folder}/aside`);
    await Deno.rename(`${folder}/${another}`, `${folder}/${first[0]}`);
    await assertRejects(
      () => stages(recipe, "e"),
      InputError,
      "made for another teacher, other samples or other settings",
    );

    const rows = await Deno.readTextFile(files.train);
    await Deno.writeTextFile(files.train, rows.split("\n").slice(1).join("\n"));
    assertMatch((await stages(recipe, "f"))[0]!, /^running the teacher over 45 samples$/);
    assertEquals(
      recipeHash(recipe),
      recipeHash(recipeFor(files, { topK: 8 })),
      "the folder decides no number",
    );
  });
});

Deno.test("caches of the same samples, others of them held out, are kept apart", async () => {
  await withTiny(async (files) => {
    const folder = `${files.folder}/shared`;
    const stages = async (recipe: Recipe, name: string) => {
      const events: RunEventBody[] = [];
      const result = await runHere(recipe, `${files.folder}/${name}`, {}, events);
      const cache = events.flatMap((e) => (e.type === "stage" && e.stage === "cache" ? [e.message] : []));
      return { said: cache[0]!, teacher: result.heldOut.teacher! };
    };
    const recipe = recipeFor(files, { topK: 8, folder });
    const first = await stages(recipe, "a");
    // As an earlier version named it: by what follows from the samples alone, not from which of them are held out.
    const [name] = await cachesIn(folder);
    const about = JSON.parse(await Deno.readTextFile(`${folder}/${name}/teacher.json`));
    const { heldOutSets, ...origin } = about.origin as CacheOrigin;
    assertEquals(heldOutSets?.length, 1);
    const key = cacheKey(origin);
    const bytes = await Deno.readFile(`${folder}/${name}/rows.safetensors`);
    replaceText(bytes, about.key, key);
    await Deno.rename(`${folder}/${name}`, cachePath(folder, key));
    await Deno.writeFile(`${cachePath(folder, key)}/rows.safetensors`, bytes);
    const earlier = JSON.stringify({ ...about, key, origin });
    await Deno.writeTextFile(`${cachePath(folder, key)}/teacher.json`, earlier);
    const again = await stages(recipe, "b");
    assertMatch(again.said, /^using the teacher's cache /);
    assertEquals(again.teacher, first.teacher);

    // The last row for training is held out as well: the samples together, and their order, are the same.
    const [train, heldOut] = [await Deno.readTextFile(files.train), await Deno.readTextFile(files.heldOut)];
    const lines = train.trimEnd().split("\n");
    const moved = lines.pop()!;
    await Deno.writeTextFile(files.train, lines.join("\n"));
    await Deno.writeTextFile(files.heldOut, `${moved}\n${heldOut}`);
    const other = await stages(recipe, "c");
    assertMatch(other.said, /^running the teacher over 46 samples$/);
    const live = await stages(recipeFor(files), "d");
    assertAlmostEquals(other.teacher, live.teacher, 1e-6);
    assertNotEquals(other.teacher, first.teacher);
    // And each goes on finding its own.
    assertMatch((await stages(recipe, "e")).said, /^using the teacher's cache /);
    await Deno.writeTextFile(files.train, train);
    await Deno.writeTextFile(files.heldOut, heldOut);
    assertEquals(await stages(recipe, "f"), again);
  });
});

/** Puts a text in place of another of the same length. */
function replaceText(bytes: Uint8Array, from: string, to: string): void {
  const [old, next] = [from, to].map((text) => new TextEncoder().encode(text));
  const at = bytes.findIndex((_, i) => old!.every((byte, k) => bytes[i + k] === byte));
  assert(at >= 0 && old!.length === next!.length);
  bytes.set(next!, at);
}

Deno.test("two runs that make one cache at once both end with it", async () => {
  await withTiny(async (files) => {
    const folder = `${files.folder}/shared`;
    const both = ["a", "b"].map(async (name) => {
      const events: RunEventBody[] = [];
      const recipe = recipeFor(files, { topK: 8, folder });
      await runHere(
        recipe,
        `${files.folder}/${name}`,
        { control: (step) => step === 2 ? "stop" : "run" },
        events,
      );
      return lossesOf(events);
    });
    const [a, b] = await Promise.all(both);
    assertEquals(a!.length, 2);
    assertEquals(a, b);
    assertEquals((await cachesIn(folder)).length, 1);
  });
});

Deno.test("stopping while the teacher is run leaves no cache behind", async () => {
  await withTiny(async (files) => {
    const events: RunEventBody[] = [];
    const { distillRun } = await import("../../src/distill/run/distill.ts");
    const { Registry } = await import("../../src/registry/registry.ts");
    const { builtins } = await import("../../plugins/mod.ts");
    const folder = `${files.folder}/run`;
    await Deno.mkdir(folder);
    const asked = () => events.some((e) => e.type === "stage" && e.stage === "cache");
    const result = await distillRun(recipeFor(files, { topK: 8 }), {
      ...{ folder, resume: false, resumeLimit: Infinity, registry: new Registry().addAll(builtins) },
      emit: (event) => void events.push(event),
      control: () => asked() ? "stop" : "run",
    });
    assertEquals(result.status, "paused");
    assertEquals(await cachesIn(`${folder}/teacher-cache`), []);

    // What a process that was killed left behind is cleared away.
    await Deno.mkdir(`${folder}/teacher-cache/.0123456789abcdef.01234567.tmp`);
    await runHere(recipeFor(files, { topK: 8 }), folder, { control: () => "stop" });
    assertEquals((await cachesIn(`${folder}/teacher-cache`)).length, 1);
    assertMatch((await cachesIn(`${folder}/teacher-cache`))[0]!, /^[0-9a-f]{16}$/);
  });
});

Deno.test("the training program of a cached teacher has nothing of the teacher in it", async () => {
  await withTiny(async (files) => {
    using live = await tinySetup(recipeFor(files));
    using cached = await tinySetup(recipeFor(files, { topK: 8 }));
    const [a, b] = [live, cached].map((setup) => planTraining(setup, DEFAULT_DEVICE).plan);
    assert(a!.bytesByCategory.has("teacher weights") && !b!.bytesByCategory.has("teacher weights"));
    assertLess(b!.totalBytes, a!.totalBytes);
    assertEquals([...b!.blocks.keys()], ["microBatch", "update", "evaluate"]);
  });
});

Deno.test("a cache in a recipe is checked: what it cannot serve is refused, with its place", async () => {
  await withTiny(async (files) => {
    const refused: [Partial<TeacherCacheRecipe>, unknown[], RegExp][] = [
      [
        { topK: 8 },
        [{ loss: "rank-correlation" }],
        /objective\.0: with teacher\.cache, "rank-correlation" cannot be had: it needs every logit of the teacher; a cache holds 8/,
      ],
      [
        { topK: 8 },
        [{ loss: "forward-kl", schedule: { temperature: { from: 2, to: 1, steps: [0, 4] } } }],
        /objective\.0\.schedule\.temperature: .* cannot change its temperature/,
      ],
      [
        { samples: 8 },
        [{ loss: "forward-kl", temperature: 2 }],
        /objective\.0\.temperature: .* must have temperature 1, not 2/,
      ],
      [{ samples: 8 }, [{ loss: "reverse-kl" }], /"reverse-kl" cannot be had: its gradient is not linear/],
      [
        { topK: 256 },
        [{ loss: "forward-kl" }],
        /teacher\.cache\.topK: is 256, but the vocabulary has 119 tokens/,
      ],
    ];
    const file = `${files.folder}/recipe.json`;
    const written = {
      teacher: { model: "teacher", cache: { topK: 4, folder: "caches" } },
      student: { model: "teacher" },
      data: { train: "a" },
    };
    await Deno.writeTextFile(file, JSON.stringify(written));
    assertEquals((await loadRecipe(file)).teacher.cache?.folder, `${files.folder}/caches`);
    for (const [cache, objective, message] of refused) {
      const recipe = recipeFor(files, cache, objective);
      await assertRejects(() => tinySetup(recipe), InputError);
      const error = await tinySetup(recipe).then(() => undefined, (e: Error) => e);
      assertMatch(error!.message, message);
    }
    for (
      const [cache, message] of [
        [{}, /needs one of topK and samples/],
        [{ topK: 4, samples: 4 }, /needs one of topK and samples/],
        [{ topK: 257 }, /must be at most 256, not 257/],
      ] as const
    ) {
      const error = await Promise.resolve().then(() => recipeFor(files, cache)).then(
        () => undefined,
        (e: Error) => e,
      );
      assertMatch(error!.message, message);
    }
    const both = { ...recipeFor(files), teacher: { model: files.teacher, train: true, cache: { topK: 4 } } };
    const error = await Promise.resolve().then(() => parseRecipe(both)).then(
      () => undefined,
      (e: Error) => e,
    );
    assertMatch(error!.message, /teacher\.cache: cannot keep a teacher that is trained along/);
  });
});

Deno.test("losses that count tokens of their own find them in the cache", async () => {
  await withTiny(async (files) => {
    const objective = [
      { loss: "cross-entropy", weight: 0.5 },
      { loss: "forward-kl", weight: 0.5, tokens: "all" },
      { loss: "reverse-kl", weight: 0.2, tokens: "unshifted" },
    ];
    const row = (i: number) => JSON.stringify({ prompt: `the ${i} `, completion: `bamo ${i * 7} decu` });
    await Deno.writeTextFile(files.train, Array.from({ length: 12 }, (_, i) => row(i)).join("\n"));
    const [live, cached]: [RunEventBody[], RunEventBody[]] = [[], []];
    await runHere(recipeFor(files, undefined, objective), `${files.folder}/live`, {}, live);
    const whole = { topK: TINY_VOCABULARY, precision: "f32" } as const;
    await runHere(recipeFor(files, whole, objective), `${files.folder}/cached`, {}, cached);
    const [expected, found] = [lossesOf(live), lossesOf(cached)];
    assertEquals(expected.length, 8);
    expected.forEach((row, step) =>
      row.forEach((x, k) => assertAlmostEquals(found[step]![k]!, x, 1e-4, `step ${step}`))
    );
  });
});
