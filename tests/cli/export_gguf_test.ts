// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { main } from "../../src/cli/main.ts";
import { writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { fittingConfig, memoryModel, tinyGgufTokenizer } from "../formats/memory_model.ts";
import { smallModel } from "../formats/small_model.ts";
import { fakeTerminal } from "./fake_terminal.ts";

async function limbeck(...args: string[]) {
  const terminal = fakeTerminal();
  const code = await main(args, terminal);
  return { code, out: terminal.out, err: terminal.err };
}

Deno.test("export writes a folder as GGUF and prints the type of every tensor, as JSON with --json", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const model = smallModel();
    await writeHuggingFaceFolder(`${folder}/model`, {
      config: model.config,
      tokenizer: await model.tokenizer(),
      tensors: new Map([...model.tensors].map(([name, { shape }]) => [name, shape])),
      read: (name) => model.read(name),
    }, { dtype: "f32" });
    const from = ["export", "--model", `${folder}/model`, "--output"];
    const { code, out, err } = await limbeck(...from, `${folder}/a.gguf`, "--storage", "q4_k_m");
    assertEquals([code, err], [0, ""]);
    assertMatch(out, /token_embd\.weight +\[272, 256\] +Q6_K +55\.8 KiB/);
    assertMatch(
      out,
      /blk\.0\.ffn_down\.weight +\[256, 96\] +Q5_0 +16\.5 KiB +its rows are no whole blocks of Q4_K/,
    );
    assertMatch(out, /output_norm\.weight +\[256\] +F32/);
    const written = await openModel(`${folder}/a.gguf`);
    for (const { dtype } of written.tensors.values()) assertStringIncludes(out, dtype);
    written.close();

    const json = await limbeck(...from, `${folder}/b.gguf`, "--storage", "Q4_0", "--json");
    const { types, bytes } = JSON.parse(json.out);
    assertEquals([types["blk.1.attn_v.weight"], types["token_embd.weight"]], ["Q4_0", "Q6_K"]);
    assertEquals(bytes, (await Deno.stat(`${folder}/b.gguf`)).size);

    const again = await limbeck(...from, `${folder}/a.gguf`);
    assertEquals([again.code, again.out], [3, ""]);
    assertStringIncludes(again.err, "is already there");
    const unknown = await limbeck(...from, `${folder}/c.gguf`, "--storage", "q3_k");
    assertEquals(unknown.code, 2);
    assert(unknown.err.includes("q4_k_m"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("export warns of what llama.cpp will compute otherwise, and still writes", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const config = fittingConfig("MistralForCausalLM");
    const { architecture: { tensors }, read } = memoryModel(config);
    const tokenizer = tinyGgufTokenizer();
    await writeHuggingFaceFolder(`${folder}/m`, { config, tokenizer, tensors, read }, { dtype: "f32" });
    const { code, err } = await limbeck("export", "--model", `${folder}/m`, "--output", `${folder}/m.gguf`);
    assertEquals(code, 0);
    assertStringIncludes(err, "beyond 8 tokens, the model's window");
    assert((await Deno.stat(`${folder}/m.gguf`)).size > 0);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
