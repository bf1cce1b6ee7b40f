/**
 * One compiled program over one set of weights that runs any subset of a model's layers: the host says which layers it leaves out, and
 * no plan is made anew.
 *
 * @module
 */
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { initialScalars, type ResolvedLoss } from "../../losses/traced.ts";
import { layerGate, layerName } from "../../models/context.ts";
import type { Registry } from "../../registry/registry.ts";
import { ShapeError } from "../../base/errors.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { assign } from "../../tensor/ops/assign.ts";
import { pointwise, sumColumns } from "../../tensor/ops/pointwise.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import type { MarkedBatch } from "../../distill/objective/token_masks.ts";
import { type Model, uploadWeights } from "../../distill/inputs/models.ts";
import { chunkedLoss, headTarget } from "../../distill/objective/chunked_loss.ts";
import type { LossSet } from "../../distill/objective/loss_sets.ts";
import { Objective } from "../../distill/objective/objective.ts";
import { checkSeparable } from "../../distill/program/shapes/gated_layers.ts";
import { labelInput, type StreamSizes, writeBatch } from "../../distill/program/metrics/measure.ts";
import { MetricsRing } from "../../distill/program/metrics/metrics_ring.ts";
import { runInSlices } from "../../distill/program/slices.ts";
import { headInput, traceHead, traceModel } from "../../distill/program/traced_model.ts";
import type { PackedBatch } from "../../text/packing.ts";

/** The model's name in its blocks. */
const NAME = "model";

/** Final hidden states of the subset that ran last, f32 [T, H]. */
const HIDDEN = "hidden";
/** Those of the full model, which a subset is compared with; written by the host, f32 [T, H]. */
const FULL = "full.hidden";

/** What is measured of each row behind the layers: its losses in order. */
const HEADS = { loss: ["cross-entropy"], divergence: ["cross-entropy", "forward-kl"] } as const;

/** `loss`: cross-entropy; `divergence`: cross-entropy, and KL(full || subset), for which the head runs twice. */
export type HeadBlock = keyof typeof HEADS;

/** Batches whose rows may wait on the GPU. */
const RING = 8;

/** Plans the program. Pure: needs no GPU. */
export function planSubsets(
  model: Model,
  registry: Registry,
  sizes: StreamSizes,
  device: Plan["device"],
): { planned: Plan; terms: readonly ResolvedLoss[] } {
  const program = new Program();
  const { tokens, positions } = sizes;
  const decoder = program.block("decoder");
  const { hidden } = traceModel(decoder, NAME, model, tokens, { length: positions }, { gated: true });
  checkSeparable(decoder);
  assign(hiddenState(decoder, HIDDEN, model, tokens), [hidden], (_, h) => h!);
  const terms = Object.entries(HEADS).flatMap(([block, losses]) =>
    traceLosses(program.block(block), model, registry, losses, sizes)
  );
  traceCosines(program.block("cosine"), model, sizes);
  return { planned: plan(program, device), terms };
}

function hiddenState(graph: Graph, name: string, model: Model, tokens: number): Tensor {
  return graph.state(name, [tokens, model.config.hiddenSize], "f32", "program");
}

/** Losses of every row, in the output `rows` f32 [chunks, K * chunkRows]. */
function traceLosses(
  graph: Graph,
  model: Model,
  registry: Registry,
  ids: readonly string[],
  { tokens, chunkRows, positions }: StreamSizes,
): readonly ResolvedLoss[] {
  const recipe = ids.map((loss) => ({ loss, weight: 1, temperature: 1, options: {} }));
  const objective = Objective.of(registry, recipe, model.config.vocabularySize);
  const [pass] = objective.passes;
  // Only values are wanted.
  const set: LossSet = { ...pass!, terms: pass!.terms.map((term) => ({ ...term, monitor: true })) };
  const losses = objective.rowLosses(set, graph);
  const head = traceHead(graph, NAME, model, tokens, { length: positions });
  const side = (state: string) =>
    headInput({ ...head, hidden: hiddenState(graph, state, model, tokens) }, false);
  const { values } = chunkedLoss(graph, {
    learner: side(HIDDEN),
    ...(set.needsTarget ? { target: headTarget(side(FULL)) } : {}),
    ...labelInput(graph, tokens, losses),
    ...{ losses, chunkRows, gradient: false },
  });
  graph.output("rows", values);
  return set.terms;
}

/** Cosines of what goes into each layer and what comes out, one a position: the outputs `cosine 0`, `cosine 1`, ... */
function traceCosines(graph: Graph, model: Model, { tokens, positions }: StreamSizes): void {
  let before: Tensor | undefined;
  let layer = 0;
  traceModel(graph, NAME, model, tokens, { length: positions }, {
    onTap(tap, x) {
      if (tap === `model.layers.${layer}.output`) graph.output(`cosine ${layer++}`, cosine(before!, x));
      else if (tap !== "embeddings") return;
      before = x;
    },
  });
  if (layer !== model.config.layers) {
    throw new ShapeError(`${layer} of ${model.config.layers} layers show their output; this is a bug`);
  }
}

/** The cosine of each row of x and y [T, H]: f32 [T, 1]. */
function cosine(x: Tensor, y: Tensor): Tensor {
  const product = (a: Tensor, b: Tensor) => sumColumns(pointwise([a, b], (a, b) => a!.mul(b!)));
  return pointwise(
    [product(x, y), sumColumns(square(x)), sumColumns(square(y))],
    (xy, xx, yy) => xy!.div(xx!.sqrt().mul(yy!.sqrt())),
  );
}

function square(x: Tensor): Tensor {
  return pointwise([x], (x) => x!.mul(x!));
}

/** The program on a device, with the model's weights. */
export class SubsetProgram {
  readonly gpu: Gpu;
  readonly sizes: StreamSizes;
  readonly #model: Model;
  readonly #executable: Executable;
  readonly #weights: ReadonlyMap<string, GpuBuffer>;

  private constructor(
    gpu: Gpu,
    model: Model,
    sizes: StreamSizes,
    executable: Executable,
    weights: ReadonlyMap<string, GpuBuffer>,
  ) {
    [this.gpu, this.sizes] = [gpu, sizes];
    [this.#model, this.#executable, this.#weights] = [model, executable, weights];
  }

  /** @throws {DeviceError} if memory does not suffice */
  static async create(
    gpu: Gpu,
    model: Model,
    registry: Registry,
    sizes: StreamSizes,
  ): Promise<SubsetProgram> {
    const { planned, terms } = planSubsets(model, registry, sizes, gpu.description);
    const weights = await uploadWeights(gpu, planned, [model]);
    try {
      const executable = await compile(gpu, planned, { weights });
      executable.setScalars(initialScalars(terms));
      return new SubsetProgram(gpu, model, sizes, executable, weights);
    } catch (error) {
      for (const buffer of weights.values()) buffer.destroy();
      throw error;
    }
  }

  /** Writes a batch into the inputs. */
  write(batch: PackedBatch): void {
    const marked: MarkedBatch = { labels: batch.label, counts: [batch.supervised] };
    writeBatch(this.#executable, batch, marked);
  }

  /** Queues the layers of a subset, and then a head. */
  async run(kept: readonly number[], head?: HeadBlock): Promise<void> {
    const without = new Set<string>();
    for (let layer = 0; layer < this.#model.config.layers; layer++) {
      const isKept = kept.includes(layer);
      this.#executable.setScalar(layerGate(NAME, layer), Number(isKept));
      if (!isKept) without.add(layerName(NAME, layer));
    }
    await runInSlices(this.#executable, "decoder", undefined, without);
    if (head) await runInSlices(this.#executable, head);
  }

  /** Final hidden states of the subset that ran last, f32 [T * H]. */
  async hidden(): Promise<Float32Array> {
    return (await this.#executable.read([HIDDEN])).get(HIDDEN)!.data as Float32Array;
  }

  /** Gives the hidden states of the full model on the batch that is written. */
  setFull(hidden: Float32Array): void {
    this.#executable.write(FULL, hidden);
  }

  /** A ring for the rows of a head. */
  ring<T>(head: HeadBlock): RowRing<T> {
    return new RowRing(this.#executable, head, this.sizes);
  }

  /** Cosines of the full model's layers on the batch that is written, [layer][T]. */
  async cosines(): Promise<Float32Array[]> {
    await runInSlices(this.#executable, "cosine");
    const names = Array.from({ length: this.#model.config.layers }, (_, layer) => `cosine ${layer}`);
    const back = await this.#executable.read(names, "cosine");
    return names.map((name) => back.get(name)!.data as Float32Array);
  }

  /** Frees everything. */
  destroy(): void {
    this.#executable.destroy();
    for (const buffer of this.#weights.values()) buffer.destroy();
  }
}

/** Losses of rows that are still on the GPU, fetched several batches at once. */
export class RowRing<T> {
  readonly #ring: MetricsRing<T>;
  readonly #losses: number;
  readonly #sizes: StreamSizes;

  constructor(executable: Executable, head: HeadBlock, sizes: StreamSizes) {
    this.#losses = HEADS[head].length;
    this.#sizes = sizes;
    const words = this.#losses * sizes.tokens;
    this.#ring = new MetricsRing(executable.gpu, executable, [{ name: "rows", block: head, words }], RING);
  }

  get full(): boolean {
    return this.#ring.full;
  }

  /** Queues the copy of the rows of the batch that ran last. */
  push(tag: T): void {
    this.#ring.push(tag);
  }

  /** Waits, and gives each loss of each position, in the order of the head's losses. */
  async collect(): Promise<{ tag: T; losses: Float32Array[] }[]> {
    const { tokens, chunkRows } = this.#sizes;
    return (await this.#ring.collect()).map(({ tag, values: [rows] }) => {
      const losses = Array.from({ length: this.#losses }, () => new Float32Array(tokens));
      for (let first = 0; first < tokens; first += chunkRows) {
        losses.forEach((loss, k) => {
          const from = first * this.#losses + k * chunkRows;
          loss.set(rows!.subarray(from, from + chunkRows), first);
        });
      }
      return { tag, losses };
    });
  }

  destroy(): void {
    this.#ring.destroy();
  }
}
