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
import { distillRun } from "../../src/distill/run/distill.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { InputError } from "../../src/base/errors.ts";
import { writeShard } from "../../src/distill/teacher/shard.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { makeEarlier } from "./earlier_cache.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";
import {
  TINY_VOCABULARY,
  type TinyFiles,
  tinyRecipe,
  tinySetup,
  withTiny,
  writeTinyModel,
} from "./tiny_model.ts";

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
    student: { model: "teacher", layers: [1] },
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

Deno.test("hidden states serve what a part of the distribution cannot, also where heads have rows of no token", async () => {
  await withTiny(async (files) => {
    const student = `${files.folder}/student`;
    await writeTinyModel(student, { vocabularySize: TINY_VOCABULARY + 3, layers: 2, seed: 3 });
    const objective = [
      { loss: "centred-logit-mse", weight: 0.1 },
      { loss: "skew-kl", options: { curriculum: true } },
      { loss: "forward-kl", schedule: { temperature: { from: 2, to: 1, steps: [0, 4] } } },
    ];
    const run = async (cache?: Partial<TeacherCacheRecipe>) => {
      const events: RunEventBody[] = [];
      const recipe = { ...recipeFor(files, cache, objective), student: { model: student } };
      await runHere(recipe, `${files.folder}/${cache?.precision ?? "live"}`, {
        control: (step) => step === 5 ? "stop" : "run",
      }, events);
      const measured = events.flatMap((e) => e.type === "evaluation" ? Object.values(e.losses) : []);
      return { steps: lossesOf(events), measured: measured.map((x) => x!) };
    };
    const live = await run();
    assertEquals(live.steps.length, 5);
    for (const [precision, most] of [["f32", 1e-5], ["bf16", 2e-2]] as const) {
      const stored = await run({ payload: "hidden", precision });
      for (const part of ["steps", "measured"] as const) {
        const [expected, found] = [live[part].flat(), stored[part].flat()];
        assertEquals(found.length, expected.length);
        found.forEach((x, i) =>
          assertAlmostEquals(x, expected[i]!, most * Math.max(1, Math.abs(x)), precision)
        );
      }
    }
  }, { vocabularySize: TINY_VOCABULARY + 8 });
});

Deno.test("a run on a cache that is stopped and resumed leaves what an uninterrupted one leaves, bit for bit", async () => {
  await withTiny(async (files) => {
    for (const cache of [{ topK: 16 }, { samples: 12, seed: 3 }]) {
      const objective = "samples" in cache
        ? [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }]
        : OBJECTIVE;
      const recipe = recipeFor(files, cache, objective);
      const name = Object.keys(cache)[0]!;
      const [uncut, parts]: [RunEventBody[], RunEventBody[]] = [[], []];
      await runHere(recipe, `${files.folder}/${name}-whole`, {}, uncut);
      const folder = `${files.folder}/${name}-parts`;
      await runHere(recipe, folder, { control: (step) => step === 3 ? "stop" : "run" }, parts);
      const made = await shardTimes(`${folder}/teacher-cache`);
      await runHere(recipe, folder, { resume: true }, parts);
      assertEquals(
        await sha(`${folder}/adapter/adapter_model.safetensors`),
        await sha(`${files.folder}/${name}-whole/adapter/adapter_model.safetensors`),
      );
      assertEquals(await shardTimes(`${folder}/teacher-cache`), made, "it was used again");
      const steps = (events: RunEventBody[]) => heldMetrics(events).filter((row) => row.type === "metrics");
      assertEquals(steps(parts), steps(uncut));

      // Made anew it has the same bytes; other rows in their place are refused.
      await Deno.remove(`${folder}/teacher-cache`, { recursive: true });
      await runHere(recipe, folder, { resume: true });
      const [[shard]] = await shardTimes(`${folder}/teacher-cache`) as [[string, unknown]];
      const whole = await Deno.readFile(shard);
      for (const [tensor, message] of DAMAGES) {
        const file = await SafetensorsFile.open(await openFile(shard));
        const { end } = file.entry(tensor);
        file.close();
        await Deno.writeFile(shard, whole.with(end - 9, whole[end - 9]! ^ 1));
        await assertRejects(() => runHere(recipe, folder, { resume: true }), InputError, message);
      }
      await replaceRows(shard);
      await assertRejects(
        () => runHere(recipe, folder, { resume: true }),
        InputError,
        "cannot be resumed: changed since the checkpoint: teacher's cache (its hash was ",
      );
    }
  });
});

/** Where a bit of a shard is turned, and what is said of that. */
const DAMAGES = [
  ["samples", "which is its name"],
  ["offsets", "which is its name"],
  ["rows", "are not those that its index describes"],
] as const;

/** Shards of all caches in a folder, with the time each was written. */
async function shardTimes(folder: string): Promise<[string, Date | null][]> {
  const found: [string, Date | null][] = [];
  for (const cache of await cachesIn(folder)) {
    for (const name of await cachesIn(`${folder}/${cache}/shards`)) {
      const path = `${folder}/${cache}/shards/${name}`;
      found.push([path, (await Deno.stat(path)).mtime]);
    }
  }
  return found;
}

/** Writes the rows of a shard, whatever they have become, as one that is in order. */
async function replaceRows(path: string): Promise<void> {
  const file = await SafetensorsFile.open(await openFile(path));
  const [offsets, samples, rows] = [
    (await file.readArray("offsets")).data,
    await file.readBytes("samples"),
    await file.readBytes("rows"),
  ];
  const [rowBytes, key] = [file.entry("rows").shape[1]!, file.metadata.get("key")!];
  file.close();
  await Deno.remove(path);
  await writeShard(
    path.replace(/[^/]+$/, ""),
    key,
    rowBytes,
    [...offsets.slice(1)].map((end, i) => ({
      hash: samples.subarray(i * 32, (i + 1) * 32).toHex(),
      rows: rows.slice(Number(offsets[i]) * rowBytes, Number(end) * rowBytes),
    })),
  );
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
      `it was made for another teacher or other settings: its hash is ${another}`,
    );
    await Deno.rename(`${folder}/${first[0]}`, `${folder}/${another}`);
    await Deno.rename(`${files.folder}/aside`, `${folder}/${first[0]}`);

    // Samples are found whatever data they are of: only what is new is run.
    const rows = await Deno.readTextFile(files.train);
    await Deno.writeTextFile(files.train, rows.split("\n").slice(1).join("\n"));
    assertMatch((await stages(recipe, "f"))[0]!, /^using the teacher's cache /);
    await Deno.writeTextFile(files.train, `${JSON.stringify({ text: "another sun" })}\n${rows}`);
    assertMatch((await stages(recipe, "g"))[0]!, /^running the teacher over 1 samples$/);
    assertEquals(
      recipeHash(recipe),
      recipeHash(recipeFor(files, { topK: 8 })),
      "the folder decides no number",
    );
  });
});

Deno.test("the loss on a held-out set is of that set, and caches of earlier versions are read", async () => {
  await withTiny(async (files) => {
    const folder = `${files.folder}/shared`;
    const stages = async (recipe: Recipe, name: string) => {
      const events: RunEventBody[] = [];
      const result = await runHere(recipe, `${files.folder}/${name}`, { control: () => "stop" }, events);
      const cache = events.flatMap((e) => (e.type === "stage" && e.stage === "cache" ? [e.message] : []));
      return { said: cache[0]!, teacher: result.heldOut.teacher!, losses: lossesOf(events) };
    };
    const recipe = recipeFor(files, { topK: 8, folder });
    const first = await stages(recipe, "a");
    // One that names the held-out sets, and one of the earliest, which go by the count of tokens.
    for (const named of [true, false]) {
      const earlier = await makeEarlier(recipe, folder, named);
      const again = await stages(recipe, `earlier-${named}`);
      assertEquals(again, { ...first, said: `using the teacher's cache ${earlier}` });
      await Deno.remove(earlier, { recursive: true });
      await stages(recipe, `anew-${named}`);
    }

    // The last row for training is held out as well: the samples together, and their order, are the same.
    const [train, heldOut] = [await Deno.readTextFile(files.train), await Deno.readTextFile(files.heldOut)];
    const lines = train.trimEnd().split("\n");
    const moved = lines.pop()!;
    const earliest = await makeEarlier(recipe, folder, false);
    await Deno.writeTextFile(files.train, lines.join("\n"));
    await Deno.writeTextFile(files.heldOut, `${moved}\n${heldOut}`);
    const other = await stages(recipe, "c");
    assertMatch(other.said, /^running the teacher over 46 samples$/);
    const live = await stages(recipeFor(files), "d");
    assertAlmostEquals(other.teacher, live.teacher, 1e-6);
    assertNotEquals(other.teacher, first.teacher);
    // And each goes on finding its own: rows are shared, what was measured is not.
    await Deno.remove(earliest, { recursive: true });
    assertMatch((await stages(recipe, "e")).said, /^using the teacher's cache /);
    await Deno.writeTextFile(files.train, train);
    await Deno.writeTextFile(files.heldOut, heldOut);
    const back = await stages(recipe, "f");
    assertMatch(back.said, /^running the teacher over 6 samples$/);
    assertAlmostEquals(back.teacher, first.teacher, 1e-6);
  });
});

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

Deno.test("what is finished of a cache stays when a run is stopped in the middle, and is not made again", async () => {
  await withTiny(async (files) => {
    const recipe = recipeFor(files, { topK: 8 });
    const folder = `${files.folder}/run`;
    await Deno.mkdir(folder);
    const shards = async () => (await shardTimes(`${folder}/teacher-cache`)).length;
    let slices = 0;
    const events: RunEventBody[] = [];
    const result = await distillRun(recipe, {
      ...{ folder, resume: false, resumeLimit: Infinity, registry: new Registry().addAll(builtins) },
      emit(event) {
        if (event.type === "heartbeat") slices++;
        else events.push(event);
      },
      control: () =>
        slices > 0 && events.some((e) => e.type === "stage" && e.stage === "cache") ? "stop" : "run",
    });
    assertEquals(result.status, "paused");
    const said = async (name: string) => {
      const events: RunEventBody[] = [];
      await runHere(recipe, folder, { resume: name !== "a", control: () => "stop" }, events);
      return events.flatMap((e) => (e.type === "stage" && e.stage === "cache" ? [e.message] : []))[0]!;
    };
    // What a process that was killed left behind is cleared away.
    const [cache] = await cachesIn(`${folder}/teacher-cache`);
    const unfinished = `${folder}/teacher-cache/${cache}/shards/.x.safetensors.01234567.tmp`;
    await Deno.writeTextFile(unfinished, "half");
    assertMatch(await said("a"), /^running the teacher over \d+ samples$/);
    assertEquals(await cachesIn(`${folder}/teacher-cache/${cache}/claims`), []);
    assert(await shards() >= 2);
    await assertRejects(() => Deno.stat(unfinished), Deno.errors.NotFound);
    assertMatch(await said("b"), /^using the teacher's cache /);
  });
});

Deno.test("the training program of a cached teacher has nothing of the teacher in it", async () => {
  await withTiny(async (files) => {
    using live = await tinySetup(recipeFor(files));
    using cached = await tinySetup(recipeFor(files, { topK: 8 }));
    using hidden = await tinySetup(recipeFor(files, { payload: "hidden" }));
    const [a, b, c] = [live, cached, hidden].map((setup) => planTraining(setup, DEFAULT_DEVICE).plan);
    // Of hidden states, the teacher's head; here the student has the same one.
    assertEquals(
      [...c!.storages.values()].filter(({ category }) => category === "teacher weights").length,
      0,
    );
    assert(c!.storages.has("cached.hidden") && !a!.storages.has("cached.hidden"));
    assertEquals([...c!.blocks.keys()], ["microBatch", "update", "evaluate"]);
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
      [
        { payload: "hidden" },
        [{ loss: "forward-kl" }, { loss: "hidden-state-mse" }],
        /objective\.1: with teacher\.cache, "hidden-state-mse" cannot be had: .* no inner values of the teacher/,
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
        [{}, /needs one of topK and samples, such as .*, or payload: hidden/],
        [{ payload: "hidden", topK: 4 }, /needs one of topK and samples/],
        [{ payload: "hidden", precision: "f16" }, /must be .* bf16, int8 or f32 for payload: hidden/],
        [{ topK: 4, precision: "bf16" }, /must be f16 or f32 for logits/],
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
