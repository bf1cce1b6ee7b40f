/**
 * Reading single fields of a config.json, each with an error that names the field, what it holds and what would be right.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";

/** A config.json as it is parsed, or the same made from GGUF metadata. */
export type RawConfig = Readonly<Record<string, unknown>>;

/** The fields of a config. */
export class Fields {
  readonly config: RawConfig;
  /** The file, for errors. */
  readonly where: string;
  readonly #understood = new Set<string>();

  constructor(config: RawConfig, where: string) {
    this.config = config;
    this.where = where;
  }

  /** What a field holds; it then counts as understood. */
  get(key: string): unknown {
    this.#understood.add(key);
    return this.config[key];
  }

  /** A positive integer. @param fallback Where the field is absent or null; without one it is required */
  count(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
    throw this.wrong(key, "expected a positive integer");
  }

  /** A positive number. */
  positive(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    throw this.wrong(key, "expected a positive number");
  }

  /** A small positive number, such as what a norm adds to the mean square. */
  epsilon(key: string): number {
    const value = this.get(key);
    if (typeof value === "number" && value > 0 && value < 1) return value;
    throw new InputError(`${key} is ${JSON.stringify(value)}; expected a small positive number`, {
      where: this.where,
    });
  }

  /** A positive number, or undefined where the field is null, or absent without a fallback. */
  optional(key: string, fallback?: number): number | undefined {
    const value = this.get(key);
    return value === null || (value === undefined && fallback === undefined)
      ? undefined
      : this.positive(key, fallback);
  }

  /** A field that is true, false or absent. */
  flag(key: string, fallback = false): boolean {
    const value = this.get(key) ?? fallback;
    if (typeof value === "boolean") return value;
    throw new InputError(`${key} is ${JSON.stringify(value)}; expected true or false`, { where: this.where });
  }

  /** Token ids: one, several or none. */
  tokens(key: string, vocabularySize: number): number[] {
    const value = this.get(key) ?? [];
    const list = Array.isArray(value) ? value : [value];
    for (const token of list) {
      if (Number.isSafeInteger(token) && token >= 0 && token < vocabularySize) continue;
      throw new InputError(
        `${key} holds ${JSON.stringify(token)}; expected token ids below ${vocabularySize}`,
        { where: this.where },
      );
    }
    return list;
  }

  /**
   * One of the names that a field may hold.
   *
   * @param names What each name means
   */
  choice<T>(key: string, names: Readonly<Record<string, T>>, fallback?: string): T {
    const value = this.get(key) ?? fallback;
    if (typeof value === "string" && Object.hasOwn(names, value)) return names[value]!;
    const known = Object.keys(names).map((name) => JSON.stringify(name));
    throw new InputError(
      `${key} is ${JSON.stringify(value)}; only ${known.join(", ")} ${
        known.length > 1 ? "are" : "is"
      } supported`,
      { where: this.where },
    );
  }

  /** A list with an entry for each layer, or undefined where the field is absent. */
  byLayer<T>(
    key: string,
    layers: number,
    read: (entry: unknown) => T | undefined,
    wanted: string,
  ): T[] | undefined {
    const value = this.get(key);
    if (value == null) return undefined;
    if (!Array.isArray(value) || value.length < layers) {
      throw new InputError(`${key} is no list with an entry for each of the ${layers} layers`, {
        where: this.where,
      });
    }
    return value.slice(0, layers).map((entry: unknown, layer) => {
      const found = read(entry);
      if (found !== undefined) return found;
      throw new InputError(`${key}[${layer}] is ${JSON.stringify(entry)}; expected ${wanted}`, {
        where: this.where,
      });
    });
  }

  /** Numbers of layers; none where the field is absent. */
  indices(key: string, layers: number): number[] {
    const value = this.get(key) ?? [];
    if (Array.isArray(value) && value.every((i) => Number.isSafeInteger(i) && i >= 0 && i < layers)) {
      return value;
    }
    throw new InputError(
      `${key} is ${JSON.stringify(value)}; expected numbers of layers from 0 to ${layers - 1}`,
      { where: this.where },
    );
  }

  /** Requires that fields which would change the computation hold nothing but these values, or are absent. */
  require(neutral: Readonly<Record<string, readonly unknown[]>>): void {
    for (const [key, values] of Object.entries(neutral)) {
      const value = this.get(key);
      if (value === undefined || values.includes(value)) continue;
      throw new InputError(
        `${key} is ${JSON.stringify(value)}, which is not supported; only ${
          values.map((v) => JSON.stringify(v)).join(" or ")
        } is`,
        { where: this.where },
      );
    }
  }

  /**
   * Requires that nothing else is said that may change what is computed: a field that nobody has read, that is not known to be about
   * something else, and that holds more than nothing.
   *
   * @param ignored Fields that a family's configs have and that change nothing
   * @throws {InputError} naming the first such field
   */
  refuseUnknown(family: string, ignored: readonly string[]): void {
    for (const [key, value] of Object.entries(this.config)) {
      if (this.#understood.has(key) || ignored.includes(key) || INERT.has(key) || INERT_KINDS.test(key)) {
        continue;
      }
      if (saysNothing(value)) continue;
      throw new InputError(
        `${key} is ${
          JSON.stringify(value)
        }, and what that means for a model of the family ${family} is not known`,
        {
          where: this.where,
          hint: "If it changes nothing that the model computes, take it out of config.json.",
        },
      );
    }
  }

  private wrong(key: string, expected: string): InputError {
    const value = this.config[key];
    const what = value === undefined ? "is missing" : `is ${JSON.stringify(value)}`;
    return new InputError(`${key} ${what}; ${expected}`, { where: this.where });
  }
}

function saysNothing(value: unknown): boolean {
  if (value === null || value === false || value === "") return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

/** Fields that configs of many families have and that are not about what is computed. */
const INERT = new Set([
  ...["architectures", "model_type", "auto_map", "torch_dtype", "dtype", "vocab_size", "use_cache"],
  ...["is_decoder", "is_llama_config", "max_sequence_length", "use_bfloat16"],
  ...["output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "torchscript"],
  ...["id2label", "label2id", "problem_type", "task_specific_params", "finetuning_task"],
  ...["chunk_size_feed_forward", "attn_implementation", "license", "language"],
  ...["output_past", "gradient_checkpointing", "num_labels", "custom_pipelines"],
  ...["keys_to_ignore_at_inference", "model_max_length"],
  // How text was written by default, in configs of old.
  ...[
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
  ],
  ...[
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
  ],
  ...["encoder_no_repeat_ngram_size", "num_return_sequences", "output_scores", "return_dict_in_generate"],
]);

/** Likewise, by what their names begin or end with, or say. */
const INERT_KINDS =
  /^_|dropout|pdrop$|_token(_id)?$|^initializer|^init_|^summary_|version$|^unsloth|^transformers|^router_aux|^tokenizer|^use_flash_att|_name$/;
