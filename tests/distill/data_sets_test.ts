/** Lists of training and held-out sets: what a recipe may say of them, what is wrong with them, and runs on them. */
// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { openRecipe } from "../../src/distill/run/open_recipe.ts";
import { estimate, preview, validation } from "../../src/distill/run/inspect_recipe.ts";
import { evaluateFiles } from "../../src/distill/evaluate/evaluate_model.ts";
import { OpenedModel } from "../../src/distill/evaluate/measured_model.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { heldOutSets, setName, trainingSets } from "../../src/distill/recipe/data_sets.ts";
import { parseRecipe, RecipeError, recipeHash } from "../../src/distill/recipe/parse.ts";
import { absolutePaths, mapRecipePaths, recipePaths } from "../../src/distill/recipe/paths.ts";
import { applySets } from "../../src/distill/recipe/file.ts";
import { checkRecipePaths } from "../../src/distill/recipe/recipe_paths.ts";
import type { Recipe, RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { InputError } from "../../src/base/errors.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";
import { modelTest } from "../tensor/harness.ts";
import { heldMetrics, runHere } from "./tiny_run.ts";
import { type TinyFiles, tinyRecipe, tinyRows, withTiny } from "./tiny_model.ts";

const registry = new Registry().addAll(builtins);
const LEAST = { teacher: { model: "t" }, student: { model: "s" } };

function problems(data: unknown): Record<string, string> {
  try {
    parseRecipe({ ...LEAST, data });
    return {};
  } catch (error) {
    if (!(error instanceof RecipeError)) throw error;
    return Object.fromEntries(error.problems.map(({ path, message }) => [path, message]));
  }
}

Deno.test("a list of sets gets names of its files and weights of 1; a file alone stays as it was", () => {
  const { data } = parseRecipe({
    ...LEAST,
    data: {
      train: [{ path: "x/chat data.v2.jsonl" }, { path: "b.jsonl", weight: 0.5, name: "maths" }],
      heldOut: "h.jsonl",
    },
  });
  assertEquals(data.train, [
    { path: "x/chat data.v2.jsonl", name: "chat-data.v2", weight: 1 },
    { path: "b.jsonl", name: "maths", weight: 0.5 },
  ]);
  assertEquals(trainingSets(data).map(({ name }) => name), ["chat-data.v2", "maths"]);
  assertEquals(heldOutSets(data), [{ path: "h.jsonl", name: "h" }]);
  const plain = parseRecipe({ ...LEAST, data: { train: "d.jsonl" } });
  assertEquals([plain.data.train, "mix" in plain.data, heldOutSets(plain.data)], [
    "d.jsonl",
    false,
    undefined,
  ]);
  assertEquals(recipeHash(plain), "ae5a1e191b97616e57ffb879a1b143360cdc4cb9c28677764ce2a1ef20426c7e");
  assertEquals([setName("/a/.hidden"), setName("ä b.jsonl"), setName("???")], ["hidden", "ä-b", "data"]);
});

Deno.test("what is wrong with a list of sets is told with the place in it", () => {
  const found = (train: unknown, heldOut?: unknown) => problems({ train, ...(heldOut ? { heldOut } : {}) });
  const [a, b] = [{ path: "a.jsonl" }, { path: "b.jsonl" }];
  assertStringIncludes(
    found([a, { ...b, weight: -1 }])["data.train.1.weight"]!,
    "must be at least 0, not -1",
  );
  assertStringIncludes(
    found([{ ...a, weight: 1e300 }])["data.train.0.weight"]!,
    "must be at most 1000000000",
  );
  assertEquals(found([{ ...a, weight: 0 }, { ...b, weight: 0 }]), {
    "data.train": "at least one weight must be above 0",
  });
  assertEquals(found([{ ...a, weight: 0 }, b]), {});
  assertStringIncludes(
    found([a, { path: "x/a.jsonl" }])["data.train.1.name"]!,
    'is "a.jsonl", as that of entry 0',
  );
  assertStringIncludes(
    found("d", [{ ...a, name: "x" }, { ...b, name: "x" }])["data.heldOut.1.name"]!,
    "a name of its own",
  );
  assertStringIncludes(found([{ ...a, wieght: 2 }])["data.train.0.wieght"]!, 'did you mean "weight"?');
  assertStringIncludes(found([{ ...a, weight: "2" }])["data.train.0.weight"]!, 'must be a number, not "2"');
  assertStringIncludes(found([{ weight: 2 }])["data.train.0.path"]!, "is missing");
  assertEquals(Object.keys(found([{ weight: 2 }])), ["data.train.0.path"]);
  assertStringIncludes(found([{ ...a, name: "a/b" }])["data.train.0.name"]!, "at most 64 letters");
  assertStringIncludes(found([])["data.train"]!, "needs at least 1 entry");
  assertStringIncludes(found("d", [{ ...a, weight: 1 }])["data.heldOut.0.weight"]!, "there is no such field");
  assertStringIncludes(problems({ train: [a], mix: "row" })["data.mix"]!, 'did you mean "rows"?');
});

Deno.test("the paths of a list are paths of the recipe, under their places", async () => {
  const recipe = {
    data: { train: [{ path: "a", weight: 2 }, { path: "/b" }, 7], heldOut: [{ path: "c", name: "x" }] },
  };
  assertEquals(recipePaths(recipe).map(({ field, of, path }) => [field, of, path]), [
    ["data.train.0.path", "dataset", "a"],
    ["data.train.1.path", "dataset", "/b"],
    ["data.heldOut.0.path", "dataset", "c"],
  ]);
  assertEquals(absolutePaths(recipe, "/f").data, {
    train: [{ path: "/f/a", weight: 2 }, { path: "/b" }, 7] as typeof recipe.data.train,
    heldOut: [{ path: "/f/c", name: "x" }],
  });
  assertEquals(recipe.data.train[0], { path: "a", weight: 2 });
  assertEquals(mapRecipePaths(recipe, () => "n").data.heldOut, [{ path: "n", name: "x" }]);
  const changed = applySets(recipe, ["data.train.0.weight=5"]) as typeof recipe;
  assertEquals(changed.data.train[0], { path: "a", weight: 5 });
  const checked = parseRecipe({
    ...LEAST,
    data: { train: [{ path: "/none/a.jsonl" }], heldOut: [{ path: "/none/b.jsonl" }] },
  });
  const { message } = await assertRejects(() => checkRecipePaths(checked), InputError);
  assertStringIncludes(message, "data.train.0.path: /none/a.jsonl: there is no such file");
  assertStringIncludes(message, "data.heldOut.0.path: /none/b.jsonl");
});

/** A second training set, whose texts are longer, and a second held-out set. */
async function writeSets({ folder }: TinyFiles) {
  const [other, unseen] = [`${folder}/other.jsonl`, `${folder}/unseen.jsonl`];
  const long = tinyRows(30, 5).trim().split("\n").map((line) => {
    const { text = "", prompt = "", completion = "" } = JSON.parse(line);
    const row = `${text}${prompt}${completion}`;
    return JSON.stringify({ text: `${row} ${row}` });
  });
  await Deno.writeTextFile(other, long.join("\n") + "\n");
  await Deno.writeTextFile(unseen, tinyRows(5, 9));
  return { other, unseen };
}

Deno.test("each set is checked and encoded under its name; without held-out sets each gives a part of its rows", () =>
  withTiny(async (files) => {
    const { other, unseen } = await writeSets(files);
    const train = [{ path: files.train, name: "a", weight: 1 }, { path: other, weight: 3 }, {
      path: unseen,
      name: "unused",
      weight: 0,
    }];
    const open = async (data: Partial<RecipeInput["data"]>) => {
      const prepared = await prepareRun(
        tinyRecipe(files, { data: { train, heldOut: undefined, ...data } as RecipeInput["data"] }),
      );
      prepared.close();
      return prepared;
    };
    const split = await open({});
    assertEquals(split.sets.train.map(({ name, rows }) => [name, rows.length]), [["a", 38], ["other", 28], [
      "unused",
      4,
    ]]);
    assertEquals(split.sets.heldOut.map(({ name, rows }) => [name, rows.length]), [["a", 2], ["other", 2], [
      "unused",
      1,
    ]]);
    // Nothing is drawn of a set of weight 0, so it is no training data.
    assertEquals(split.train.length, 66);
    assertEquals(split.trainReport.rows, 66);
    const [a, other2] = split.sets.train.map(({ report }) => report);
    assertEquals(split.trainReport.longest, Math.max(a!.longest, other2!.longest));
    assertEquals(split.trainReport.cut, a!.cut + other2!.cut);
    assertEquals(split.trainReport.tokens, split.train.reduce((sum, { ids }) => sum + ids.length, 0));
    const named = await open({
      heldOut: [{ path: files.heldOut, name: "seen" }, { path: unseen }],
      limit: 20,
    });
    assertEquals(named.sets.train.map(({ rows }) => rows.length), [20, 20, 5]);
    assertEquals(named.sets.heldOut.map(({ name, samples }) => [name, samples.length]), [["seen", 6], [
      "unseen",
      5,
    ]]);
    assertEquals(named.heldOut, named.sets.heldOut.flatMap(({ samples }) => samples));

    await Deno.writeTextFile(unseen, "\n");
    await assertRejects(() => open({}), InputError, `data.train.2: ${unseen}: the dataset is empty`);
    await assertRejects(
      () => open({ train: files.train, heldOut: [{ path: unseen }] }),
      InputError,
      "data.heldOut.0: ",
    );
    // What is left of these rows when they are cut is their prompts.
    await Deno.writeTextFile(other, '{"prompt": "the cat", "completion": " sat"}\n'.repeat(2));
    const nothing = open({ contextLength: 2, heldOut: files.heldOut });
    await assertRejects(() => nothing, InputError, `data.train.1: ${other}: no sample is left of 2 rows`);
  }));

Deno.test("validate, estimate and preview know the sets", () =>
  withTiny(async (files) => {
    const { other, unseen } = await writeSets(files);
    const data = {
      train: [{ path: files.train, name: "a", weight: 1 }, { path: other, weight: 3 }],
      heldOut: [{ path: files.heldOut, name: "seen" }, { path: unseen }],
    };
    const shares = await openRecipe(tinyRecipe(files, { data }), registry, async (opened) => {
      const { trainSets, heldOutSets } = validation(opened);
      assertEquals(heldOutSets!.map(({ name, samples }) => [name, samples]), [["seen", 6], ["unseen", 5]]);
      assertEquals((await estimate(opened, false)).trainSets, trainSets);
      assertEquals(preview(opened, false, 4).samples.map(({ source }) => source.file.split("/").at(-1)), [
        ...["train.jsonl", "other.jsonl"],
        ...["train.jsonl", "other.jsonl"],
      ]);
      return trainSets!.map(({ share, tokens, samples }) => ({ share, mean: tokens / samples }));
    });
    const [a, b] = shares as [typeof shares[number], typeof shares[number]];
    assertAlmostEquals(b.share, 3 * b.mean / (a.mean + 3 * b.mean), 1e-12);
    await openRecipe(tinyRecipe(files, { data: { ...data, mix: "tokens" } }), registry, (opened) => {
      assertEquals(validation(opened).trainSets!.map(({ share }) => share), [0.25, 0.75]);
      return Promise.resolve();
    });
    await openRecipe(tinyRecipe(files), registry, (opened) => {
      assertEquals(["trainSets" in validation(opened), "heldOutSets" in validation(opened)], [false, false]);
      return Promise.resolve();
    });
  }));

async function bytesOf(folder: string): Promise<Uint8Array[]> {
  const names = ["adapter/adapter_model.safetensors", "checkpoints/step-000006/state.safetensors"];
  return await Promise.all(names.map((name) => Deno.readFile(`${folder}/${name}`)));
}

function shortRecipe(
  files: TinyFiles,
  data: Partial<RecipeInput["data"]>,
  teacher: Partial<RecipeInput["teacher"]> = {},
): Recipe {
  return tinyRecipe(files, {
    data: data as RecipeInput["data"],
    teacher,
    train: { steps: 6, checkpointEvery: 2, evaluateEvery: 3 },
    output: { merged: false },
  });
}

Deno.test("a run on a list of one set is the run on its file, bit for bit", () =>
  withTiny(async (files) => {
    const [plain, listed]: [RunEventBody[], RunEventBody[]] = [[], []];
    await runHere(shortRecipe(files, {}), `${files.folder}/plain`, {}, plain);
    const data = {
      train: [{ path: files.train, name: "only", weight: 7 }],
      heldOut: [{ path: files.heldOut, name: "h" }],
    };
    const { drawn, heldOutSets } = await runHere(
      shortRecipe(files, data),
      `${files.folder}/listed`,
      {},
      listed,
    );
    assertEquals(await bytesOf(`${files.folder}/listed`), await bytesOf(`${files.folder}/plain`));
    assertEquals(heldMetrics(listed), heldMetrics(plain));
    assertEquals([drawn?.length, heldOutSets], [1, undefined]);
  }));

Deno.test("a mixture reports its shares and each held-out set, and continues bit for bit", () =>
  withTiny(async (files) => {
    const { other, unseen } = await writeSets(files);
    const recipe = shortRecipe(files, {
      train: [{ path: files.train, name: "a", weight: 1 }, { path: other, weight: 3 }],
      mix: "tokens",
      heldOut: [{ path: files.heldOut, name: "seen" }, { path: unseen }],
    });
    const [whole, parts]: [RunEventBody[], RunEventBody[]] = [[], []];
    const result = await runHere(recipe, `${files.folder}/whole`, {}, whole);
    const stopped = { control: (step: number) => step === 3 ? "stop" as const : "run" as const };
    await runHere(recipe, `${files.folder}/parts`, stopped, parts);
    const resumed = await runHere(recipe, `${files.folder}/parts`, { resume: true }, parts);
    assertEquals(await bytesOf(`${files.folder}/parts`), await bytesOf(`${files.folder}/whole`));
    assertEquals(heldMetrics(parts), heldMetrics(whole));
    assertEquals([resumed.drawn, resumed.heldOutSets], [result.drawn, result.heldOutSets]);

    // Also of a run that was over but for its results.
    assertEquals((await runHere(recipe, `${files.folder}/whole`, { resume: true })).drawn, result.drawn);

    const [a, b] = result.drawn!;
    assertEquals([a!.name, b!.name], ["a", "other"]);
    assertAlmostEquals(b!.tokens / (a!.tokens + b!.tokens), 0.75, 0.06);
    const supervised = whole.reduce((sum, e) => sum + (e.type === "metrics" ? e.supervisedTokens : 0), 0);
    assertEquals(a!.supervisedTokens + b!.supervisedTokens, supervised);
    assertEquals(whole.findLast((e) => e.type === "checkpoint")!.drawn, result.drawn);
    const plan = whole.find((e) => e.type === "plan")!;
    assertEquals(plan.data.sets!.map(({ name, weight }) => [name, weight]), [["a", 1], ["other", 3]]);
    assertEquals(plan.data.heldOutSets!.map(({ name }) => name), ["seen", "unseen"]);

    // Each set's figures are those of a run that measures it alone; the first one's are the run's.
    const evaluations = whole.filter((e) => e.type === "evaluation");
    for (const { loss, losses, tokens, sets } of evaluations) {
      assertEquals(sets!.seen, { loss, losses, tokens });
    }
    const [seen, other2] = result.heldOutSets!;
    const { name: _, ...first } = seen!;
    assertEquals(first, result.heldOut);
    assertNotEquals(other2!.after, seen!.after);
    const alone: RunEventBody[] = [];
    const listed = recipe.data.train;
    await runHere(
      shortRecipe(files, { train: listed, mix: "tokens", heldOut: unseen }),
      `${files.folder}/alone`,
      {},
      alone,
    );
    assertEquals(
      evaluations.map(({ step, sets }) => [step, sets!.unseen]),
      alone.filter((e) => e.type === "evaluation").map((
        { step, loss, losses, tokens },
      ) => [step, { loss, losses, tokens }]),
    );
  }));

Deno.test("a cached teacher is known on each held-out set", () =>
  withTiny(async (files) => {
    const { other, unseen } = await writeSets(files);
    const data = {
      train: [{ path: files.train, weight: 1 }, { path: other, weight: 3 }],
      heldOut: [{ path: files.heldOut, name: "seen" }, { path: unseen }],
    };
    const folder = `${files.folder}/caches`;
    const cache = { topK: 8, seed: 1, precision: "f32" as const, folder };
    const live = await runHere(shortRecipe(files, data), `${files.folder}/live`);
    const cached = await runHere(shortRecipe(files, data, { cache }), `${files.folder}/cached`);
    for (const [i, { teacher, tokens }] of cached.heldOutSets!.entries()) {
      assertAlmostEquals(teacher!, live.heldOutSets![i]!.teacher!, 1e-6);
      assertEquals(tokens, live.heldOutSets![i]!.tokens);
    }
    // The same samples as one set have the same rows, and findings of their own.
    const joined = `${files.folder}/joined.jsonl`;
    await Deno.writeTextFile(
      joined,
      await Deno.readTextFile(files.heldOut) + await Deno.readTextFile(unseen),
    );
    const one = await runHere(
      shortRecipe(files, { ...data, heldOut: joined }, { cache }),
      `${files.folder}/one`,
    );
    assertEquals([...Deno.readDirSync(folder)].length, 1);
    const [a, b] = cached.heldOutSets!;
    assertAlmostEquals(
      one.heldOut.teacher!,
      (a!.teacher! * a!.tokens + b!.teacher! * b!.tokens) / (a!.tokens + b!.tokens),
      1e-6,
    );
  }));

modelTest(
  "what sequences come to adds up to the mean over their tokens, and is theirs wherever they lie",
  (gpu) =>
    withTiny(async (files) => {
      const { other } = await writeSets(files);
      const prepared = await prepareRun(
        tinyRecipe(files, { data: { train: other, heldOut: files.heldOut } }),
      );
      prepared.close();
      const samples = [...prepared.heldOut, ...prepared.train.slice(0, 9)];
      const opened = await OpenedModel.open(files.teacher, registry);
      try {
        await opened.measure({ contextLength: 64 }, samples, async (program) => {
          const { losses, tokens } = await program.mean(samples);
          const found = await program.sequences(samples);
          assertEquals(found.length, samples.length);
          assertEquals(
            found.map(({ tokens }) => tokens),
            samples.map((s) => s.supervised.reduce((a, b) => a + b, 0)),
          );
          const sum = found.reduce((sum, { loss }) => sum + loss, 0);
          assertEquals(found.reduce((sum, { tokens }) => sum + tokens, 0), tokens);
          assertAlmostEquals(sum / tokens, losses["cross-entropy"]!, 1e-5);
          const alone = await program.sequences([samples[4]!]);
          assertAlmostEquals(alone[0]!.loss, found[4]!.loss, 1e-4);
          const turned = await program.sequences([...samples].reverse());
          turned.reverse().forEach(({ loss }, i) => assertAlmostEquals(loss, found[i]!.loss, 1e-4));
          assert(new Set(found.map(({ loss }) => loss.toFixed(3))).size > samples.length / 2);
        }, gpu);
      } finally {
        opened.close();
      }
    }),
);

Deno.test("evaluateFiles() measures several datasets with one program, each as it would be alone", () =>
  withTiny(async (files) => {
    const { other } = await writeSets(files);
    const options = { model: files.teacher, registry, contextLength: 64 };
    const both = await evaluateFiles([files.heldOut, other], options);
    assertEquals(await evaluateFiles([other], options), [both[1]!]);
    assertEquals(both.map(({ samples }) => samples), [6, 30]);
  }));
