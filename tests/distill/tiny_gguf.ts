/** A model folder as a GGUF file, with a split of text that GGUF has a name for. */
import { Model } from "../../src/distill/inputs/models.ts";
import { type GgufStorage, writeGgufModel } from "../../src/formats/gguf/export.ts";

/** Writes the GGUF file of a folder. */
export async function writeTinyGguf(folder: string, path: string, storage: GgufStorage): Promise<void> {
  const model = await Model.open(folder, { category: "weights" });
  const { tokenizerJson, ...rest } = await model.source.tokenizer();
  const split = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  await writeGgufModel(path, {
    name: "tiny",
    architecture: "llama",
    config: model.config,
    tokenizer: { ...rest, tokenizerJson: { ...tokenizerJson as object, pre_tokenizer: split } },
    tensors: model.architecture.tensors,
    read: (name) => model.read(name),
  }, storage);
  model.close();
}
