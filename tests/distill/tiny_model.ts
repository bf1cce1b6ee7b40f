/**
 * A Llama small enough to train in milliseconds, with a tokenizer and a dataset, made on the spot: random weights, always the same.
 *
 * @module
 */
import type { ModelAdapter } from "../../src/distill/trained/model_adapter.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { closeModels, openModels } from "../../src/distill/inputs/open_models.ts";
import { openStudent } from "../../src/distill/inputs/prepare.ts";
import { type AdapterRecipe, type Recipe, type RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { TrainingSetup } from "../../src/distill/program/plan_training.ts";
import { type FloatDtype, fromFloat32 } from "../../src/formats/dtype.ts";
import { writeHuggingFaceFolder } from "../../src/formats/huggingface/write.ts";
import { readArchitecture } from "../../src/models/families.ts";
import type { ModelFamily } from "../../src/models/family.ts";
import { Registry } from "../../src/registry/registry.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { builtins } from "../../plugins/mod.ts";
import { randomArray } from "../tensor/harness.ts";
import { closeTestStore } from "../runs/test_store.ts";

const SPECIAL = ["<unk>", "<s>", "</s>"];
const PRINTABLE = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
const MERGES = [
  ...[["t", "h"], ["h", "i"], ["s", "u"]],
  ...[..."chmrst"].flatMap((c) => [..."aeo"].map((v) => [c, v])),
];

/**
 * Size of the tiny vocabulary: an odd number, no multiple of any tile. It is below the 128 from which on `subgroup8` writes the loops over
 * a row out four times, as its kernels take most of the time of a test to compile: they are looked at in tests/losses.
 */
export const TINY_VOCABULARY: number = SPECIAL.length + PRINTABLE.length + MERGES.length;

/** A byte-pair tokenizer over printable ASCII; `<unk>`, `<s>`, `</s>` are 0 to 2. */
export function tinyTokenizerJson(merges: readonly (readonly string[])[] = MERGES): Record<string, unknown> {
  const tokens = [...SPECIAL, ...PRINTABLE, ...merges.map((pair) => pair.join(""))];
  return {
    version: "1.0",
    added_tokens: SPECIAL.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Fuse" },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}

/** What {@linkcode writeTinyModel} writes. */
export interface TinyModelOptions {
  readonly layers?: number;
  readonly hiddenSize?: number;
  readonly vocabularySize?: number;
  readonly contextLength?: number;
  readonly tiedHead?: boolean;
  /** Whether linear layers have biases; as a rule none does. */
  readonly biases?: boolean;
  readonly dtype?: FloatDtype;
  readonly seed?: number;
  /** A whole config.json, in place of all that decides a Llama's. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Families beside the built-in ones. */
  readonly families?: readonly ModelFamily[];
  /** Merges of another tokenizer than the others have. */
  readonly merges?: readonly (readonly string[])[];
}

/** Writes a model folder: grouped-query attention with two heads of queries to one of keys, an MLP of odd width. */
export async function writeTinyModel(path: string, options: TinyModelOptions = {}): Promise<void> {
  const { hiddenSize = 32, contextLength = 128, dtype = "f32", seed = 1 } = options;
  const config = options.config ?? {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: hiddenSize,
    intermediate_size: hiddenSize + 12,
    num_hidden_layers: options.layers ?? 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: options.vocabularySize ??
      (options.merges ? SPECIAL.length + PRINTABLE.length + options.merges.length : TINY_VOCABULARY),
    max_position_embeddings: contextLength,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: options.tiedHead ?? false,
    ...(options.biases ? { attention_bias: true, mlp_bias: true } : {}),
    bos_token_id: 1,
    eos_token_id: 2,
  };
  const tensors = readArchitecture(config, path, options.families).tensors;
  const names = [...tensors.keys()];
  await writeHuggingFaceFolder(path, {
    config,
    tokenizer: {
      tokenizerJson: tinyTokenizerJson(options.merges),
      tokenizerConfig: { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", add_bos_token: true },
    },
    tensors,
    read: (name) => {
      const shape = tensors.get(name)!;
      const values = randomArray(
        shape.reduce((a, b) => a * b, 1),
        seed * 1000 + names.indexOf(name) + 1,
        // Logits of a standard deviation near 2, so that the model has opinions; norms around 1.
        shape.length === 1 ? 0.3 : Math.sqrt((/embed|lm_head|wte/.test(name) ? 12 : 3) / hiddenSize),
      ) as Float32Array<ArrayBuffer>;
      if (/(norm|ln_\w+)\.weight$/.test(name)) values.forEach((v, i) => values[i] = 1 + v);
      return Promise.resolve({ dtype, shape, data: fromFloat32(dtype, values) });
    },
  }, { dtype });
}

/** Rows of a dataset: short texts, and prompts with completions of a few tokens. */
export function tinyRows(count: number, seed: number): string {
  const words = ["the", "cat", "sat", "on", "a", "mat", "and", "ran", "home", "to", "see", "his", "sun"];
  const random = randomArray(count * 16, seed);
  const sentence = (row: number, from: number, length: number) =>
    Array.from({ length }, (_, i) => words[Math.floor((random[row * 16 + from + i]! + 1) / 2 * words.length)])
      .join(" ");
  return Array.from({ length: count }, (_, i) => {
    const row = i % 3 === 0
      ? { prompt: sentence(i, 0, 3) + " ", completion: sentence(i, 3, 2 + i % 5) }
      : { text: sentence(i, 0, 3 + i % 11) + "." };
    return JSON.stringify(row) + "\n";
  }).join("");
}

/** A folder with a teacher and datasets. */
export interface TinyFiles {
  readonly folder: string;
  readonly teacher: string;
  readonly train: string;
  readonly heldOut: string;
}

/** Calls `fn` with a fresh folder holding a model and datasets, and removes it. */
export async function withTiny(
  fn: (files: TinyFiles) => Promise<void>,
  options: TinyModelOptions = {},
): Promise<void> {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "limbeck-" }));
  try {
    const files = {
      folder,
      teacher: `${folder}/teacher`,
      train: `${folder}/train.jsonl`,
      heldOut: `${folder}/heldout.jsonl`,
    };
    await writeTinyModel(files.teacher, options);
    await Deno.writeTextFile(files.train, tinyRows(40, 1));
    await Deno.writeTextFile(files.heldOut, tinyRows(6, 2));
    await fn(files);
  } finally {
    closeTestStore(folder);
    await Deno.remove(folder, { recursive: true });
  }
}

/** What a test changes in the recipe: sections are merged field by field. */
export type RecipeChanges = Partial<Omit<RecipeInput, "teacher" | "adapter">> & {
  readonly teacher?: Partial<RecipeInput["teacher"]>;
  readonly adapter?: Partial<AdapterRecipe>;
};

/** A recipe with an adapter. */
export type AdaptedRecipe = Recipe & { adapter: AdapterRecipe };

/** A recipe over the files, with a student cut from the teacher; the learning rate is constant unless `changes` say otherwise. */
export function tinyRecipe(files: TinyFiles, changes: RecipeChanges = {}): AdaptedRecipe {
  return parseRecipe({
    // Of several teachers, the first one's model is the teacher's.
    teacher: { ...(changes.teacher?.teachers ? {} : { model: files.teacher }), ...changes.teacher },
    student: changes.student ?? { model: "teacher", layers: [0, 2] },
    data: { train: files.train, heldOut: files.heldOut, contextLength: 64, ...changes.data },
    ...(changes.objective ? { objective: changes.objective } : {}),
    adapter: { rank: 4, ...changes.adapter },
    train: {
      steps: 20,
      tokensPerMicroBatch: 64,
      learningRate: 1e-2,
      schedule: "constant",
      warmup: 0,
      ...changes.train,
    },
    samples: { tokens: 0, ...changes.samples },
    ...(changes.evaluate ? { evaluate: changes.evaluate } : {}),
    output: { ...changes.output },
    limits: { ...changes.limits },
  }) as AdaptedRecipe;
}

/** A setup with an adapter. */
export type AdaptedSetup = TrainingSetup & { readonly adapter: ModelAdapter };

/** {@linkcode openTiny} of a recipe with an adapter. */
export async function tinySetup(recipe: Recipe): Promise<AdaptedSetup & Disposable> {
  const setup = await openTiny(recipe);
  const { adapter } = setup;
  if (!adapter) throw new Error("the recipe has no adapter");
  return { ...setup, adapter };
}

/** Opens the models of a recipe and resolves its plugins. */
export async function openTiny(recipe: Recipe): Promise<TrainingSetup & Disposable> {
  const models = await openModels(recipe, () => openStudent(recipe));
  const { student, teachers } = models;
  const setup = setUp({ recipe, teacher: teachers[0]!, teachers, student }, new Registry().addAll(builtins));
  return {
    ...setup,
    [Symbol.dispose]: () => closeModels(models),
  };
}

/** A sample of random tokens of a vocabulary of which the last `targets` are learnt. */
export function tinySample(
  length: number,
  targets: number,
  seed: number,
  vocabulary = TINY_VOCABULARY,
): EncodedSample {
  const random = randomArray(length, seed);
  return {
    ids: Int32Array.from(random, (r) => 3 + Math.floor((r + 1) / 2 * (vocabulary - 3))),
    supervised: Uint8Array.from({ length }, (_, i) => Number(i >= length - targets)),
    source: { file: "random", line: seed },
  };
}
