/**
 * What llama.cpp calls a model's family.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { Model } from "../inputs/models.ts";

/** @throws {InputError} for a family that GGUF files have no place for */
export function ggufArchitecture({ architecture: { family, config }, path }: Model): string {
  if (family.gguf !== undefined && family.ggufFits?.(config) !== false) return family.gguf;
  const which = family.gguf === undefined ? "" : " with such a config";
  throw new InputError(`models of the family ${family.name}${which} cannot be written as GGUF files`, {
    where: path,
    hint: "Export a Hugging Face folder: `limbeck export --target merged`.",
  });
}
