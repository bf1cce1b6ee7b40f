// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { openFile } from "../../src/formats/files.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import { ggufTokenizer } from "../../src/formats/gguf/tokenizer.ts";
import { ggufTokenizerMetadata } from "../../src/formats/gguf/tokenizer_write.ts";
import { writeGguf } from "../../src/formats/gguf/write.ts";
import { writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import type { TokenizerFiles } from "../../src/formats/model_source.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { writeSafetensors } from "../../src/formats/safetensors/write.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { llamaModel, mergingModel, probableModel } from "../text/sentencepiece_file.ts";

const TEXTS = ["the  the", "", "aaaa a aaaaa", "<s>\u00e9\n\u{1f642}", " "];

/** A folder with a tokenizer.model and one tensor, removed afterwards. */
async function withFolder(model: Uint8Array, body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/config.json`, "{}");
    await Deno.writeTextFile(`${folder}/tokenizer_config.json`, '{"tokenizer_class": "LlamaTokenizer"}');
    await Deno.writeFile(`${folder}/tokenizer.model`, model);
    const tensor = { name: "a", dtype: "F32" as const, shape: [1] };
    await writeSafetensors(`${folder}/model.safetensors`, [tensor], () => Float32Array.of(1));
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const tokenizerOf = ({ tokenizerJson, tokenizerConfig }: TokenizerFiles) =>
  TextTokenizer.fromJson(tokenizerJson, tokenizerConfig, "tokenizer");

Deno.test("a folder's tokenizer.model is read where there is no tokenizer.json, and written again as it was", () =>
  withFolder(mergingModel, async (folder) => {
    const model = await openModel(folder);
    const files = await model.tokenizer();
    assertEquals([...tokenizerOf(files).encode("the")], [1, 6]);
    await writeHuggingFaceFolder(`${folder}/out`, {
      config: { architectures: ["LlamaForCausalLM"], model_type: "llama" },
      tokenizer: files,
      tensors: new Map([["a", [1]]]),
      read: (name) => model.read(name),
    }, { dtype: "f32" });
    model.close();
    assertEquals(await Deno.readFile(`${folder}/out/tokenizer.model`), mergingModel);
    assertEquals(await Deno.stat(`${folder}/out/tokenizer.json`).then(() => true, () => false), false);
    const written = await openModel(`${folder}/out`);
    assertEquals(
      tokenizerOf(await written.tokenizer()).fingerprint(),
      tokenizerOf(files).fingerprint(),
    );
    written.close();
    await Deno.writeTextFile(`${folder}/tokenizer.model`, "version https://git-lfs.github.com/spec/v1\n");
    const broken = await openModel(folder);
    await assertRejects(() => broken.tokenizer(), InputError, "tokenizer.model");
    broken.close();
  }));

Deno.test("a tokenizer.model becomes the tokenizer of a GGUF file where llama.cpp would give the same ids", () =>
  withFolder(llamaModel, async (folder) => {
    const model = await openModel(folder);
    const files = await model.tokenizer();
    model.close();
    const rows = { vocabularySize: 272, eosTokens: [2] };
    const metadata = ggufTokenizerMetadata(files, rows, "tokenizer.model");
    const scores = metadata.get("tokenizer.ggml.scores")!.value as Float32Array;
    assertEquals([...scores.subarray(259, 264)], [0, -1, -2, -3, -4]);
    await writeGguf(
      `${folder}/a.gguf`,
      metadata,
      [{ name: "a", type: "F32", shape: [1] }],
      () => Promise.resolve(Float32Array.of(1)),
    );
    const file = await GgufFile.open(await openFile(`${folder}/a.gguf`));
    const [ours, theirs] = [tokenizerOf(ggufTokenizer(file)), tokenizerOf(files)];
    for (const text of TEXTS) {
      assertEquals([...ours.encode(text)], [...theirs.encode(text)], JSON.stringify(text));
      const ids = theirs.encode(text);
      assertEquals(ours.decode(ids, { skipSpecial: true }), theirs.decode(ids, { skipSpecial: true }));
    }
    assertEquals([...ours.encode("the", { special: true })], [1, 261]);
    file.close();
  }));

Deno.test("ggufTokenizerMetadata() refuses a tokenizer.model that llama.cpp would read otherwise", async () => {
  for (
    const [bytes, expected] of [[mergingModel, "no pieces for bytes"], [
      probableModel,
      "kind unigram",
    ]] as const
  ) {
    await withFolder(bytes, async (folder) => {
      const model = await openModel(folder);
      const files = await model.tokenizer();
      const rows = { vocabularySize: 300, eosTokens: [] };
      assertThrows(() => ggufTokenizerMetadata(files, rows, "x"), InputError, expected);
      model.close();
    });
  }
});
