/** Generation with a cache, against whole sequences without one. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { type GenerateOptions, Generator } from "../../src/distill/generate/generator.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { InputError } from "../../src/base/errors.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { modelTest } from "../tensor/harness.ts";
import { argmax, Reader } from "./logits.ts";
import { tinySample, withTiny } from "./tiny_model.ts";

const LENGTH = 40;
const greedy: GenerateOptions = { temperature: 0, topK: 0, topP: 1, seed: 1, maxTokens: 12, stopTokens: [] };

/** Prompts of 1 to 29 tokens, longer together than one pass of prefill takes. */
const PROMPTS = [5, 29, 1, 17, 8].map((length, i) => tinySample(length, 0, i + 1).ids);

async function withModel(
  gpu: Gpu,
  fn: (
    generator: (sequences: number, prefillTokens?: number) => Promise<Generator>,
    reader: Reader,
  ) => Promise<void>,
): Promise<void> {
  await withTiny(async (files) => {
    const model = await Model.open(files.teacher, { category: "weights" });
    using reader = await Reader.open(gpu, model, LENGTH);
    const opened: Generator[] = [];
    try {
      await fn(async (sequences, prefillTokens = 16) => {
        const options = { sequences, length: LENGTH, prefillTokens };
        opened.push(await Generator.create(gpu, model, reader.weights, options));
        return opened.at(-1)!;
      }, reader);
    } finally {
      opened.forEach((generator) => generator.destroy());
      model.close();
    }
  }, { seed: 5 });
}

let opened: Promise<Gpu> | undefined;

/** What does not depend on kernels is tested with those of the adapter's own family only. */
function deviceTest(name: string, fn: (gpu: Gpu) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeResources: false,
    sanitizeOps: false,
    fn: async () => await fn(await (opened ??= openGpu())),
  });
}

const plain = (texts: Awaited<ReturnType<Generator["generate"]>>) => texts.map(({ tokens }) => [...tokens]);

modelTest(
  "generate() with a cache takes the tokens that whole sequences give",
  (gpu) =>
    withModel(gpu, async (generator, reader) => {
      const expected: number[][] = [];
      for (const prompt of PROMPTS) {
        const text = [...prompt];
        while (text.length < Math.min(prompt.length + 12, LENGTH)) {
          text.push(argmax(await reader.next(Int32Array.from(text))));
        }
        expected.push(text.slice(prompt.length));
      }
      assertEquals(expected.map((text) => text.length), [12, 11, 12, 12, 12]);
      assert(expected.every((text) => new Set(text).size > 3), "not the same token over and over");

      // One at a time, several at once with waiting ones behind them, all at once; prompts in one piece and in many.
      for (const [sequences, prefill] of [[1, 16], [3, 7], [8, 64]] as const) {
        const texts = await (await generator(sequences, prefill)).generate(PROMPTS, greedy);
        assertEquals(plain(texts), expected, `${sequences} sequences`);
        assert(texts.every(({ finished }) => !finished));
      }
    }),
);

deviceTest("generate() used twice forgets the first use", (gpu) =>
  withModel(gpu, async (generator) => {
    const two = await generator(2);
    const first = await two.generate(PROMPTS.slice(0, 2), greedy);
    await two.generate(PROMPTS.slice(2, 4), greedy);
    assertEquals(await two.generate(PROMPTS.slice(0, 2), greedy), first);
  }));

deviceTest(
  "sampling depends on (seed, sequence, position), not on what is decoded beside it",
  (gpu) =>
    withModel(gpu, async (generator) => {
      const sampled = { ...greedy, temperature: 1.2, topK: 50, topP: 0.95, seed: 7 };
      const [one, three, five] = [await generator(1), await generator(3), await generator(5)];
      const together = plain(await five.generate(PROMPTS, sampled));
      assertEquals(plain(await five.generate(PROMPTS, sampled)), together);
      assertEquals(plain(await three.generate(PROMPTS, sampled)), together);
      assertEquals(plain(await one.generate(PROMPTS, sampled)), together);
      const alone = await one.generate([PROMPTS[3]!], { ...sampled, firstSequence: 3 });
      assertEquals(plain(alone), [together[3]!]);
      assertNotEquals(plain(await five.generate(PROMPTS, { ...sampled, seed: 8 })), together);
      // The same prompt twice: two texts.
      const [a, b] = plain(await five.generate([PROMPTS[0]!, PROMPTS[0]!], sampled));
      assertNotEquals(a, b);
    }),
);

deviceTest(
  "generate() ends a text at a stop token, at maxTokens or at the end of the cache, and tells as it goes",
  (gpu) =>
    withModel(gpu, async (generator) => {
      const three = await generator(3);
      const prompts = PROMPTS.slice(0, 3);
      const free = plain(await three.generate(prompts, greedy));
      // The second text ends at its fifth token, the others where they first say the same.
      const stop = free[1]![4]!;
      const said: number[][] = [[], [], []];
      const texts = await three.generate(prompts, {
        ...greedy,
        stopTokens: [stop],
        onToken: (sequence, token) => said[sequence]!.push(token),
      });
      free.forEach((text, i) => {
        const end = text.indexOf(stop);
        assertEquals([...texts[i]!.tokens], end < 0 ? text : text.slice(0, end));
        assertEquals(texts[i]!.finished, end >= 0);
        assertEquals(said[i], [...texts[i]!.tokens]);
      });
      assert(texts[1]!.finished && texts[1]!.tokens.length <= 4);

      assertEquals(
        plain(await three.generate(prompts, { ...greedy, maxTokens: 2 })),
        free.map((t) => t.slice(0, 2)),
      );
      assertEquals(plain(await three.generate(prompts, { ...greedy, maxTokens: 0 })), [[], [], []]);
      const full = await three.generate([tinySample(LENGTH - 1, 0, 1).ids], greedy);
      assertEquals([full[0]!.tokens.length, full[0]!.finished], [1, false]);
      for (const length of [0, LENGTH]) {
        await assertRejects(
          () => three.generate([PROMPTS[0]!, new Int32Array(length)], greedy),
          InputError,
          `prompt 2 has ${length} tokens`,
        );
      }
    }),
);
