// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Tokenizer } from "@huggingface/tokenizers";
import { InputError } from "../../src/base/errors.ts";
import { mergesFromScores } from "../../src/formats/sentencepiece/merges.ts";
import { unpackGguf } from "../../src/formats/gguf/types.ts";
import { openModel } from "../../src/formats/open_model.ts";
import type { DescribedConfig } from "../../src/models/decoder/description.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { tensorProblems } from "../../src/models/weights.ts";
import { sharedPath, sharedTest } from "../shared.ts";

const families: Record<string, string> = { tied_q8_0: "llama_tied_bias", untied_mixed: "llama3_rope" };

async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(sharedPath(path)));
}

for (const [stem, family] of Object.entries(families)) {
  sharedTest(`the config of ${stem}.gguf equals that of the model it was made from`, async () => {
    const model = await openModel(sharedPath(`goldens/gguf/${stem}.gguf`));
    const original = await openModel(sharedPath(`goldens/families/${family}`));
    const numbers = ({ config, path }: typeof model) => {
      const { inverseFrequencies, description: _, ...rest } = readArchitecture(config, path)
        .config as DescribedConfig;
      return { inverseFrequencies, rest };
    };
    const { inverseFrequencies, rest: config } = numbers(model);
    const { inverseFrequencies: expected, rest } = numbers(original);
    assertEquals(config, rest);
    for (const [i, frequency] of inverseFrequencies.entries()) {
      assert(
        Math.abs(frequency / expected[i] - 1) < 1e-7,
        `frequency ${i}: ${frequency}, expected ${expected[i]}`,
      );
    }
    assertEquals(tensorProblems(readArchitecture(model.config, model.path), model.tensors), []);
    model.close();
    original.close();
  });

  sharedTest(`the tensors of ${stem}.gguf are near the model's, rows of q and k in its order`, async () => {
    const model = await openModel(sharedPath(`goldens/gguf/${stem}.gguf`));
    const original = await openModel(sharedPath(`goldens/families/${family}`));
    assertEquals([...model.tensors.keys()].sort(), [...original.tensors.keys()].sort());
    for (const [name, { dtype, shape }] of model.tensors) {
      const ours = await model.read(name);
      const theirs = (await original.read(name)).data;
      assertEquals([ours.shape, shape], [original.tensors.get(name)!.shape, ours.shape]);
      if (ours.dtype !== "f32") continue;
      // A mere rounding; another order of rows would be off by more than the values themselves.
      const bound = { F32: 0, Q8_0: 0.02, Q4_0: 0.2 }[dtype]!;
      let difference = 0;
      let norm = 0;
      for (let i = 0; i < theirs.length; i++) {
        difference += (ours.data[i] - theirs[i]) ** 2;
        norm += theirs[i] ** 2;
      }
      assert(Math.sqrt(difference / norm) <= bound, `${name}: ${Math.sqrt(difference / norm)}`);
    }
    model.close();
    original.close();
  });

  sharedTest(
    `readRows() and readBlocks() of ${stem}.gguf give the rows that read() gives, also across heads`,
    async () => {
      const model = await openModel(sharedPath(`goldens/gguf/${stem}.gguf`));
      for (const [name, { dtype, shape }] of model.tensors) {
        const whole = await model.read(name);
        const width = whole.data.length / shape[0];
        for (const [first, count] of [[0, shape[0]], [3, 1], [5, 9], [shape[0] - 1, 1], [2, 0]]) {
          const rows = await model.readRows(name, first, count);
          assertEquals(rows.shape, [count, ...shape.slice(1)]);
          assertEquals(rows.data, whole.data.slice(first * width, (first + count) * width));
          if (shape.length === 1) continue;
          assertEquals(unpackGguf(dtype, await model.readBlocks!(name, first, count)), rows.data);
        }
        await assertRejects(
          () => model.readRows(name, shape[0], 1),
          InputError,
          name.includes("q_proj") ? "rows" : "",
        );
      }
      model.close();
    },
  );

  sharedTest(`the tokenizer of ${stem}.gguf gives the reference's ids`, async () => {
    type Case = { text: string; ids: number[]; parse_special?: boolean };
    const { tokenizer_cases } = await readJson<{ tokenizer_cases: Case[] }>(`goldens/gguf/${stem}.json`);
    const model = await openModel(sharedPath(`goldens/gguf/${stem}.gguf`));
    const { tokenizerJson, tokenizerConfig } = await model.tokenizer();
    const whole = new Tokenizer(tokenizerJson as object, tokenizerConfig);
    // Without added tokens, "<s>" in a text is text.
    const plain = new Tokenizer({ ...tokenizerJson as object, added_tokens: [] }, tokenizerConfig);
    for (const { text, ids, parse_special } of tokenizer_cases) {
      assertEquals((parse_special ? whole : plain).encode(text).ids, ids, JSON.stringify(text));
      if (ids.length < 2) continue;
      assertEquals(whole.decode(ids, { skip_special_tokens: !parse_special }), text);
    }
    model.close();
  });
}

Deno.test("mergesFromScores() ranks by score, then id, and leaves control tokens out", () => {
  const tokens = ["<s>", "<", "s>", "a", "b", "ab", "aba", "ba"];
  const scores = [0, -10, -11, -12, -13, -2, -1, -2];
  const types = [3, 1, 1, 1, 1, 1, 1, 1];
  assertEquals(mergesFromScores(tokens, scores, types), [["a", "ba"], ["ab", "a"], ["a", "b"], ["b", "a"]]);
});
