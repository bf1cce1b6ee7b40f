/**
 * What a model says of each token of texts: its log-probability over the whole vocabulary, its place, and the likeliest tokens.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import type { ModelHooks } from "../../models/context.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import type { Graph } from "../../tensor/graph.ts";
import { tokenScores } from "../../tensor/ops/token_scores.ts";
import { topK } from "../../tensor/ops/top_k.ts";
import { rows } from "../../tensor/ops/views.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { Model } from "../inputs/models.ts";
import { traceModel } from "../program/traced_model.ts";
import { CHUNK, type Feed, passColumn, passes, passStream, passTokens } from "./text_passes.ts";

/** What a scorer is made for. */
export interface ScorerOptions {
  /** Longest text; as many tokens of shorter ones are taken in together. */
  readonly length: number;
  /** The likeliest tokens that are told of each place, K; at most 256 and the vocabulary. */
  readonly top: number;
  /** Tokens of one pass; a multiple of 64. */
  readonly passTokens?: number;
  /** Hooks of what is trained on the model. */
  readonly attach?: (graph: Graph) => ModelHooks;
}

/** What a model says of a text of n tokens. Log-probabilities are natural, at temperature 1, over the whole vocabulary. */
export interface TextScores {
  readonly tokens: Int32Array;
  /** log p of each token given those before it, [n]; NaN for the first. */
  readonly logProbabilities: Float64Array;
  /** Place of each token among all, 1 for the likeliest, of equal ones the lower id first, [n]; 0 for the first token. */
  readonly ranks: Int32Array;
  readonly top: number;
  /** The K likeliest tokens at each place, likeliest first, [n + 1, K]: row i is what may follow i tokens; row 0 is left empty. */
  readonly topIds: Uint32Array;
  /** Their log-probabilities. */
  readonly topLogProbabilities: Float64Array;
}

const BLOCK = "score";
/** i32 [T]: the token that stands after each, or -1. */
const NEXT = `${BLOCK}.next`;

/** The block `score` of a model, planned. Pure: needs no GPU. */
export function scoringPlan(device: DeviceDescription, model: Model, options: ScorerOptions): Plan {
  const { length, top, attach } = options;
  const count = passTokens(length, options.passTokens);
  const program = new Program();
  const graph = program.block(BLOCK);
  const { hidden, logits } = traceModel(graph, "model", model, count, passStream({ block: BLOCK, length }), {
    attach: attach && (() => attach(graph)),
  });
  const next = graph.input(NEXT, [count], "i32");
  for (let first = 0; first < count; first += CHUNK) {
    const z = logits(rows(hidden, first, CHUNK));
    graph.output(`scores ${first}`, tokenScores(z, rows(next, first, CHUNK)));
    if (top === 0) continue;
    const { ids, values } = topK(z, top);
    graph.output(`ids ${first}`, ids);
    graph.output(`values ${first}`, values);
  }
  return plan(program, device);
}

/** A model ready to score. */
export class Scorer {
  readonly #executable: Executable;
  readonly #options: ScorerOptions;

  private constructor(executable: Executable, options: ScorerOptions) {
    [this.#executable, this.#options] = [executable, options];
  }

  /**
   * Compiles the scorer.
   *
   * @param weights Buffers of the model's weights, and of what is trained on it, by storage name
   */
  static async create(
    gpu: Gpu,
    model: Model,
    weights: ReadonlyMap<string, GpuBuffer>,
    options: ScorerOptions,
  ): Promise<Scorer> {
    return new Scorer(
      await compile(gpu, scoringPlan(gpu.description, model, options), { weights }),
      options,
    );
  }

  /** The likeliest tokens that it tells of each place. */
  get top(): number {
    return this.#options.top;
  }

  /**
   * Scores texts.
   *
   * @param texts Token ids of the model's vocabulary, each at least one
   * @param onPass Called after each pass
   * @throws {InputError} if a text is empty or too long, or the model's logits are not finite
   */
  async score(texts: readonly Int32Array[], onPass?: () => void): Promise<TextScores[]> {
    const { length, top } = this.#options;
    const found = texts.map((tokens): TextScores => ({
      tokens,
      logProbabilities: new Float64Array(tokens.length).fill(NaN),
      ranks: new Int32Array(tokens.length),
      top,
      topIds: new Uint32Array((tokens.length + 1) * top),
      topLogProbabilities: new Float64Array((tokens.length + 1) * top),
    }));
    const count = passTokens(length, this.#options.passTokens);
    const writeNext = (feeds: readonly Feed[]) =>
      this.#executable.write(NEXT, passColumn(feeds, count, (f) => texts[f.text]![f.position + 1] ?? -1, -1));
    for (const feeds of passes(this.#executable, texts, { block: BLOCK, length, count }, writeNext)) {
      await this.#take(feeds, found);
      onPass?.();
    }
    return found;
  }

  /** Reads what came of some tokens. */
  async #take(feeds: readonly Feed[], found: readonly TextScores[]): Promise<void> {
    const { top } = this.#options;
    const parts = top === 0 ? ["scores"] : ["scores", "ids", "values"];
    const firsts = Array.from({ length: Math.ceil(feeds.length / CHUNK) }, (_, c) => c * CHUNK);
    const back = await this.#executable.read(
      firsts.flatMap((first) => parts.map((part) => `${part} ${first}`)),
      BLOCK,
    );
    for (const [row, { text, position }] of feeds.entries()) {
      const r = row % CHUNK;
      const part = (name: string, width: number) =>
        back.get(`${name} ${row - r}`)!.data.subarray(r * width, (r + 1) * width);
      const scores = found[text]!;
      const [logit, sum, rank] = part("scores", 3) as Float32Array;
      if (!Number.isFinite(sum!) || Number.isNaN(logit!)) {
        throw new InputError(`the model's logits are not finite numbers after token ${position + 1}`, {
          hint: "The model's weights are damaged, or too large for f32: check the model.",
        });
      }
      if (position + 1 < scores.tokens.length) {
        scores.logProbabilities[position + 1] = Math.fround(logit! - sum!);
        scores.ranks[position + 1] = rank!;
      }
      if (top === 0) continue;
      scores.topIds.set(part("ids", top) as Uint32Array, (position + 1) * top);
      // The same arithmetic as above: whoever compares the two finds the likeliest token to be the likeliest.
      part("values", top).forEach((z, k) => {
        scores.topLogProbabilities[(position + 1) * top + k] = Math.fround(z - sum!);
      });
    }
  }

  /** Frees its cache and buffers; shared weights stay. */
  destroy(): void {
    this.#executable.destroy();
  }
}
