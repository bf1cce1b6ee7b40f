/**
 * Instruction residuals: what instruction tuning changed in one base model is added to another one.
 *
 * Jindal et al., "Balancing Continuous Pre-Training and Instruction Fine-Tuning", arXiv 2410.10739: new = new base + (instruct - base),
 * all tensors, coefficient 1, no training.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { FloatDtype } from "../../formats/dtype.ts";
import { writeHuggingFaceFolder } from "../../formats/huggingface/write.ts";
import type { TensorData, TokenizerFiles } from "../../formats/model_source.ts";
import { type DerivedCard, derivedCard } from "../written/derived_card.ts";
import { checkOutput, pieces, storageOf, type TensorWork } from "../written/output.ts";
import { checkAlike } from "../parents/alike.ts";
import { type Parent, Parents } from "../parents/parents.ts";
import { type InputReader, readRows } from "../parents/read_pieces.ts";
import { isOfTokens, type Tokenized, type Vocabulary, withTokenizer } from "../parents/vocabulary.ts";
import { checkSameTokens, commonRows } from "./common_rows.ts";

/** The three models of a residual, by their folders or GGUF files. */
export interface ResidualModels {
  /** What instruction tuning began from. */
  readonly base: string;
  /** What it made of it. */
  readonly instruct: string;
  /** What is to become an instruct model: the base, trained further. */
  readonly newBase: string;
}

/** How a residual is taken. */
export interface ResidualOptions extends TensorWork {
  /** What the residual is multiplied by; 1 in the paper, and when absent. */
  readonly scale?: number;
  /** Where vocabularies differ: only rows of tokens that all three models have are changed. */
  readonly commonRows?: boolean;
}

/** What was written. */
export interface ResidualResult {
  readonly dtype: FloatDtype;
  /** Rows of the embedding that are as they were in the new base. */
  readonly keptRows: number;
  /** What is worth knowing of the models. */
  readonly notes: readonly string[];
}

type ThreeModels = Readonly<Record<"base" | "instruct" | "newBase", Tokenized>>;

/** The difference of two models in the shape of a third one, tensor by tensor. */
export class Residual {
  readonly base: Parent;
  readonly instruct: Parent;
  readonly newBase: Parent;
  readonly notes: readonly string[];
  /** Rows of the embedding that one of the three lacks. */
  readonly keptRows: number;
  readonly #models: ThreeModels;
  readonly #reader: InputReader;
  readonly #scale: number;

  private constructor(
    parents: Parents,
    models: ThreeModels,
    notes: readonly string[],
    { scale = 1, commonRows: onlyCommon = false }: ResidualOptions,
  ) {
    this.base = models.base.parent;
    this.instruct = models.instruct.parent;
    this.newBase = models.newBase.parent;
    let lost: string[] = [];
    this.#models = models;
    this.#scale = scale;
    let vocabulary: Vocabulary = {
      rows: this.newBase.architecture.config.vocabularySize,
      tokenizer: undefined,
    };
    if (onlyCommon) {
      const [base, instruct] = commonRows([models.newBase, models.base, models.instruct]);
      lost = lostTokens(models.instruct, instruct!.own);
      // Where one file is both, the rows of the one are those of the other.
      vocabulary = {
        ...vocabulary,
        sources: new Map([[this.base.name, base!], [this.instruct.name, instruct!]]),
      };
    }
    this.keptRows = vocabulary.sources?.get(this.base.name)?.own.filter((row) => row < 0).length ?? 0;
    this.#reader = { parents, vocabulary, dtype: undefined };
    this.notes = lost.length === 0 ? notes : [
      ...notes,
      `tokens of ${this.instruct.name} that not all three models have: ${lost.length}, such as ${
        JSON.stringify(lost[0])
      }; what it learnt of them is lost, and its chat template may need them`,
    ];
  }

  /**
   * Opens the models, hands over their residual and closes them.
   *
   * @throws {InputError} models of different shapes; vocabularies that differ, unless `commonRows`
   */
  static async open<T>(
    { base, instruct, newBase }: ResidualModels,
    options: ResidualOptions,
    body: (residual: Residual) => Promise<T>,
  ): Promise<T> {
    const parents = await Parents.open([base, instruct, newBase], options.families);
    try {
      const notes = checkAlike(parents);
      checkLayers([base, instruct, newBase].map((name) => parents.get(name)));
      const models = {
        base: await withTokenizer(parents.get(base)),
        instruct: await withTokenizer(parents.get(instruct)),
        newBase: await withTokenizer(parents.get(newBase)),
      };
      if (!options.commonRows) checkSameTokens(Object.values(models));
      const silent = [
        ...new Set(Object.values(models).filter((m) => !m.tokenizer).map((m) => m.parent.name)),
      ];
      if (silent.length > 0) {
        notes.push(
          `there is no tokenizer in ${silent.join(", ")}: tokens are taken to be numbered as in the others`,
        );
      }
      return await body(new Residual(parents, models, notes, options));
    } finally {
      parents.close();
    }
  }

  /** Names and shapes of all tensors. */
  get tensors(): ReadonlyMap<string, number[]> {
    return this.newBase.architecture.tensors;
  }

  /** Values in all tensors. */
  get size(): number {
    return this.newBase.architecture.parameterCount;
  }

  /** Rows of scale (instruct - base), f64; 0 in rows of tokens that one of the three lacks. */
  async read(name: string, first: number, count: number): Promise<Float64Array> {
    const [before, after] = await Promise.all([
      this.#readRows(this.base, name, first, count),
      this.#readRows(this.instruct, name, first, count),
    ]);
    const difference = new Float64Array(before.length);
    for (let i = 0; i < difference.length; i++) difference[i] = this.#scale * (after[i]! - before[i]!);
    return difference;
  }

  /** Rows of the new base with the residual added. */
  async added(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const [values, residual] = await Promise.all([
      readRows(
        { ...this.#reader, vocabulary: { rows: 0, tokenizer: undefined } },
        {
          parent: this.newBase.name,
          name,
        },
        first,
        count,
        false,
      ),
      this.read(name, first, count),
    ]);
    // The sum is in f64, so that there is one rounding.
    for (let i = 0; i < values.length; i++) values[i] = values[i]! + residual[i]!;
    return values;
  }

  #readRows(parent: Parent, name: string, first: number, count: number): Promise<Float32Array> {
    const ofTokens = isOfTokens(name, this.newBase.architecture);
    return readRows(this.#reader, { parent: parent.name, name }, first, count, ofTokens);
  }

  /**
   * The instruct model's tokenizer, whose template and special tokens make it one; the new base's, with the instruct model's template, where
   * rows are in another order or number.
   */
  tokenizerFiles(): TokenizerFiles | undefined {
    const { base, instruct, newBase } = this.#models;
    const order = this.#reader.vocabulary.sources ? [newBase, instruct, base] : [instruct, newBase, base];
    const rows = (model: Tokenized) => model.parent.architecture.config.vocabularySize;
    const files = order.find((model) => model.files && rows(model) === rows(newBase))?.files;
    if (!files) return undefined;
    const chatTemplate = instruct.files?.chatTemplate ?? files.chatTemplate;
    if (chatTemplate === undefined || chatTemplate === files.chatTemplate) return files;
    const originals = files.originals && new Map([...files.originals, ["chat_template.jinja", chatTemplate]]);
    return { ...files, chatTemplate, ...(originals ? { originals } : {}) };
  }

  /** The new base's config, which fits its weights, with the tokens at which the instruct model stops, where they have the same numbers. */
  config(): Record<string, unknown> {
    const { eos_token_id } = this.instruct.source.config;
    const sameRows = this.#reader.vocabulary.sources === undefined;
    return {
      ...this.newBase.source.config,
      ...(eos_token_id === undefined || !sameRows ? {} : { eos_token_id }),
    };
  }

  /** Hashes of the models, for a card. */
  async parents(): Promise<DerivedCard["parents"]> {
    const found = [];
    for (
      const [role, { name, source }] of [["new base", this.newBase], ["instruct", this.instruct], [
        "base",
        this.base,
      ]] as const
    ) {
      found.push({ role, model: name, sha256: await source.fingerprint() });
    }
    return found;
  }
}

/**
 * Writes new base + scale (instruct - base) as a model folder, whole or not at all, a piece of a tensor in memory at a time.
 *
 * @param options.dtype Storage of the result; the new base's when absent
 * @throws {InputError} see {@linkcode Residual.open}; a value that is NaN or infinite, or too large for the result's storage; `output` is
 * there already
 *
 * @example
 * ```ts
 * await writeResidual({ base: "llama-3-8b", instruct: "llama-3-8b-instruct", newBase: "my-llama-3-8b" }, "my-instruct");
 * ```
 */
export async function writeResidual(
  models: ResidualModels,
  output: string,
  options: ResidualOptions & { readonly dtype?: FloatDtype } = {},
): Promise<ResidualResult> {
  await checkOutput(output);
  return await Residual.open(models, options, async (residual) => {
    const dtype = options.dtype ?? storageOf(residual.newBase);
    const { notes, keptRows, tensors } = residual;
    let done = 0;

    const read = async function* (name: string): AsyncGenerator<TensorData> {
      const [, ...row] = tensors.get(name)!;
      for (const { first, count } of pieces(tensors.get(name)!)) {
        options.signal?.throwIfAborted();
        const data = await residual.added(name, first, count);
        yield { dtype: "f32", shape: [count, ...row], data };
        options.onProgress?.(done += data.length, residual.size, name);
      }
    };

    await writeHuggingFaceFolder(output, {
      config: residual.config(),
      tokenizer: residual.tokenizerFiles(),
      tensors,
      read,
    }, {
      dtype,
      readme: async () =>
        derivedCard({
          title: "Instruction residual",
          method: `${inWords(options)}, every tensor (arXiv 2410.10739).`,
          library: "transformers",
          parents: await residual.parents(),
          notes: [
            ...notes,
            ...(keptRows > 0
              ? [
                `${keptRows} rows of the vocabulary are the new base's own, because one of the three lacks their token`,
              ]
              : []),
          ],
        }),
    });
    return { dtype, keptRows, notes };
  });
}

/** The equation, with a scale that is not 1. */
function inWords({ scale = 1 }: ResidualOptions): string {
  return `new base + ${scale === 1 ? "" : `${scale} `}(instruct - base)`;
}

/** Tokens of a model that none of the rows in `used` stands for. */
function lostTokens({ tokenizer }: Tokenized, used: Int32Array): string[] {
  const rows = new Set(used);
  const lost: string[] = [];
  for (let id = 0; id < (tokenizer?.vocabularySize ?? 0); id++) {
    const token = tokenizer!.tokenText(id);
    if (token !== undefined && !rows.has(id)) lost.push(token);
  }
  return lost;
}

/** @throws {InputError} models of different depth, which the rest of a merge can do something with, but not a difference */
function checkLayers([one, ...others]: readonly Parent[]): void {
  const { layers } = one!.architecture.config;
  for (const { name, architecture: { config } } of others) {
    if (config.layers === layers) continue;
    throw new InputError(`has ${config.layers} layers, not ${layers} as ${one!.name}`, {
      where: name,
      hint: "Differences are taken tensor by tensor, so all models must have the same layers.",
    });
  }
}
