/** Logits of whole sequences, without a cache: what generation and exports are compared with. */
import { type Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { FLAT } from "../../src/distill/trained/parameters.ts";
import { writePrompts } from "../../src/distill/program/fed/prompt_features.ts";
import { writeStream } from "../../src/distill/program/fed/stream.ts";
import { traceModel } from "../../src/distill/program/traced_model.ts";
import { attachOf, partsOf, type Trained } from "../../src/distill/trained/attach.ts";
import { Trainables } from "../../src/distill/trained/trainables.ts";
import type { Gpu, GpuBuffer } from "../../src/gpu/device.ts";
import { compile, type Executable } from "../../src/tensor/executable.ts";
import { type Plan, plan, Program } from "../../src/tensor/plan.ts";
import { IGNORED_LABEL } from "../../src/text/packing.ts";

/** The index of the largest logit, the first among equals. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}

/** What is trained of a model, and its values. */
export interface Adapted extends Trained {
  readonly parameters: Float32Array;
}

/** A model that computes the logits of one sequence of up to `length` tokens. */
export class Reader implements Disposable {
  readonly weights: ReadonlyMap<string, GpuBuffer>;
  readonly #executable: Executable;
  readonly #length: number;
  readonly #vocabulary: number;

  private constructor(
    weights: ReadonlyMap<string, GpuBuffer>,
    executable: Executable,
    length: number,
    model: Model,
  ) {
    this.weights = weights;
    this.#executable = executable;
    this.#length = length;
    this.#vocabulary = model.config.vocabularySize;
  }

  static async open(gpu: Gpu, model: Model, length: number, adapted?: Adapted): Promise<Reader> {
    const planned = wholeSequence(gpu, model, length, adapted);
    const weights = await uploadWeights(gpu, planned, [model]);
    const executable = await compile(gpu, planned, { weights });
    executable.poison();
    if (adapted) executable.write(FLAT.parameters, adapted.parameters);
    return new Reader(weights, executable, length, model);
  }

  /**
   * Logits of every position, [tokens, vocabulary].
   *
   * @param prompt How many of the tokens an adapter may look at as the prompt
   */
  async logits(tokens: Int32Array, prompt: number = tokens.length): Promise<Float32Array> {
    const column = (value: (t: number) => number) =>
      Int32Array.from({ length: this.#length }, (_, t) => t < tokens.length ? value(t) : 0);
    writeStream(this.#executable, {
      tokens: column((t) => tokens[t]!),
      positions: column((t) => t),
      start: column(() => 0),
      end: column((t) => t + 1),
    }, () => tokens.length);
    writePrompts(this.#executable, {
      segment: Int32Array.from({ length: this.#length }, (_, t) => t < tokens.length ? 0 : -1),
      label: column((t) => t < prompt - 1 ? IGNORED_LABEL : 0),
    });
    this.#executable.run("read");
    const { data } = (await this.#executable.read(["logits"], "read")).get("logits")!;
    return (data as Float32Array).subarray(0, tokens.length * this.#vocabulary);
  }

  /** Logits of what follows the last token, [vocabulary]. */
  async next(tokens: Int32Array, prompt?: number): Promise<Float32Array> {
    return (await this.logits(tokens, prompt)).subarray((tokens.length - 1) * this.#vocabulary);
  }

  [Symbol.dispose](): void {
    this.#executable.destroy();
    for (const buffer of this.weights.values()) buffer.destroy();
  }
}

function wholeSequence(gpu: Gpu, model: Model, length: number, trained: Trained = {}): Plan {
  const program = new Program();
  const graph = program.block("read");
  const trainables = new Trainables(partsOf(trained));
  const view = (name: string) => trainables.view(graph, name);
  const attach = attachOf(trained);
  const { hidden, logits } = traceModel(graph, "model", model, length, { length }, {
    attach: attach && ((prompt) => attach(graph, view, false, prompt)),
  });
  graph.output("logits", logits(hidden));
  return plan(program, gpu.description);
}
