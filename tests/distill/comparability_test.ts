// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { checkComparable, comparedRecipe } from "../../src/distill/run/comparability.ts";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import { InputError } from "../../src/base/errors.ts";
import type { RecipeInput, SelfRecipe } from "../../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { type TinyFiles, tinyRows, withTiny, writeTinyModel } from "./tiny_model.ts";

/** Opens recipes that differ from the first, which is called `first`, in these sections. */
async function opened(files: TinyFiles, ...changes: Partial<RecipeInput>[]) {
  const base = {
    teacher: { model: files.teacher },
    student: { model: "teacher", layers: [0, 2] },
    data: { train: files.train, heldOut: files.heldOut, contextLength: 64 },
    train: { steps: 4, warmup: 0, tokensPerMicroBatch: 64 },
  };
  const all = [];
  for (const [i, change] of [{}, ...changes].entries()) {
    const prepared = await prepareRun(parseRecipe({
      teacher: base.teacher,
      student: change.student ?? base.student,
      data: { ...base.data, ...change.data },
      train: { ...base.train, ...change.train },
      ...(change.teacher ? { teacher: change.teacher } : {}),
      ...(change.objective ? { objective: change.objective } : {}),
    }));
    all.push(comparedRecipe(i === 0 ? "first" : `other-${i}`, prepared));
    prepared.close();
  }
  return all;
}

Deno.test("checkComparable() refuses another teacher, held-out data or context length by name", () =>
  withTiny(async (files) => {
    const [teacher, heldOut] = [`${files.folder}/teacher-2`, `${files.folder}/heldout-2.jsonl`];
    await writeTinyModel(teacher, { seed: 2 });
    await Deno.writeTextFile(heldOut, tinyRows(6, 3));
    const { train } = files;
    const recipes = await opened(
      files,
      { teacher: { model: teacher } },
      { data: { train, heldOut } },
      { data: { train, contextLength: 32 } },
      { data: { train, mask: "all" } },
      { objective: [{ loss: "reverse-kl" }] },
    );
    const { message } = await assertRejects(() => checkComparable(recipes), InputError);
    assertMatch(message, /other-1: another teacher than first: \S+teacher-2, not \S+teacher\n/);
    assertMatch(
      message,
      /other-2: another held-out data than first: \S+heldout-2.jsonl, not \S+heldout.jsonl\n/,
    );
    assertMatch(message, /other-3: another context length than first: 32, not 64\n/);
    assertMatch(
      message,
      /other-4: another held-out data than first: \S+, data.mask all, not \S+, data.mask auto/,
    );
    assertEquals(message.includes("other-5"), false);
  }));

Deno.test("checkComparable() compares with several teachers, and with the student itself, by what they are", () =>
  withTiny(async (files) => {
    const [other, copy] = [`${files.folder}/other`, `${files.folder}/copy`] as const;
    await writeTinyModel(other, { seed: 2 });
    await writeTinyModel(copy);
    const several = (combine: "best" | "product", second: string, weights: object = {}) => ({
      teacher: {
        combine,
        teachers: [{ model: files.teacher, name: "x" }, { model: second, name: "y", ...weights }],
      },
    });
    const own = (self?: SelfRecipe, layers = [0, 2]) => ({
      teacher: { model: "student", ...(self ? { self } : {}) },
      student: { model: files.teacher, layers },
    });
    const mean = { kind: "mean", decay: 0.9 } as const;
    const recipes = await opened(
      files,
      several("best", other),
      several("product", other),
      several("product", copy),
      several("product", files.teacher),
      several("product", copy, { weight: 2 }),
      own(),
      own(mean),
      own(mean, [0, 1]),
    );
    const areOne = async (i: number, j: number) =>
      await checkComparable([recipes[i]!, recipes[j]!]).then(() => true, () => false);
    assertEquals(await areOne(0, 1), false);
    assertEquals([await areOne(1, 1), await areOne(1, 2), await areOne(2, 3), await areOne(3, 4)], [
      true,
      false,
      false,
      true,
    ]);
    assertEquals([await areOne(3, 5), await areOne(0, 6), await areOne(6, 6)], [false, false, true]);
    assertEquals([await areOne(6, 7), await areOne(7, 8)], [false, false]);
    const { message } = await assertRejects(
      () => checkComparable([recipes[1]!, recipes[5]!, recipes[7]!]),
      InputError,
    );
    assertMatch(
      message,
      /other-5: another teacher than other-1: product of \S+teacher and \S+copy weight 2, not best of \S+ and \S+other\n/,
    );
    assertMatch(message, /other-7: .*: the student itself \(mean\), not /);
    const warnings = await checkComparable([recipes[7]!, recipes[7]!]);
    assertMatch(warnings[0]!, /teaches itself, so its divergences/);

    // Those behind servers are what they are called there, however they are asked and whatever is kept.
    const far = (model: string, topK: number, change: object = {}) => ({
      teacher: {
        combine: "best" as const,
        teachers: [
          { model: files.teacher, name: "x" },
          { model: "server", server: { url: "https://host/v1", model, ...change }, cache: { topK } },
        ],
      },
    });
    const [, a, b, c] = await opened(
      files,
      far("m", 4),
      far("m", 8, { concurrency: 9, budget: { tokens: 5 } }),
      far("n", 4),
    );
    assertEquals(await checkComparable([a!, b!]), [
      "other-1 measures its divergences to all of x, the 4 largest logits of m of its teacher, others to other parts or all of it",
      "other-2 measures its divergences to all of x, the 8 largest logits of m of its teacher, others to other parts or all of it",
    ]);
    const { message: told } = await assertRejects(() => checkComparable([a!, c!]), InputError);
    assertMatch(told, /best of \S+ and n of https:\/\/host\/v1, not best of \S+ and m of https:/);
  }, { layers: 3 }));

Deno.test("checkComparable() warns where students, steps, tokens per step or training data differ, or a teacher learns", () =>
  withTiny(async (files) => {
    const train = `${files.folder}/train-2.jsonl`;
    await Deno.writeTextFile(train, tinyRows(30, 7));
    const recipes = await opened(
      files,
      { student: { model: "teacher", layers: [0, 1] } },
      { train: { steps: 8 } },
      { train: { accumulation: 2 } },
      { data: { train } },
    );
    const warnings = await checkComparable(recipes);
    assertEquals(warnings.length, 4);
    assertMatch(
      warnings[0]!,
      /^other-1 has another student than first: .*layers \[0, 1\], not .*layers \[0, 2\]$/,
    );
    assertEquals(warnings[1], "other-2 has another number of steps than first: 8, not 4");
    assertEquals(warnings[2], "other-3 has another number of tokens per step than first: 128, not 64");
    assertMatch(warnings[3]!, /^other-4 trains on other data/);
  }));

Deno.test("checkComparable() warns where some recipes measure against a part of the teacher", () =>
  withTiny(async (files) => {
    const cached = { teacher: { model: files.teacher, cache: { topK: 8 } } };
    const [whole, one, another] = await opened(files, cached, cached);
    assertEquals(await checkComparable([one!, another!]), []);
    assertEquals(await checkComparable([whole!, one!]), [
      "other-1 measures its divergences to the 8 largest logits of its teacher, others to other parts or all of it",
    ]);
  }));

Deno.test("checkComparable() wants the same held-out sets, by name where there are several", () =>
  withTiny(async (files) => {
    const { train, heldOut } = files;
    const [other, joined] = [`${files.folder}/other.jsonl`, `${files.folder}/joined.jsonl`];
    await Deno.writeTextFile(other, tinyRows(3, 5));
    await Deno.writeTextFile(joined, await Deno.readTextFile(heldOut) + await Deno.readTextFile(other));
    const list = (...names: string[]) =>
      [heldOut, other].map((path, i) => ({ path, ...(names[i] ? { name: names[i]! } : {}) }));
    const [, one, both, renamed, whole] = await opened(
      files,
      { data: { train, heldOut: [{ path: heldOut, name: "whatever" }] } },
      { data: { train, heldOut: list("a", "b") } },
      { data: { train, heldOut: list("a", "c") } },
      { data: { train, heldOut: joined } },
    );
    const [file] = await opened(files);
    assertEquals(await checkComparable([file!, one!]), []);
    assertEquals(await checkComparable([both!, both!]), []);
    for (const [a, b] of [[both, renamed], [both, whole], [file, both]]) {
      const { message } = await assertRejects(() => checkComparable([a!, b!]), InputError);
      assertMatch(message, /another held-out data than \S+: /);
    }
    const { message } = await assertRejects(() => checkComparable([both!, renamed!]), InputError);
    assertMatch(message, /: a \(\S+heldout.jsonl\), c \(\S+other.jsonl\), not a \(\S+heldout.jsonl\), b \(/);
  }));

Deno.test("checkComparable() takes a copy of a model or of data for what it is", () =>
  withTiny(async (files) => {
    const [teacher, heldOut] = [`${files.folder}/copy`, `${files.folder}/copy.jsonl`];
    await writeTinyModel(teacher);
    await Deno.copyFile(files.heldOut, heldOut);
    const recipes = await opened(files, {
      teacher: { model: teacher },
      data: { train: files.train, heldOut },
    });
    assertEquals(await checkComparable(recipes), []);
  }));
