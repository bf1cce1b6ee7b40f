/** What transformers says of a merged folder, where Python has it. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { mergeTiny, withModels } from "./tiny_merge.ts";

const PYTHON = "python3";

/** Loads a folder and prints which keys are missing or unexpected. */
const LOAD = `
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, info = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
AutoTokenizer.from_pretrained(sys.argv[1])
print(sorted(info["missing_keys"]), sorted(info["unexpected_keys"]), sorted(info["mismatched_keys"]))
`;

async function python(...args: string[]): Promise<{ code: number; text: string }> {
  try {
    const { code, stdout, stderr } = await new Deno.Command(PYTHON, { args }).output();
    return { code, text: new TextDecoder().decode(code === 0 ? stdout : stderr).trim() };
  } catch {
    return { code: 127, text: "there is no Python" };
  }
}

const hasTransformers = (await python("-c", "import transformers, torch")).code === 0;
if (!hasTransformers) console.log("skip: a merge in transformers: Python has no transformers and torch here");

Deno.test({
  name: "transformers loads a merge with no missing or unexpected key",
  ignore: !hasTransformers,
  async fn() {
    await withModels({ a: { seed: 2, tiedHead: true }, b: { seed: 3, tiedHead: true } }, async (folder) => {
      const recipe = { method: "linear", models: [{ model: "a" }, { model: "b" }], outDtype: "bf16" };
      await mergeTiny(folder, recipe, "merged", { shardBytes: 4000 });
      const { text } = await python("-c", LOAD, `${folder}/merged`);
      assertEquals(text.split("\n").at(-1), "[] [] []");
    });
  },
});
