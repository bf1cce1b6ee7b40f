// @ts-types="../../types/std_assert.d.ts"
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { type AdapterRecipe, defineRecipe, type RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { recipeHash } from "../../src/distill/recipe/parse.ts";
import { inputPaths, mapRecipePaths, recipePaths } from "../../src/distill/recipe/paths.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import { applySets, loadRecipe } from "../../src/distill/recipe/file.ts";
import { recipeJsonSchema } from "../../src/distill/recipe/problems.ts";
import { didYouMean } from "../../src/base/did_you_mean.ts";
import { InputError, UsageError } from "../../src/base/errors.ts";

const LEAST: RecipeInput = { teacher: { model: "t" }, student: { model: "s" }, data: { train: "d" } };

/** What the README and the design show. */
const SHOWN = `
teacher: {model: ./teacher}
student: {model: ./student, layers: [0, 1, 3, 5]}
data: {train: train.jsonl, heldOut: heldout.jsonl, contextLength: 256}
objective:
  - {loss: cross-entropy, weight: 0.5}
  - {loss: forward-kl, weight: 0.5, temperature: 1}
adapter: {type: lora, rank: 16, alpha: 32, targets: all-linear}
train: {steps: 60, tokensPerMicroBatch: 256, accumulation: 1, learningRate: 1.5e-3, schedule: linear, warmup: 5, checkpointEvery: 20, evaluateEvery: 20, activationCheckpointing: auto, seed: 1}
`;

/** Paths and messages of what is wrong with a recipe. */
function problems(value: unknown): Record<string, string> {
  const error = assertThrows(() => parseRecipe(value), RecipeError);
  assertEquals(error.exitCode, 3);
  return Object.fromEntries(error.problems.map(({ path, message }) => [path, message]));
}

function adapterOf(value: unknown): AdapterRecipe {
  const { adapter } = parseRecipe(value);
  assert(adapter !== "none");
  return adapter;
}

const withTrain = (train: Record<string, unknown>) => ({ ...LEAST, train });

async function inFolder(files: Record<string, string>, fn: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${folder}/${name}`, text);
    await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("parseRecipe() fills in the defaults", () => {
  const recipe = parseRecipe(LEAST);
  assertEquals(recipe.objective, [
    { loss: "cross-entropy", weight: 0.5, temperature: 1, options: {} },
    { loss: "forward-kl", weight: 0.5, temperature: 1, options: {} },
  ]);
  const { type, rank, alpha } = adapterOf(LEAST);
  assertEquals([type, rank, alpha], ["lora", 16, 32]);
  assertEquals(parseRecipe(recipe), recipe);
});

Deno.test("parseRecipe() derives what depends on other fields, and only when it was left out", () => {
  assertEquals(adapterOf({ ...LEAST, adapter: { rank: 4 } }).alpha, 8);
  assertEquals(adapterOf({ ...LEAST, adapter: { rank: 4, alpha: 3 } }).alpha, 3);
  assertEquals(parseRecipe(withTrain({ steps: 1000 })).train.warmup, 50);
  assertEquals(parseRecipe(withTrain({ steps: 3 })).train.warmup, 0);
  assertEquals(parseRecipe(withTrain({ steps: 1000, warmup: 7 })).train.warmup, 7);
  const long = { ...LEAST, data: { train: "d", contextLength: 4096 } };
  assertEquals(parseRecipe(long).train.tokensPerMicroBatch, 4096);
});

Deno.test("parseRecipe() takes sections whose lines are all commented out", () => {
  const empty = { objective: null, adapter: null, train: null, samples: null, output: null, limits: null };
  assertEquals(parseRecipe({ ...LEAST, ...empty }), parseRecipe(LEAST));
  assertEquals(parseRecipe(withTrain({ divergence: null })), parseRecipe(LEAST));
});

Deno.test("parseRecipe() reports every problem at once, with its path and what would be right", () => {
  const found = problems({
    teachr: {},
    student: { model: "teacher", layers: [1, 0] },
    data: { train: 3, contextLenght: 4, endToken: "eoss", mask: "complete" },
    objective: [{ loss: "x", weight: -1 }],
    adapter: { targets: ["a", 3], rank: 0, rankPattern: { a: "b", "(": 2 }, alphaPattern: { "(a+)+$": 2 } },
    train: { headChunk: 0, seed: 1.5, learningRate: "fast", divergence: { maxLossFactor: 0.5 } },
    output: { merged: "yes" },
  });
  const expected: Record<string, string> = {
    teachr: 'there is no such field; did you mean "teacher"?',
    teacher: "is missing",
    "student.layers": "layers must rise",
    "data.train": "must be a text or a list, not 3",
    "data.mask": 'must be auto, completion or all, not "complete"; did you mean "completion"?',
    "data.endToken": "must be auto, eos, bos, none or a number",
    "data.contextLenght": 'did you mean "contextLength"?',
    "objective.0.weight": "must be at least 0, not -1. It is: Factor",
    "adapter.rank": "must be at least 1, not 0",
    "adapter.targets.1": "must be a text, not 3",
    "adapter.rankPattern.a": 'must be a number, not "b"',
    "adapter.rankPattern.(": "must be the name of a module",
    "adapter.alphaPattern.(a+)+$": "must be the name of a module",
    "train.headChunk": "must be at least 1",
    "train.seed": "must be a whole number, not 1.5",
    "train.learningRate": 'must be a number, not "fast"',
    "train.divergence.maxLossFactor": "must be above 1",
    "output.merged": 'must be true or false, not "yes"',
  };
  assertEquals(Object.keys(found).sort(), Object.keys(expected).sort());
  for (const [path, message] of Object.entries(expected)) assertStringIncludes(found[path], message);
});

Deno.test("parseRecipe() checks fields against each other, also when others are out of range", () => {
  assertEquals(problems(withTrain({ steps: 5, warmup: 9 })), {
    "train.warmup": "must be fewer than train.steps, but is 9 of 5: set it too, such as train.warmup=0",
  });
  assert("train.warmup" in problems(withTrain({ steps: 5, warmup: 9, headChunk: 0 })));
  assert("train.minimumLearningRate" in problems(withTrain({ minimumLearningRate: 1 })));
  const short = { ...LEAST, data: { train: "d", contextLength: 512 }, train: { tokensPerMicroBatch: 256 } };
  assertStringIncludes(problems(short)["train.tokensPerMicroBatch"], "at least data.contextLength");
  assert("objective" in problems({ ...LEAST, objective: [{ loss: "x", weight: 0 }] }));
});

Deno.test("parseRecipe() refuses what is no recipe, and numbers that are not finite", () => {
  for (const value of [null, undefined, 3, "recipe", []]) assertEquals(Object.keys(problems(value)), [""]);
  for (const learningRate of [NaN, Infinity, -1, 0]) {
    assertEquals(Object.keys(problems(withTrain({ learningRate }))), ["train.learningRate"]);
  }
  const poisoned = JSON.parse(
    '{"__proto__": {"model": 1}, "teacher": {"model": "t"}, "student": {"model": "s"}, "data": {"train": "d"}}',
  );
  assert("__proto__" in problems(poisoned));
  assert("objective" in problems({ ...LEAST, objective: [] }));
});

Deno.test("loadRecipe() reads YAML, JSON and TypeScript alike, with paths relative to the file", () =>
  inFolder({ "a.yaml": SHOWN }, async (folder) => {
    const yaml = await loadRecipe(`${folder}/a.yaml`);
    assertEquals([yaml.teacher.model, yaml.data.heldOut], [`${folder}/teacher`, `${folder}/heldout.jsonl`]);
    assertEquals([yaml.train.learningRate, yaml.student.layers], [1.5e-3, [0, 1, 3, 5]]);
    const { teacher, student, data, objective, adapter, train } = yaml;
    const written = { teacher, student, data, objective, adapter, train };
    await Deno.writeTextFile(
      `${folder}/b.json`,
      JSON.stringify({ $schema: "./recipe.schema.json", ...written }),
    );
    assertEquals(await loadRecipe(`${folder}/b.json`), yaml);
    const module = JSON.stringify(import.meta.resolve("../../src/distill/recipe/recipe.ts"));
    const source = `import { defineRecipe } from ${module};\nexport default defineRecipe(${
      JSON.stringify(written)
    });\n`;
    await Deno.writeTextFile(`${folder}/c.ts`, source);
    assertEquals(await loadRecipe(`${folder}/c.ts`), yaml);
  }));

Deno.test("loadRecipe() keeps `student.model: teacher` and takes paths of --set from the working folder", () =>
  inFolder({ "a.yaml": SHOWN }, async (folder) => {
    const sets = ["student.model=teacher", "data.heldOut=near.jsonl", "teacher.model=/far/t"];
    const recipe = await loadRecipe(`${folder}/a.yaml`, { sets, cwd: "/here" });
    assertEquals(
      [recipe.student.model, recipe.data.heldOut, recipe.teacher.model, recipe.data.train],
      ["teacher", "/here/near.jsonl", "/far/t", `${folder}/train.jsonl`],
    );
  }));

Deno.test("mapRecipePaths() reaches every path of a recipe, checked or not, and nothing else", () => {
  const recipe = {
    teacher: { model: "t", cache: { folder: "c", topK: 4 } },
    student: { model: "teacher", train: ["norms"] },
    data: { train: "d", heldOut: "", contextLength: 8 },
    output: { folder: "o" },
  };
  assertEquals(recipePaths(recipe).map(({ field, of }) => `${field} ${of}`), [
    "teacher.model model",
    "data.train dataset",
    "teacher.cache.folder folder",
    "output.folder folder",
  ]);
  assertEquals(inputPaths(recipe).map(({ path }) => path), ["t", "d"]);
  const mapped = mapRecipePaths(recipe, ({ of, path }) => of === "folder" ? undefined : `/x/${path}`);
  assertEquals<unknown>(mapped, {
    teacher: { model: "/x/t", cache: { topK: 4 } },
    student: recipe.student,
    data: { ...recipe.data, train: "/x/d" },
    output: {},
  });
  assertEquals([recipe.teacher.model, recipe.output.folder], ["t", "o"]);
  assertEquals(Object.keys(mapped), Object.keys(recipe));
  for (const value of [null, 3, "text", [], { teacher: null, data: ["d"] }]) {
    assertEquals<unknown>(mapRecipePaths<unknown>(value, () => "x"), value);
  }
});

Deno.test("loadRecipe() refuses files that are no recipe", () => {
  const bomb = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"];
  for (const [i, name] of [..."bcdefghi"].entries()) {
    bomb.push(`${name}: &${name} [${Array(10).fill(`*${"abcdefgh"[i]}`).join(", ")}]`);
  }
  const files: Record<string, [text: string, message: string]> = {
    "bomb.yaml": [bomb.join("\n"), "holds more than"],
    "cycle.yaml": ["a: &a [*a]\n", "holds more than"],
    "twice.yaml": ["teacher: {model: a}\nteacher: {model: b}\n", "duplicated"],
    "twice.json": ['{"teacher": 1, "teacher": 2}', "duplicated"],
    "tag.yaml": ["teacher: !!js/function 'x'\n", "is not valid YAML"],
    "broken.json": ["{", "is not valid JSON"],
    "yaml.json": ["teacher: {model: a}\n", "is not valid JSON"],
    "empty.yaml": ["# nothing\n", "the recipe is empty"],
    "large.yaml": ["#".repeat(2 << 20), "at most 1048576 bytes"],
    "recipe.txt": ["", '".txt"'],
    "none.ts": ["export const recipe = {};", "exports no recipe"],
    "throws.ts": ['throw new Error("oh no");', "oh no"],
  };
  return inFolder(
    Object.fromEntries(Object.entries(files).map(([name, [text]]) => [name, text])),
    async (folder) => {
      for (const [name, [, message]] of Object.entries(files)) {
        await assertRejects(() => loadRecipe(`${folder}/${name}`), InputError, message, name);
      }
      await assertRejects(() => loadRecipe(`${folder}/absent.yaml`), InputError, "there is no such file");
      await assertRejects(() => loadRecipe(`${folder}/absent.ts`), InputError, "there is no such file");
      await Deno.mkdir(`${folder}/folder.yaml`);
      await assertRejects(() => loadRecipe(`${folder}/folder.yaml`), InputError, "this is a folder");
      await Deno.writeFile(`${folder}/latin.yaml`, new Uint8Array([0x61, 0x3a, 0xe9]));
      await assertRejects(() => loadRecipe(`${folder}/latin.yaml`), InputError, "UTF-8");
    },
  );
});

Deno.test("applySets() changes a copy, reads values as YAML and knows the default objective", () => {
  const original = structuredClone(LEAST);
  const changed = applySets(original, [
    "train.steps=100",
    "objective.0.weight=0.3",
    "adapter.targets=[q_proj, v_proj]",
    "output.merged=false",
    "data.endToken=none",
    "samples.prompts.0=a=b",
  ]);
  assertEquals(original, LEAST);
  const recipe = parseRecipe(changed);
  assertEquals([recipe.train.steps, recipe.objective.map((term) => term.weight)], [100, [0.3, 0.5]]);
  assertEquals([adapterOf(changed).targets, recipe.output.merged], [["q_proj", "v_proj"], false]);
  assertEquals([recipe.data.endToken, recipe.samples.prompts], ["none", ["a=b"]]);
  assertEquals(parseRecipe(applySets(LEAST, ["objective.2.loss=reverse-kl"])).objective.length, 3);
});

Deno.test("applySets() refuses what it cannot apply", () => {
  const cases: [string, string][] = [
    ["train.steps", "expected path=value"],
    ["=3", "expected path=value"],
    ["train..steps=3", "expected path=value"],
    ["objective.5.weight=1", "is a list of 2"],
    ["objective.x=1", "is a list of 2"],
    ["teacher.model.x=1", "teacher.model has no fields"],
    ["__proto__.x=1", "there is no such field"],
    ["train.steps=[1", "cannot be read"],
  ];
  for (const [set, message] of cases) assertThrows(() => applySets(LEAST, [set]), UsageError, message);
  assertEquals(({} as Record<string, unknown>).x, undefined);
  // A field that does not exist is the recipe's problem, with a suggestion.
  assertStringIncludes(problems(applySets(LEAST, ["train.step=3"]))["train.step"], 'did you mean "steps"?');
});

Deno.test("recipeHash() changes with what decides the numbers and with nothing else", () => {
  const recipe = parseRecipe(LEAST);
  const hash = recipeHash(recipe);
  assertEquals(recipeHash(JSON.parse(JSON.stringify(recipe))), hash);
  assertEquals(recipeHash({ ...recipe, output: { folder: "/x", merged: false } }), hash);
  assertEquals(recipeHash({ ...recipe, limits: { watchdogSeconds: 1 } }), hash);
  assertNotEquals(recipeHash({ ...recipe, train: { ...recipe.train, seed: 2 } }), hash);
  assertNotEquals(recipeHash({ ...recipe, objective: recipe.objective.toReversed() }), hash);
});

Deno.test("recipe.schema.json is what `deno task schema` writes", async () => {
  const text = await Deno.readTextFile(new URL("../../recipe.schema.json", import.meta.url));
  assertEquals(JSON.parse(text), JSON.parse(JSON.stringify(recipeJsonSchema())));
});

Deno.test("every field of the schema says what it means", () => {
  const silent: string[] = [];
  const visit = (node: Record<string, unknown>, path: string) => {
    for (
      const [name, field] of Object.entries(
        (node.properties ?? {}) as Record<string, Record<string, unknown>>,
      )
    ) {
      if (name === "$schema") continue;
      if (!field.description) silent.push(`${path}${name}`);
      visit(field, `${path}${name}.`);
      if (field.items) visit(field.items as Record<string, unknown>, `${path}${name}.`);
    }
  };
  visit(recipeJsonSchema(), "");
  assertEquals(silent, []);
});

Deno.test("defineRecipe() returns the recipe", () => assertEquals(defineRecipe(LEAST), LEAST));

Deno.test("didYouMean() suggests what is near and nothing else", () => {
  const known = ["distill", "resume", "contextLength"];
  assertEquals(didYouMean("distil", known), '; did you mean "distill"?');
  assertEquals(didYouMean("CONTEXTLENGTH", known), '; did you mean "contextLength"?');
  assertEquals(didYouMean("context", known), '; did you mean "contextLength"?');
  for (const far of ["", "x", "train", "quantise"]) assertEquals(didYouMean(far, known), "");
});

Deno.test("a path alone in a list of sets is told how it is written, and files of one name keep their endings", () => {
  const data = (train: unknown) => ({ ...LEAST, data: { train } });
  assertStringIncludes(problems(data(["a.jsonl"]))["data.train.0"]!, "; write {path: a.jsonl}");
  const teachers = problems({ ...LEAST, teacher: { combine: "mixture", teachers: ["./a", "./b"] } });
  assertStringIncludes(teachers["teacher.teachers.1"]!, "; write {model: ./b}");
  const names = (...paths: string[]) =>
    (parseRecipe(data(paths.map((path) => ({ path })))).data.train as { name?: string }[]).map(({ name }) =>
      name
    );
  assertEquals(names("x/a.csv", "a.parquet", "b.jsonl.gz"), ["a.csv", "a.parquet", "b"]);
  assertEquals(Object.keys(problems(data([{ path: "x/a.csv" }, { path: "y/a.csv" }]))), [
    "data.train.1.name",
  ]);
  const named = parseRecipe(data([{ path: "a.csv" }, { path: "b.csv", name: "a" }])).data.train;
  assertEquals((named as { name?: string }[]).map(({ name }) => name), ["a.csv", "a"]);
});
