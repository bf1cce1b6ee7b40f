/** What the command line says of lists of training and held-out sets. */
// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { tinyRows, withTiny } from "../distill/tiny_model.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

Deno.test("validate, estimate and preview tell of each set of a list; what is wrong with one has its place", () =>
  withTiny(async ({ folder, teacher, train, heldOut }) => {
    await Deno.writeTextFile(`${folder}/other.jsonl`, tinyRows(8, 4));
    const recipe = `${folder}/recipe.yaml`;
    await Deno.writeTextFile(
      recipe,
      `teacher: {model: ${teacher}}
student: {model: teacher, layers: [0, 2]}
data:
  train: [{path: ${train}, weight: 1}, {path: other.jsonl, weight: 3}, {path: ${heldOut}, name: unused, weight: 0}]
  mix: tokens
  heldOut: [{path: ${heldOut}, name: seen}, {path: other.jsonl}]
  contextLength: 64
train: {steps: 10, warmup: 0, tokensPerMicroBatch: 64}
`,
    );
    const valid = await limbeck("validate", recipe);
    assertEquals(valid.code, 0, valid.err);
    assertMatch(valid.out, /\n {2}train: 40 samples, .*; 25 % of the tokens drawn\n/);
    assertMatch(valid.out, /\n {2}unused: 6 samples, .*; 0 % of the tokens drawn\n/);
    assertMatch(valid.out, /\nHeld-out data .*\n {2}seen: 6 samples, .*\n {2}other: 8 samples/);
    const needed = await limbeck("estimate", recipe);
    assertMatch(needed.out, /\n {2}other: 75 % of them, so its \d+ tokens are read [\d.]+ times\n/);
    assertMatch(needed.out, /\n {2}unused: nothing is drawn of it\n/);
    const { samples } = JSON.parse((await limbeck("preview", recipe, "--samples", "2", "--json")).out);
    assertEquals(samples.map(({ source }: { source: { file: string } }) => source.file), [
      train,
      `${folder}/other.jsonl`,
    ]);

    const wrong = await limbeck(
      "validate",
      recipe,
      "--set",
      "data.train.1.weight=-1",
      "--set",
      "data.train.0.path=none",
    );
    assertEquals(wrong.code, 3);
    assertStringIncludes(wrong.err, "data.train.1.weight: must be at least 0, not -1");
    await Deno.writeTextFile(`${folder}/other.jsonl`, "");
    const empty = await limbeck("validate", recipe);
    assertEquals(empty.code, 3);
    assertStringIncludes(empty.err, `data.train.1: ${folder}/other.jsonl: the dataset is empty`);
  }));

Deno.test("eval measures several datasets, each as it does one", () =>
  withTiny(async ({ teacher, train, heldOut }) => {
    const measure = async (...files: string[]) => {
      const flags = files.flatMap((file) => ["--dataset", file]);
      const { code, out, err } = await limbeck("eval", "--model", teacher, ...flags, "--no-setup", "--json");
      assertEquals(code, 0, err);
      return JSON.parse(out);
    };
    const one = await measure(heldOut);
    const { sets, ...first } = await measure(heldOut, train);
    assertEquals(first, one);
    assertEquals(sets.map(({ name, data, samples }: Record<string, unknown>) => [name, data, samples]), [
      ["heldout", heldOut, 6],
      ["train", train, 40],
    ]);
    assertEquals("sets" in one, false);
    assertAlmostEquals(sets[1].perplexity, Math.exp(sets[1].loss), 1e-9);
    const { out } = await limbeck(
      "eval",
      "--model",
      teacher,
      "--dataset",
      heldOut,
      "--dataset",
      train,
      "--no-setup",
    );
    assertMatch(
      out,
      new RegExp(`\\nheldout +${one.loss.toFixed(4)} +${one.perplexity.toFixed(3)} +6 +\\d+\\n`),
    );
  }));
