/**
 * Converting a model between formats.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { type GgufStorage, ggufWarning, type TypeChoice, writeGgufModel } from "../../formats/gguf/export.ts";
import { ggufTarget } from "./gguf_architecture.ts";
import type { ModelFamily } from "../../models/family.ts";
import { Model } from "../inputs/models.ts";
import { isTaken } from "../../formats/files.ts";

/** How {@linkcode exportGguf} writes. */
export interface GgufExportOptions {
  readonly storage: GgufStorage;
  /** `general.name`. */
  readonly name: string;
  /** More of `general.*`, such as license and author. */
  readonly about?: Readonly<Record<string, string>>;
  /** Families of models beside the built-in ones. */
  readonly families?: readonly ModelFamily[] | undefined;
  /** Told the type of every tensor before any is written. */
  readonly report?: (types: readonly TypeChoice[]) => void;
  /** Told what llama.cpp will compute otherwise than the model, once the file is there. */
  readonly warn?: (message: string) => void;
}

/**
 * Writes a model (a folder or another GGUF file) as a GGUF file that llama.cpp runs.
 *
 * @throws {InputError} if the model does not do, or the file is there already
 */
export async function exportGguf(
  modelPath: string,
  output: string,
  options: GgufExportOptions,
): Promise<void> {
  if (await isTaken(output)) {
    throw new InputError("is already there", { where: output, hint: "choose another name, or remove it" });
  }
  const model = await Model.open(modelPath, { category: "weights" }, options.families);
  try {
    const target = ggufTarget(model);
    await writeGgufModel(
      output,
      {
        name: options.name,
        ...(options.about ? { about: options.about } : {}),
        ...target,
        tokenizer: await model.source.tokenizer(),
        tensors: model.architecture.tensors,
        read: (name) => model.read(name),
      },
      options.storage,
      options.report,
    );
    const warning = ggufWarning(target.architecture, target.config, output);
    if (warning) options.warn?.(warning);
  } finally {
    model.close();
  }
}
