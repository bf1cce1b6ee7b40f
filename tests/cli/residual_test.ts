/** `limbeck residual`, `extract-lora` and `merge-adapters` as users call them. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { namesIn, valuesOf, withModels } from "../merge/tiny_merge.ts";
import { fakeTerminal } from "./fake_terminal.ts";

const MODELS = { base: {}, tuned: { seed: 2 }, other: { seed: 3 } };

async function limbeck(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = fakeTerminal();
  const code = await main(argv, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

Deno.test("a residual is written as a model and as an adapter, which merges into the new base", () =>
  withModels(MODELS, async (f) => {
    const three = [`${f}/base`, `${f}/tuned`, `${f}/other`];
    const model = await limbeck("residual", ...three, "--output", `${f}/model`);
    assertEquals([model.code, model.err], [0, ""]);
    assertMatch(model.out, /^Wrote .*model$/m);

    const adapter = await limbeck("residual", ...three, "--output", `${f}/adapter`, "--rank", "99");
    assertEquals(adapter.code, 0, adapter.err);
    assertMatch(adapter.out, /layer +relative error\n0 +0\.0000\n1 +0\.0000\nall +0\.0000\n/);
    assertMatch(adapter.out, /\d\d?\.\d % of the difference's squared norm lies where no adapter reaches/);

    const into = await limbeck(
      "merge-adapters",
      `${f}/adapter`,
      "--into",
      `${f}/other`,
      "--output",
      `${f}/both`,
    );
    assertEquals(into.code, 0, into.err);
    const [whole, linear, other] = await Promise.all([`${f}/model`, `${f}/both`, `${f}/other`].map(valuesOf));
    for (const [name, values] of linear!) {
      const expected = (name.includes("_proj") ? whole! : other!).get(name)!;
      for (const [i, value] of values.entries()) {
        assert(Math.abs(value - expected[i]!) < 2e-6, `${name} ${i}: ${value}, ${expected[i]}`);
      }
    }
    assertEquals(namesIn(f), ["adapter", "base", "both", "model", "other", "tuned"]);
  }));

Deno.test("adapters are extracted, merged by every method, and told of in JSON", () =>
  withModels(MODELS, async (f) => {
    const extract = async (tuned: string) => {
      const { code, out, err } = await limbeck(
        ...[
          "extract-lora",
          `${f}/base`,
          `${f}/${tuned}`,
          "--rank",
          "3",
          "--output",
          `${f}/of-${tuned}`,
          "--json",
        ],
      );
      assertEquals(code, 0, err);
      return JSON.parse(out);
    };
    const [one] = [await extract("tuned"), await extract("other")];
    assertEquals([one.rank, one.output, one.byLayer.length], [3, `${f}/of-tuned`, 2]);
    assert(one.total > 0.1 && one.total < 1 && one.shareOutside > 0 && one.shareOutside < 1);
    assertEquals(Object.keys(one.byModule).length, 14);

    const both = [`${f}/of-tuned`, `${f}/of-other`];
    const cat = await limbeck("merge-adapters", ...both, "--weight", "1,-0.5", "--output", `${f}/cat`);
    assertEquals(cat.code, 0, cat.err);
    assertStringIncludes(cat.out, "Merged 2 adapters by cat: 14 modules of rank 6");
    const svd = await limbeck(
      ...["merge-adapters", ...both, "--method", "svd", "--rank", "2", "--output", `${f}/svd`, "--json"],
    );
    const told = JSON.parse(svd.out);
    assertEquals([told.method, told.modules, told.ranks], ["svd", 14, [2]]);
    assert(told.total > 0 && told.total < 1);
    const linear = await limbeck("merge-adapters", ...both, "--method", "linear", "--output", `${f}/linear`);
    assertStringIncludes(linear.out, "14 modules of rank 3");
    const card = await Deno.readTextFile(`${f}/cat/README.md`);
    for (const said of ["of-tuned", "-0.5", "exactly"]) assertStringIncludes(card, said);
  }));

Deno.test("what is missing or out of place is an error with its exit code, and nothing is written", () =>
  withModels(MODELS, async (f) => {
    const [base, tuned] = [`${f}/base`, `${f}/tuned`];
    const cases: [code: number, said: string, argv: string[]][] = [
      [2, "an argument is missing", ["residual", base, tuned, "--output", `${f}/o`]],
      [2, "--output FOLDER", ["residual", base, tuned, base]],
      [2, "--dtype must be one of", ["residual", base, tuned, base, "--output", `${f}/o`, "--dtype", "int8"]],
      [2, "--dtype is for models", [
        "residual",
        base,
        tuned,
        base,
        "--output",
        `${f}/o`,
        "--rank",
        "2",
        "--dtype",
        "f16",
      ]],
      [2, "--rank must be a whole number", [
        "residual",
        base,
        tuned,
        base,
        "--output",
        `${f}/o`,
        "--rank",
        "0",
      ]],
      [2, "--rank RANK", ["extract-lora", base, tuned, "--output", `${f}/o`]],
      [2, "--rank RANK", ["merge-adapters", base, "--method", "svd", "--output", `${f}/o`]],
      [2, "--rank is for --method svd", ["merge-adapters", base, "--rank", "2", "--output", `${f}/o`]],
      [2, "--weight has 1 numbers for 2", [
        "merge-adapters",
        base,
        base,
        "--weight",
        "1",
        "--output",
        `${f}/o`,
      ]],
      [2, "--method must be one of", ["merge-adapters", base, "--method", "ties", "--output", `${f}/o`]],
      [3, "no such file", ["merge-adapters", base, "--output", `${f}/o`]],
      [3, "no such file", ["residual", base, `${f}/nowhere`, base, "--output", `${f}/o`]],
      [3, "is already there", ["extract-lora", base, tuned, "--rank", "2", "--output", tuned]],
    ];
    for (const [code, said, argv] of cases) {
      const found = await limbeck(...argv);
      assertEquals(found.code, code, argv.join(" "));
      assertStringIncludes(found.err, said);
    }
    assertEquals(namesIn(f), ["base", "other", "tuned"]);
  }));
