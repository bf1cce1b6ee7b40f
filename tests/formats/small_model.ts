/** A model that lies on no disk. */
import { splitSeed, uniformNumbers } from "../../src/base/random.ts";
import type { ModelSource } from "../../src/formats/model_source.ts";
import { sentencePieceFiles } from "../../src/formats/sentencepiece/tokenizer_files.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { llamaModel } from "../text/sentencepiece_file.ts";

/** A model of two layers in memory, whose rows fill blocks of 256 or of 32 only. */
export function smallModel(): ModelSource {
  const config = {
    architectures: ["LlamaForCausalLM"],
    hidden_act: "silu",
    hidden_size: 256,
    intermediate_size: 96,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    vocab_size: 272,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    rope_theta: 1e4,
    tie_word_embeddings: true,
    bos_token_id: 1,
    eos_token_id: 2,
  };
  const tensors = new Map([...readArchitecture(config, "small").tensors].map(([name, shape]) => [
    name,
    { dtype: "F32", exactDtype: "f32" as const, shape: [...shape] },
  ]));
  const read = (name: string) => {
    const { shape } = tensors.get(name)!;
    const count = shape.reduce((product, size) => product * size, 1);
    const seed = splitSeed(name.length);
    return Promise.resolve({ dtype: "f32" as const, shape, data: uniformNumbers(0, count, [0, 0, 0], seed) });
  };
  return {
    path: "small",
    kind: "huggingface",
    config,
    tensors,
    read,
    readRows: read,
    tokenizer: () =>
      Promise.resolve({
        ...sentencePieceFiles(llamaModel, {}, {}, "tokenizer.model"),
        sentencePieceModel: llamaModel,
        originals: new Map(),
      }),
    fingerprint: () => Promise.resolve(""),
    close() {},
  };
}
