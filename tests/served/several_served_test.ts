/** Several teachers behind servers, asked at once, each within its own bounds. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type FilledServed, fillServed } from "../../src/runs/served/fill_served.ts";
import { ServedError } from "../../src/served/server.ts";
import type { LimbeckError } from "../../src/base/errors.ts";
import { builtins } from "../../plugins/mod.ts";
import { Registry } from "../../src/registry/registry.ts";
import { openRecipe } from "../../src/distill/run/open_recipe.ts";
import { estimate } from "../../src/distill/run/inspect_recipe.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { CacheFolder } from "../../src/distill/teacher/cache_folder.ts";
import { wantedCache } from "../../src/distill/teacher/make_cache.ts";
import { keptLosses, lossesOf } from "../../src/distill/teacher/sample_losses.ts";
import { preparedOf, setupOf } from "../../src/distill/teacher/teacher_targets.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import {
  type RecipeChanges,
  TINY_VOCABULARY,
  type TinyFiles,
  tinyRecipe,
  tinyTokenizerJson,
  withTiny,
} from "../distill/tiny_model.ts";
import { fakeLogProbabilities, type FakeOptions, type FakeServer, fakeServer } from "./fake_server.ts";

const tokenizer = TextTokenizer.fromJson(
  tinyTokenizerJson(),
  { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", add_bos_token: true },
  "tiny",
);
const patience = { tries: 4, pause: 1, longestPause: 20 };

interface Test {
  readonly files: TinyFiles;
  readonly server: FakeServer;
  /** One behind the server by its name there, and changes of how it is asked. */
  served(model: string, change?: object): object;
  recipe(teacher: object): Recipe;
  fill(recipe: Recipe): Promise<FilledServed[]>;
}

/** Rows name the teachers `here`, `far` and `x` in turn. */
function withServers(fake: Partial<FakeOptions>, fn: (test: Test) => Promise<void>): Promise<void> {
  return withTiny(async (files) => {
    const server = fakeServer({
      vocabulary: TINY_VOCABULARY,
      encode: (text) => [...tokenizer.encode(text)],
      ...fake,
    });
    for (const path of [files.train, files.heldOut]) {
      const rows = (await Deno.readTextFile(path)).trim().split("\n").slice(0, 12);
      const tagged: object[] = rows.map((row, i) => ({
        ...JSON.parse(row),
        teacher: ["here", "far", "x"][i % 3],
      }));
      // The same tokens, of which fewer are learnt.
      tagged.push({ text: "the cat sat", teacher: "far" }, {
        ...{ prompt: "the cat", completion: " sat" },
        teacher: "far",
      });
      await Deno.writeTextFile(path, tagged.map((row) => JSON.stringify(row) + "\n").join(""));
    }
    try {
      await fn({
        ...{ files, server },
        served: (model, change = {}) => ({
          model: "server",
          server: { url: server.url, model, concurrency: 3, timeoutSeconds: 60, ...change },
          cache: { topK: 6, precision: "f32", folder: `${files.folder}/caches` },
        }),
        recipe: (teacher) =>
          tinyRecipe(files, {
            teacher: teacher as NonNullable<RecipeChanges["teacher"]>,
            student: { model: files.teacher, layers: [0, 2] },
            objective: [{ loss: "forward-kl", tokens: "all" }],
          }),
        fill: (recipe) => fillServed(recipe, { place: `${files.folder}/none`, patience }),
      });
    } finally {
      await server.close();
    }
  }, { layers: 3 });
}

/** Requests about samples by the name of the model that was asked; without the probes, which are about one text. */
function askedAbout({ server }: Test, from = 0): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { model } of server.seen.slice(from)) {
    counts.set(String(model), (counts.get(String(model)) ?? 0) + 1);
  }
  return counts;
}

Deno.test("two behind one address are asked at once, each for the samples that it may teach, and for nothing twice", () =>
  withServers({}, async (test) => {
    const { files, served, recipe, server, fill } = test;
    const here = { model: files.teacher, name: "here" };
    const both = [here, { ...served("far", { budget: { requests: 200 } }) }, { ...served("m/x") }];
    // Rows choose.
    const tagged = recipe({ combine: "tag", teachers: both });
    const registry = new Registry().addAll(builtins);
    await openRecipe(tagged, registry, async (opened) => {
      const { servedTeachers, served, teacherPass } = await estimate(opened, false);
      assertEquals([served, teacherPass], [null, null]);
      assertEquals(servedTeachers!.map((one) => [one.name, one.model]), [["far", "far"], ["x", "m/x"]]);
      assert(
        servedTeachers!.every(({ requests, withinBudget }) => requests > 2 && requests <= 12 && withinBudget),
      );
    });
    const first = await fill(tagged);
    assertEquals(first.map(({ teacher, complete }) => [teacher, complete]), [["far", true], ["x", true]]);
    assert(first.every(({ asked }) => asked > 2 && asked <= 12), `${first.map(({ asked }) => asked)}`);
    assertEquals([...askedAbout(test).keys()].sort(), ["far", "m/x"]);
    assertEquals(
      first.map(({ used }) => used.requests),
      ["far", "m/x"].map((name) => askedAbout(test).get(name)),
    );

    // The best of each: all samples, but those that are there.
    const best = recipe({ combine: "best", teachers: both });
    const before = server.seen.length;
    const second = await fill(best);
    assert(second.every(({ complete }) => complete));
    second.forEach(({ asked, samples }, i) => assertEquals(asked + first[i]!.asked, samples));
    // One more of each: whether the server is still the same.
    assertEquals(server.seen.length - before, second[0]!.asked + second[1]!.asked + 2);
    const after = server.seen.length;
    assert((await fill(best)).every(({ asked }) => asked === 0));
    assertEquals(server.seen.length, after);

    // What is kept of each sample is what the server said of its tokens.
    await openRecipe(best, registry, async ({ prepared, setup }) => {
      const samples = [...prepared.train, ...prepared.heldOut];
      for (const i of [1, 2]) {
        const wanted = await wantedCache(preparedOf(prepared, i), setupOf(setup, i), []);
        const folder = await CacheFolder.open(wanted!.place, wanted!.origin);
        const losses = lossesOf(await keptLosses(folder), samples);
        for (const [s, { ids, supervised }] of samples.entries()) {
          const expected = [...ids.keys()].reduce(
            (sum, t) =>
              t > 0 && supervised[t] === 1
                ? sum - fakeLogProbabilities(TINY_VOCABULARY, [...ids.slice(0, t)])[ids[t]!]!
                : sum,
            0,
          );
          assertAlmostEquals(losses[s]!, expected, 1e-4);
        }
      }
    });
  }));

Deno.test("where one of two cannot be had, the other's answers are kept, and the error names the teacher and its field", () =>
  withServers({
    fault: (_, { model }) => model === "gone" ? { status: 503 } : undefined,
  }, async (test) => {
    const { served, recipe, fill } = test;
    const error: LimbeckError = await assertRejects(
      () => fill(recipe({ combine: "best", teachers: [served("far"), served("gone")] })),
      ServedError,
      "answers 503",
    );
    assertStringIncludes(error.hint!, "the teacher gone");
    const kept = askedAbout(test).get("far")!;
    const [far] = await fill(recipe({ combine: "best", teachers: [served("far"), served("other")] }));
    assert(far!.complete && far!.asked + kept <= far!.samples + 4, `${far!.asked} after ${kept}`);

    const poor = served("poor", { budget: { tokens: 60 } });
    const spent = await assertRejects(
      () => fill(recipe({ combine: "best", teachers: [served("far"), poor] })),
      Error,
      "the budget allows 60 tokens",
    ) as LimbeckError;
    assertStringIncludes(spent.hint!, "teacher.teachers.1.server.budget.tokens");
    assertEquals(
      (await fill(recipe({ combine: "best", teachers: [served("far"), served("poor")] })))[1]!.complete,
      true,
    );
  }));

Deno.test("a wrong tokenizer of one of several is told with its name, before anything of it is kept", () =>
  withServers(
    { encode: (text) => [...tokenizer.encode(text)].map((id) => (id + 1) % TINY_VOCABULARY) },
    async ({ served, recipe, fill, files }) => {
      const teachers = [{ model: files.teacher, name: "here" }, served("far")];
      const error = await assertRejects(
        () => fill(recipe({ combine: "tag", teachers: [...teachers, { ...served("x") }] })),
        Error,
        "makes other tokens of a text",
      ) as LimbeckError;
      assertStringIncludes(error.hint!, "about the teacher ");
    },
  ));
