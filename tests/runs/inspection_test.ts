// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { DeviceError, InputError } from "../../src/errors.ts";
import { RecipeError } from "../../src/distill/recipe.ts";
import {
  BusyError,
  type InspectionOrder,
  InspectionTimeoutError,
  Inspector,
} from "../../src/runs/inspection.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { tinyRecipe, withTiny } from "../distill/tiny_model.ts";

async function json(...argv: string[]) {
  const terminal = fakeTerminal();
  assertEquals(await main([...argv, "--json"], terminal), 0, terminal.err);
  return JSON.parse(terminal.out);
}

const plain = (value: unknown) => JSON.parse(JSON.stringify(value));

Deno.test("a process says of a recipe what the command line says", () =>
  withTiny(async (files) => {
    const recipe = tinyRecipe(files);
    const path = `${files.folder}/recipe.json`;
    await Deno.writeTextFile(path, JSON.stringify(recipe));
    const inspector = new Inspector();
    const [validation, estimate, preview] = await Promise.all([
      inspector.inspect({ kind: "validate", recipe }),
      inspector.inspect({ kind: "estimate", recipe }),
      inspector.inspect({ kind: "preview", recipe, heldOut: true, samples: 2 }),
    ]);
    assertEquals(plain(validation), await json("validate", path));
    assertEquals(plain(estimate), await json("estimate", path));
    assertEquals(plain(preview), await json("preview", path, "--held-out", "--samples", "2"));
  }));

Deno.test("what is wrong comes back as the error that it is", () =>
  withTiny(async (files) => {
    const inspector = new Inspector();
    const recipe = tinyRecipe(files);
    const validate = (change: object) =>
      inspector.inspect({ kind: "validate", recipe: { ...recipe, ...change } });
    const unknown = await assertRejects(
      () => validate({ objective: [{ loss: "no-such", weight: 1, temperature: 1, options: {} }] }),
      RecipeError,
    );
    assertEquals(unknown.problems.map(({ path }) => path), ["objective.0.loss"]);
    const layers = await assertRejects(
      () => validate({ student: { model: "teacher", layers: [0, 99] } }),
      InputError,
      "layers 99 do not exist",
    );
    assertEquals(layers.exitCode, 3);
    await assertRejects(
      () => validate({ data: { ...recipe.data, train: `${files.folder}/none.jsonl` } }),
      InputError,
    );
    await Deno.writeTextFile(files.train, "not JSON\n");
    await assertRejects(() => validate({}), InputError, "1 faulty line");
    const huge = {
      ...recipe,
      train: { ...recipe.train, tokensPerMicroBatch: 4_000_000 },
      limits: { ...recipe.limits, gpuBytes: 1 << 20 },
    };
    await Deno.writeTextFile(files.train, '{"text":"the cat sat on the mat"}\n'.repeat(20));
    await assertRejects(() => inspector.inspect({ kind: "estimate", recipe: huge }), DeviceError);
  }));

Deno.test("a tokenizer or a template that never ends is ended, and named", () =>
  withTiny(async (files) => {
    const inspector = new Inspector();
    const recipe = tinyRecipe(files);
    const late = (order: InspectionOrder) => inspector.inspect(order, { timeoutSeconds: 3 });
    const tokenizer = `${files.teacher}/tokenizer.json`;
    const good = await Deno.readTextFile(tokenizer);
    const hostile = JSON.parse(good);
    // Backtracks without end on a text that does not fit.
    hostile.pre_tokenizer = {
      type: "Split",
      pattern: { Regex: "(a+)+$" },
      behavior: "Isolated",
      invert: false,
    };
    await Deno.writeTextFile(tokenizer, JSON.stringify(hostile));
    await Deno.writeTextFile(files.train, JSON.stringify({ text: "a".repeat(60) + "!" }) + "\n");
    const error = await assertRejects(() => late({ kind: "validate", recipe }), InspectionTimeoutError);
    assertStringIncludes(error.message, "longer than 3 s");
    assertStringIncludes(error.hint!, "tokenizer or chat template");

    await Deno.writeTextFile(tokenizer, good);
    const config = `${files.teacher}/tokenizer_config.json`;
    const settings = JSON.parse(await Deno.readTextFile(config));
    settings.chat_template =
      "{% for i in range(100000000) %}{% for j in range(100000000) %}{{ i }}{% endfor %}{% endfor %}";
    await Deno.writeTextFile(config, JSON.stringify(settings));
    await Deno.writeTextFile(
      files.train,
      JSON.stringify({ messages: [{ role: "user", content: "a" }, { role: "assistant", content: "b" }] }) +
        "\n",
    );
    // Ended by the process's own limits of a template, or by the clock.
    await assertRejects(() => late({ kind: "validate", recipe }), Error);
  }));

Deno.test("the process reads what the recipe names, and may do nothing else", () =>
  withTiny(async (files) => {
    const plugin = `${files.folder}/plugin.ts`;
    const attempts: [string, string][] = [
      ['Deno.readTextFileSync("/etc/hostname")', "read access"],
      ['Deno.writeTextFileSync("/tmp/limbeck-inspected", "")', "write access"],
      ["Deno.listen({ port: 0 })", "net access"],
      ['new Deno.Command("/bin/true").outputSync()', "run access"],
    ];
    for (const [code, refused] of attempts) {
      await Deno.writeTextFile(plugin, `${code};\nexport {};\n`);
      const looked = () =>
        new Inspector().inspect({ kind: "validate", recipe: tinyRecipe(files) }, { plugins: [plugin] });
      const error = await assertRejects(looked, Error);
      assertStringIncludes(error.message, refused);
    }
  }));

Deno.test("few processes look at once, the others wait, and too many are told to come back", () =>
  withTiny(async (files) => {
    const inspector = new Inspector(1);
    const recipe = tinyRecipe(files);
    const abort = new AbortController();
    const all = Array.from(
      { length: 18 },
      () =>
        inspector.inspect({ kind: "validate", recipe }, { signal: abort.signal }).then(
          () => "done",
          (error) => error,
        ),
    );
    assert(await all[17]! instanceof BusyError);
    assertEquals(await all[0], "done");
    abort.abort();
    const rest = await Promise.all(all.slice(1, 17));
    assert(rest.every((outcome) => outcome === "done" || outcome instanceof Error));
    assertEquals(await inspector.inspect({ kind: "validate", recipe }).then(({ valid }) => valid), true);
  }));
