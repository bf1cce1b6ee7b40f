/**
 * What llama.cpp calls a model's family, and whether it computes what the model does.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { configOnceWritten, type GgufHyperparameters, scalesWeights } from "../../formats/gguf/export.ts";
import { isDescribed } from "../../models/decoder/description.ts";
import { readArchitecture } from "../../models/families.ts";
import type { Architecture } from "../../models/architecture.ts";
import type { Model } from "../inputs/models.ts";

/** A family's architecture in llama.cpp, with the hyperparameters of a model. */
export interface GgufTarget {
  readonly architecture: string;
  readonly config: GgufHyperparameters;
}

/**
 * The architecture that a model's GGUF file has.
 *
 * @throws {InputError} for a family that llama.cpp has not, or a model of which it would compute something else, naming what
 */
export function ggufTarget({ architecture: { family, config, tensors }, path }: Model): GgufTarget {
  const hint = "Export a Hugging Face folder: `limbeck export --target merged`.";
  if (family.gguf === undefined) {
    throw new InputError(`models of the family ${family.name} cannot be written as GGUF files`, {
      ...{ where: path, hint },
    });
  }
  const target = { architecture: family.gguf, config };
  // What a file does not say, llama.cpp takes to be as it is in all models of the architecture.
  const read = readArchitecture(configOnceWritten({ ...target, tensors }, path), path).config;
  const scales = scalesWeights(family.gguf, path);
  const lost = firstDifference(comparable(config, scales), comparable(read, scales));
  if (lost) {
    throw new InputError(
      `GGUF files of llama.cpp's architecture ${family.gguf} cannot say what this model computes: ${lost}`,
      { where: path, hint },
    );
  }
  return target;
}

/**
 * What two configs are compared by.
 *
 * @param scaled Whether the scale of scores is in the weights
 */
function comparable(config: Architecture["config"], scaled: boolean): unknown {
  if (!isDescribed(config)) return config;
  const { description, architecture: _, bosToken: __, eosTokens: ___, tiedHead: ____, ...numbers } = config;
  return {
    ...numbers,
    ...description,
    layers: description.layers.map(({ attention: { rotary, scale, ...attention }, ...layer }) => ({
      ...layer,
      attention: {
        ...attention,
        // Tables are called differently where layers differ.
        ...(rotary ? { rotary: rotary.rotary } : {}),
        ...(scaled ? {} : { scale }),
      },
    })),
  };
}

/** Metadata is in f32. */
const ROUNDED = 1e-5;

/** Where two values differ first, and how; undefined where they are the same but for rounding. */
function firstDifference(model: unknown, file: unknown, path = ""): string | undefined {
  if (typeof model === "number" && typeof file === "number") {
    if (Math.abs(model - file) <= ROUNDED * Math.max(Math.abs(model), Math.abs(file))) return undefined;
  } else if (isObject(model) && isObject(file)) {
    for (const key of new Set([...Object.keys(model), ...Object.keys(file)])) {
      const found = firstDifference(model[key], file[key], path === "" ? key : `${path}.${key}`);
      if (found) return found;
    }
    return undefined;
  } else if (model === file) return undefined;
  return `${path} is ${shown(model)}, and ${shown(file)} in all that such a file can say`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function shown(value: unknown): string {
  if (value === undefined) return "none";
  return isObject(value) ? "given" : String(value);
}
