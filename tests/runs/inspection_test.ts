// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { DeviceError, InputError } from "../../src/base/errors.ts";
import { RecipeError } from "../../src/distill/recipe/parse.ts";
import {
  BusyError,
  InspectionMemoryError,
  InspectionTimeoutError,
  Inspector,
} from "../../src/runs/child/inspection.ts";
import { fakeTerminal } from "../cli/fake_terminal.ts";
import { type TinyFiles, tinyRecipe, tinyTokenizerJson, withTiny } from "../distill/tiny_model.ts";

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

/** Gives the model a pre-tokenizer that backtracks without end on the only text of the data. */
async function neverEnds({ teacher, train }: TinyFiles): Promise<void> {
  await withTokenizer(teacher, {
    pre_tokenizer: { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Isolated", invert: false },
  });
  await Deno.writeTextFile(train, JSON.stringify({ text: "a".repeat(60) + "!" }) + "\n");
}

async function withTokenizer(model: string, change: object): Promise<void> {
  await Deno.writeTextFile(`${model}/tokenizer.json`, JSON.stringify({ ...tinyTokenizerJson(), ...change }));
}

Deno.test("a tokenizer that never ends is ended", () =>
  withTiny(async (files) => {
    await neverEnds(files);
    // Of a recipe that is validated the next test tells the same.
    const order = { kind: "preview", recipe: tinyRecipe(files), heldOut: false, samples: 1 } as const;
    const error = await assertRejects(
      () => new Inspector().inspect(order, { timeoutSeconds: 2 }),
      InspectionTimeoutError,
    );
    assertEquals(error.code, "inspection_timeout");
    assertStringIncludes(error.message, "longer than 2 s");
    assertStringIncludes(error.hint!, "tokenizer or chat template");
  }));

Deno.test("a chat template that never ends is ended by its own limits, or by the clock where they do not see it", () =>
  withTiny(async (files) => {
    const config = `${files.teacher}/tokenizer_config.json`;
    const settings = JSON.parse(await Deno.readTextFile(config));
    await Deno.remove(`${files.teacher}/chat_template.jinja`).catch(() => {});
    const conversation = [{ role: "user", content: "a" }, { role: "assistant", content: "b" }];
    await Deno.writeTextFile(files.train, JSON.stringify({ messages: conversation }) + "\n");
    const rendered = async (chat_template: string, timeoutSeconds: number) => {
      await Deno.writeTextFile(config, JSON.stringify({ ...settings, chat_template }));
      const order = { kind: "validate", recipe: tinyRecipe(files) } as const;
      return await new Inspector().inspect(order, { timeoutSeconds });
    };
    const loops = "{% for i in range(90000) %}{% for j in range(90000) %}{{ i }}{% endfor %}{% endfor %}";
    const error = await assertRejects(
      () => rendered(loops, 60),
      InputError,
      "the chat template failed: more than",
    );
    assertEquals(error.where, `${config} (chat_template)`);
    // A list of two references to itself, 60 times over: one built-in filter writes 2^60 elements.
    const nested =
      "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}" +
      "{{ n.a | tojson }}";
    await assertRejects(() => rendered(nested, 2), InspectionTimeoutError);
  }));

Deno.test("a tokenizer that fails is bad input, and data that are too large are told as that", () =>
  withTiny(async (files) => {
    const order = { kind: "validate", recipe: tinyRecipe(files) } as const;
    const growing = { type: "Replace", pattern: { String: "a" }, content: "a".repeat(1000) };
    await Deno.writeTextFile(files.train, '{"text":"a cat"}\n');
    await withTokenizer(files.teacher, {
      normalizer: { type: "Sequence", normalizers: [growing, growing, growing] },
    });
    const failed = await assertRejects(
      () => new Inspector().inspect(order),
      InputError,
      "the tokenizer failed on",
    );
    assertEquals(failed.exitCode, 3);

    await withTokenizer(files.teacher, {});
    await Deno.writeTextFile(files.train, '{"text":"the cat"}\n'.repeat(200_000));
    // Of a file some rows are encoded, unless they are to be counted, as those of a cache are.
    const { valid } = await new Inspector().inspect(order, { heapMegabytes: 64 });
    assertEquals(valid, true);
    const cache = { topK: 4, seed: 1, precision: "f32" as const };
    const counted = { kind: "estimate", recipe: tinyRecipe(files, { teacher: { cache } }) } as const;
    const error = await assertRejects(
      () => new Inspector().inspect(counted, { heapMegabytes: 64 }),
      InspectionMemoryError,
    );
    assertStringIncludes(error.message, "the 64 MiB that it may have");
    assertStringIncludes(error.hint!, "data.limit");
  }));

Deno.test("an answer that is too long to be read by a thread that serves others is refused, with what to do", () =>
  withTiny(async (files) => {
    const row = JSON.stringify({ text: "the cat sat on a mat ".repeat(6000) }) + "\n";
    await Deno.writeTextFile(files.train, row.repeat(4));
    const recipe = tinyRecipe(files, {
      data: { train: files.train, contextLength: 65_536 },
      train: { tokensPerMicroBatch: 65_536 },
    });
    const shown = (samples: number) =>
      new Inspector().inspect({ kind: "preview", recipe, heldOut: false, samples });
    assertEquals((await shown(1)).samples.map(({ pieces }) => pieces.length), [65_536]);
    const error = await assertRejects(() => shown(4), InputError, "more than 8 MiB");
    assertStringIncludes(error.hint!, "fewer samples");
  }, { contextLength: 65_536 }));

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
    const inspector = new Inspector(1, 2);
    const recipe = tinyRecipe(files);
    const all = Array.from(
      { length: 4 },
      () => inspector.inspect({ kind: "validate", recipe }).then(({ valid }) => valid, (error) => error),
    );
    const outcomes = await Promise.all(all);
    assertEquals(outcomes.slice(0, 3), Array(3).fill(true));
    assertInstanceOf(outcomes[3], BusyError);
  }));

Deno.test("whoever leaves ends its process or makes room, and nothing goes on when the inspector is closed", () =>
  withTiny(async (files) => {
    await neverEnds(files);
    const inspector = new Inspector(1);
    const order = { kind: "validate", recipe: tinyRecipe(files) } as const;
    const looked = (signal?: AbortSignal) =>
      inspector.inspect(order, { timeoutSeconds: 300, ...(signal ? { signal } : {}) }).then(
        () => undefined,
        (error) => error,
      );
    // Before it has begun, while it is prepared, and while it works.
    assertEquals((await looked(AbortSignal.abort())).name, "AbortError");
    const early = new AbortController();
    const prepared = looked(early.signal);
    early.abort();
    assertEquals((await prepared).name, "AbortError");
    assertEquals((await looked(AbortSignal.timeout(1500))).name, "TimeoutError");

    const first = looked();
    const leaving = new AbortController();
    // As many as may wait unless something else is said.
    const waiting = Array.from({ length: 16 }, () => looked(leaving.signal));
    assertInstanceOf(await looked(), BusyError);
    leaving.abort();
    for (const outcome of waiting) assertEquals((await outcome).name, "AbortError");
    const last = looked();
    inspector.close();
    for (const outcome of [first, last, looked()]) {
      assertStringIncludes((await outcome).message, "no more recipes are looked at");
    }
  }));
