/** `limbeck merge` as users call it. */
// @ts-types="../../types/std_colors.d.ts"
import { stripAnsiCode } from "@std/fmt/colors";
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { WorkProgress } from "../../src/cli/terminal/work_progress.ts";
import { namesIn, valuesOf, withModels } from "../merge/tiny_merge.ts";
import { fakeOutput, fakeTerminal } from "./fake_terminal.ts";

const MODELS = { base: {}, a: { seed: 2 }, b: { seed: 3 } };

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

Deno.test("the short form, our recipe and mergekit's give the same model", async () => {
  await withModels(MODELS, async (f) => {
    await Deno.writeTextFile(
      `${f}/ours.yaml`,
      "method: task-arithmetic\nbase: base\nmodels:\n  - {model: a, weight: 0.5}\n  - {model: b, weight: 0.25}\n" +
        "options: {lambda: 0.9}\noutput: ours\n",
    );
    const mergekit = {
      merge_method: "task_arithmetic",
      base_model: `${f}/base`,
      models: [{ model: `${f}/a`, parameters: { weight: 0.5 } }, {
        model: `${f}/b`,
        parameters: { weight: 0.25 },
      }],
      parameters: { lambda: 0.9, int8_mask: true },
      dtype: "float32",
    };
    await Deno.writeTextFile(`${f}/theirs.json`, JSON.stringify(mergekit));
    const short = [
      "--method",
      "task-arithmetic",
      `${f}/a`,
      `${f}/b`,
      "--base",
      `${f}/base`,
      "--weight",
      "0.5,0.25",
    ];
    const said = [
      await limbeck("merge", ...short, "--set", "lambda=0.9", "--output", `${f}/short`),
      await limbeck("merge", `${f}/ours.yaml`),
      await limbeck("merge", `${f}/theirs.json`, "--output", `${f}/theirs`, "--like", "mergekit"),
    ];
    for (const { code, err } of said) assertEquals(code, 0, err);
    assertStringIncludes(said[0]!.out, "Merged 2 models on a base by task-arithmetic: ");
    assertStringIncludes(said[2]!.err, "int8_mask has no effect on the result");
    const [first, ...others] = await Promise.all(
      ["short", "ours", "theirs"].map((name) => valuesOf(`${f}/${name}`)),
    );
    for (const other of others) assertEquals(other, first);
  });
});

Deno.test("what mergekit does otherwise than the paper is said once, and followed when asked", async () => {
  await withModels(MODELS, async (f) => {
    await Deno.writeTextFile(
      `${f}/m.json`,
      JSON.stringify({
        merge_method: "dare_linear",
        base_model: `${f}/base`,
        models: [
          { model: `${f}/base`, parameters: { weight: 1 } },
          { model: `${f}/a`, parameters: { weight: 1, density: 0.5, gamma: 0.1 } },
        ],
      }),
    );
    const plain = await limbeck("merge", `${f}/m.json`, "--output", `${f}/plain`);
    assertEquals(plain.code, 0, plain.err);
    assertStringIncludes(
      plain.err,
      "rescaling is density, as the paper has it; mergekit has l1: --like mergekit",
    );
    assertStringIncludes(
      plain.err,
      "gamma has no effect: dare-linear has no such option",
    );
    const like = await limbeck("merge", `${f}/m.json`, "--output", `${f}/like`, "--like", "mergekit");
    assert(!like.err.includes("rescaling"), like.err);
    const [a, b] = await Promise.all(["plain", "like"].map((name) => valuesOf(`${f}/${name}`)));
    assert(
      [...a!.values()].some((values, i) => values.some((value, k) => value !== [...b!.values()][i]![k])),
    );
    assertStringIncludes(await Deno.readTextFile(`${f}/like/README.md`), "like mergekit");
  });
});

Deno.test("--dry-run shows the plan and writes nothing; --json is one value", async () => {
  await withModels(MODELS, async (f) => {
    const models = [`${f}/a`, `${f}/b`];
    const shown = await limbeck(
      "merge",
      "--method",
      "linear",
      ...models,
      "--dry-run",
      "--set",
      "weight=[0,1]",
    );
    assertEquals(shown.code, 0, shown.err);
    assertMatch(
      shown.out,
      /model\.layers\.1\.mlp\.up_proj\.weight +\[28, 16\] +normalize true +1 \(weight 1\) \+ 2 \(weight 1\)/,
    );
    assertMatch(shown.out, /^1 +\S+\/a\n2 +\S+\/b\n/m);
    assertStringIncludes(shown.out, "Nothing was written.");
    const json = await limbeck("merge", "--method", "linear", ...models, "--dry-run", "--json");
    const plan = JSON.parse(json.out);
    assertEquals([plan.method, plan.layers, plan.tensors[0].parents.length], ["linear", 2, 2]);
    assertEquals(namesIn(f), ["a", "b", "base"]);
    const done = await limbeck(
      "merge",
      "--method",
      "linear",
      ...models,
      "--output",
      `${f}/m`,
      "--json",
      "--dtype",
      "f16",
    );
    const { output, dtype, files } = JSON.parse(done.out);
    assertEquals([output, dtype, Object.keys(files)], [`${f}/m`, "f16", ["model.safetensors"]]);
  });
});

Deno.test("wrong usage of merge is told before anything is opened", async () => {
  const cases: readonly [argv: string[], said: string][] = [
    [[], "name a recipe, or a method and models"],
    [["--method", "linear"], "name the models to merge"],
    [["a", "b"], "several models need --method METHOD"],
    [["r.yaml", "--base", "b"], "--base is for --method"],
    [["--method", "linear", "a", "b", "--weight", "1"], "--weight has 1 numbers for 2 models"],
    [["--method", "linear", "a", "b", "--weight", "1,x"], "--weight must be numbers with commas"],
    [["--method", "linear", "a"], "name the folder to write: --output FOLDER"],
    [["--method", "linear", "a", "--dtype", "f8", "--output", "o"], "--dtype must be one of f32, f16, bf16"],
    [["--method", "linear", "a", "--seed=-1", "--output", "o"], "--seed must be a whole number"],
    [["--method", "linear", "a", "--outptu", "o"], 'did you mean "--output"'],
  ];
  for (const [argv, said] of cases) {
    const { code, err } = await limbeck("merge", ...argv);
    assertEquals(code, 2, argv.join(" "));
    assertStringIncludes(err, said);
  }
});

Deno.test("bad recipes of a merge end with 3 and name the file", async () => {
  await withModels({ a: {} }, async (f) => {
    await Deno.writeTextFile(`${f}/r.yaml`, "method: linear\nmodels: [{model: a, wieght: 1}]\n");
    const wrong = await limbeck("merge", `${f}/r.yaml`, "--output", `${f}/m`);
    assertEquals(wrong.code, 3);
    assertStringIncludes(
      wrong.err,
      `${f}/r.yaml: 1 problem in the merge recipe\n  models.0.wieght: linear has no`,
    );
    await Deno.writeTextFile(`${f}/r.yaml`, "method: [\n");
    assertEquals((await limbeck("merge", `${f}/r.yaml`, "--output", `${f}/m`)).code, 3);
    assertEquals((await limbeck("merge", `${f}/none.yaml`, "--output", `${f}/m`)).code, 3);
    const taken = await limbeck("merge", "--method", "linear", `${f}/a`, "--output", `${f}/a`);
    assertEquals([taken.code, namesIn(f)], [3, ["a", "r.yaml"]]);
  });
});

Deno.test("--set reaches options by their name and fields by their path", async () => {
  await withModels({ a: {}, b: { seed: 2 } }, async (f) => {
    await Deno.writeTextFile(`${f}/r.yaml`, "method: linear\nmodels: [{model: a, weight: 1}, {model: b}]\n");
    const { out, err } = await limbeck(
      ...["merge", `${f}/r.yaml`, "--dry-run", "--json"],
      ...["--set", "normalize=false", "--set", "models.1.weight=3", "--set", "outDtype=bf16"],
    );
    const plan = JSON.parse(out || err);
    assertEquals(plan.dtype, "bf16");
    assertEquals(plan.tensors[0].options, { normalize: false });
    assertEquals(plan.tensors[0].parents.map((p: { options: unknown }) => p.options), [{ weight: 1 }, {
      weight: 3,
    }]);
  });
});

Deno.test("a merge method of one's own comes with --plugin", async () => {
  await withModels({ a: {}, b: { seed: 2 } }, async (f) => {
    const contract = new URL("../../src/registry/contract.ts", import.meta.url).href;
    await Deno.writeTextFile(
      `${f}/mine.ts`,
      `import { z } from "zod";
import { CONTRACT_VERSION, defineMerge } from ${JSON.stringify(contract)};
export default defineMerge({
  id: "me/second", version: "1.0.0", contract: CONTRACT_VERSION,
  options: z.strictObject({}), parentOptions: z.strictObject({}),
  base: "none", parents: { least: 2 }, unit: "entries",
  merge: ({ parents }) => parents[1].values,
});
`,
    );
    const argv = ["--method", "me/second", `${f}/a`, `${f}/b`, "--output", `${f}/m`];
    assertStringIncludes((await limbeck("merge", ...argv)).err, 'there is no merge "me/second"');
    const { code, err } = await limbeck("merge", ...argv, "--plugin", `${f}/mine.ts`);
    assertEquals(code, 0, err);
    assertEquals(await valuesOf(`${f}/m`), await valuesOf(`${f}/b`));
  });
});

Deno.test("work shows a bar with the time left on a terminal, and lines elsewhere", () => {
  let now = 0;
  const bar = fakeOutput(true, 70);
  const progress = new WorkProgress(bar.out, "merging", () => now);
  for (now of [1000, 1050, 2000]) progress.update(now, 4000, `${now / 1000} of 4`);
  progress.end();
  const plain = stripAnsiCode(bar.terminal.out);
  assertStringIncludes(plain, "25 %  1 of 4  0:03 left");
  assert(!plain.includes("1.05"), "it is redrawn too often");
  assert(plain.trimEnd().endsWith("50 %  2 of 4  0:02 left"), plain);
  assert(bar.terminal.out.endsWith("\r\x1b[2K"), "the line stays");
  const lines = fakeOutput(false);
  now = 0;
  const plainly = new WorkProgress(lines.out, "merging", () => now);
  for (now of [1000, 6000, 7000, 12000]) plainly.update(now, 24000, "so far");
  plainly.end();
  assertEquals(lines.terminal.out, "merging 25 %  so far  0:18 left\nmerging 50 %  so far  0:12 left\n");
});
