/** What the command line says of weights that are quantised. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { type TinyFiles, withTiny } from "../distill/tiny_model.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

async function recipeOf({ folder, teacher, train, heldOut }: TinyFiles): Promise<string> {
  const recipe = {
    teacher: { model: teacher },
    student: { model: "teacher", layers: [0, 2] },
    data: { train, heldOut, contextLength: 64 },
    train: { steps: 4, warmup: 0, tokensPerMicroBatch: 64 },
    samples: { tokens: 0 },
  };
  await Deno.writeTextFile(`${folder}/recipe.json`, JSON.stringify(recipe));
  return `${folder}/recipe.json`;
}

Deno.test("estimate names what weights lie in, and counts it", () =>
  withTiny(async (files) => {
    const recipe = await recipeOf(files);
    const set = ["--set", "student.quantize=nf4", "--set", "teacher.quantize=q8_0"];
    const { out, code } = await limbeck("estimate", recipe, ...set);
    assertEquals(code, 0);
    // Rows of 44 values, of down_proj, are no whole blocks of Q8_0; what neither has quantised is the same for both.
    assertMatch(
      out,
      /\n {2}teacher weights \(f32, q8_0\) +[\d.]+ KiB\n {2}student weights \(nf4\) +[\d.]+ KiB\n/,
    );
    const found = JSON.parse((await limbeck("estimate", recipe, ...set, "--json")).out);
    const { nf4 } = found.weightTypes["student weights"];
    assertEquals(nf4, found.bytes["student weights"]);
    const { f32, q8_0 } = found.weightTypes["teacher weights"];
    assertEquals(f32 + q8_0, found.bytes["teacher weights"]);
    // Of each of two layers: 32 x 32 twice, 16 x 32 twice, 44 x 32 three times.
    assertEquals(nf4, 2 * (2 * 16 + 2 * 8 + 3 * 22) * 36 + 2 * 3 * 8);
  }));

Deno.test("a word that is no quantisation is refused with its place, and weights that do not fit can be quantised", () =>
  withTiny(async (files) => {
    const recipe = await recipeOf(files);
    const wrong = await limbeck("validate", recipe, "--set", "student.quantize=int4");
    assertEquals(wrong.code, 3);
    for (const part of ["student.quantize", "nf4-double", "q8_0"]) assertStringIncludes(wrong.err, part);
    const tight = await limbeck(
      "estimate",
      recipe,
      "--set",
      "limits.gpuBytes=1000",
      "--set",
      "teacher.quantize=nf4",
    );
    assertEquals(tight.code, 4);
    assertStringIncludes(tight.err, "or keep linear layers in 4 bits (student.quantize: nf4)");
  }));

Deno.test("a model that another tool has quantised is refused by its method", () =>
  withTiny(async (files) => {
    const path = `${files.teacher}/config.json`;
    const config = JSON.parse(await Deno.readTextFile(path));
    await Deno.writeTextFile(
      path,
      JSON.stringify({ ...config, quantization_config: { quant_method: "gptq" } }),
    );
    const { code, err } = await limbeck("validate", await recipeOf(files));
    assertEquals(code, 3);
    assertStringIncludes(err, "the weights are quantised by GPTQ, which is not read");
    assertStringIncludes(err, "quantize: nf4 in the recipe");
  }));
