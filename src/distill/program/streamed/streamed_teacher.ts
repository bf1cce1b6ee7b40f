/**
 * A teacher whose layers come from disk, traced: a block for what stands before the layers, two for each kind of layer, one for each
 * buffer that its weights may lie in, and a block for what follows. Between them the hidden states of some micro-batches wait in a state;
 * those after the final norm are what the other blocks take for the teacher. Embedding, final norm and head stay on the GPU.
 *
 * @module
 */
import type { DeviceDescription } from "../../../gpu/description.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { gatherRows, scatterRows } from "../../../tensor/ops/cache.ts";
import type { Program } from "../../../tensor/plan.ts";
import type { Model } from "../../inputs/models.ts";
import type { ModelFeatureLoss } from "../../objective/feature_losses.ts";
import type { Recipe } from "../../recipe/recipe.ts";
import { type LayerSizes, type Slot, SLOTS, StreamedLayers } from "./streamed_layers.ts";
import { headInput, type ModelTrace, type Side, traceHead, traceModel } from "../traced_model.ts";

/** How the teacher of a program is streamed. */
export interface StreamedTeacher {
  readonly layers: StreamedLayers;
  /** Micro-batches that go through a layer while it is there. */
  readonly waiting: number;
  /** Its inner values that losses look at. */
  readonly taps: ReadonlySet<string>;
}

/** Micro-batches that wait at once even where a step has fewer, and the bytes that their states take then at the most. */
const [MOST_WAITING, WAITING_BYTES] = [8, 64 * 2 ** 20];

/**
 * How many micro-batches may wait at once, from what is fastest to what takes the least memory.
 *
 * @param window Micro-batches of a step
 */
export function waitingCounts(
  { config: { hiddenSize } }: Model,
  tokens: number,
  window: number,
  device: DeviceDescription,
): number[] {
  const bytes = tokens * hiddenSize * 4;
  const counts = [Math.max(window, Math.min(MOST_WAITING, Math.floor(WAITING_BYTES / bytes)))];
  while (counts.at(-1)! > 1) counts.push(Math.ceil(counts.at(-1)! / 2));
  // All that wait lie in one binding.
  const most = Math.max(1, Math.floor(device.maxBindingSize / bytes));
  return counts.filter((count) => count <= most);
}

/** Finds out what a run's teacher is streamed with. @throws {DeviceError} if a layer does not fit the device */
export function streamTeacher(
  { teacher, recipe: { data }, features }: {
    readonly teacher: Model;
    readonly recipe: Pick<Recipe, "data">;
    readonly features: readonly ModelFeatureLoss[];
  },
  tokens: number,
  waiting: number,
  device: DeviceDescription,
): StreamedTeacher {
  const taps = new Set(features.flatMap((feature) => feature.taps.teacher));
  const sizes = { tokens, positions: data.contextLength };
  return { layers: new StreamedLayers(teacher, sizes, device, taps), waiting, taps };
}

/** Blocks, states and inputs. */
export const STREAMED = {
  begin: "teacher.begin",
  /** Runs the layers of a kind with the weights in a buffer. */
  layer: (kind: number, slot: Slot) => `teacher.layers.${kind}.${slot}`,
  end: "teacher.end",
  /** f32 [waiting * T, H] */
  hidden: "teacher.hidden",
  /** f32 [waiting * T, width] of an inner value. */
  tap: (name: string) => `teacher.tap.${name}`,
  /** i32 [T]: where the rows of a micro-batch lie in the states. */
  rows: "teacherRows",
} as const;

const NAME = "teacher";

/** What its blocks are traced for. */
export interface StreamedSizes extends LayerSizes {
  /** Stands before the names of blocks, states and inputs; nothing when absent. */
  readonly prefix?: string;
  /** Keys and values that the cache holds for all layers of a kind; there is none when absent. */
  readonly cacheRows?: (kind: number) => number;
  /** The tokens of the stream, where they are on the GPU. */
  readonly chosen?: (graph: Graph) => Tensor;
}

/** Traces the blocks that bring micro-batches through the teacher. */
export function traceStreamedTeacher(
  program: Program,
  streamed: StreamedTeacher,
  sizes: StreamedSizes,
): void {
  const block = (name: string) => program.block(`${sizes.prefix ?? ""}${name}`);
  tracePart(block(STREAMED.begin), "begin", streamed, sizes);
  for (const kind of new Set(streamed.layers.kinds)) {
    for (const slot of SLOTS) {
      tracePart(block(STREAMED.layer(kind, slot)), { layer: kind, slot }, streamed, sizes);
    }
  }
  tracePart(block(STREAMED.end), "end", streamed, sizes);
}

/**
 * Traces a part of the teacher: the whole decoder, with the state in the place of what comes before; what is not of the part is needed by
 * nobody then, and dropped.
 */
function tracePart(
  graph: Graph,
  part: "begin" | "end" | { readonly layer: number; readonly slot: Slot },
  streamed: StreamedTeacher,
  sizes: StreamedSizes,
): void {
  const { layers, taps } = streamed;
  const last = layers.count - 1;
  const states = new WaitingStates(graph, streamed, sizes);
  let isInside = part === "begin";
  const { tokens, positions: length, prefix = "", cacheRows, chosen } = sizes;
  const stream = {
    ...{ length, prefix },
    ...(cacheRows && typeof part === "object" ? { cacheRows: cacheRows(part.layer) } : {}),
    ...(chosen ? { tokens: chosen(graph), apart: true } : {}),
  };
  const { hidden } = traceModel(graph, NAME, layers.model, tokens, stream, {
    ...(typeof part === "object" ? { weights: layers.weights(part.layer, part.slot) } : {}),
    onTap: (name, x) => void (isInside && taps.has(name) && states.keep(STREAMED.tap(name), x)),
    onLayer(i, x, layer) {
      if (part === "begin") {
        if (i === 0) states.keep(STREAMED.hidden, x);
        isInside = false;
      } else if (part === "end") {
        if (i < last) return x;
        isInside = true;
        return states.waiting(STREAMED.hidden, x.dim(1));
      } else if (i === part.layer) {
        isInside = true;
        states.keep(STREAMED.hidden, layer(states.waiting(STREAMED.hidden, x.dim(1))));
        isInside = false;
      }
      return x;
    },
  });
  if (part === "end") states.keep(STREAMED.hidden, hidden);
}

/** The hidden states of a micro-batch that has been brought through the teacher, and its head. */
export function streamedTrace(graph: Graph, streamed: StreamedTeacher, sizes: StreamedSizes): ModelTrace {
  const { layers: { model } } = streamed;
  const { tokens, positions: length, prefix = "", chosen } = sizes;
  return {
    hidden: new WaitingStates(graph, streamed, sizes).waiting(STREAMED.hidden, model.config.hiddenSize),
    ...traceHead(graph, NAME, model, tokens, {
      ...{ length, prefix },
      ...(chosen ? { tokens: chosen(graph) } : {}),
    }),
  };
}

/** What the other blocks take for the teacher, once a micro-batch has been brought through it. */
export function streamedSide(graph: Graph, streamed: StreamedTeacher, sizes: LayerSizes): Side {
  const { layers: { model: { architecture } }, taps } = streamed;
  const states = new WaitingStates(graph, streamed, sizes);
  return {
    ...headInput(streamedTrace(graph, streamed, sizes), false),
    taps: new Map([...taps].map((name) => [
      name,
      states.waiting(STREAMED.tap(name), architecture.taps.get(name)!),
    ])),
  };
}

/** What waits, in a block; each f32 [waiting * T, width]. */
class WaitingStates {
  readonly #graph: Graph;
  readonly #count: number;
  readonly #rows: Tensor;
  readonly #prefix: string;

  constructor(graph: Graph, { waiting }: StreamedTeacher, { tokens, prefix = "" }: StreamedSizes) {
    this.#graph = graph;
    this.#count = waiting * tokens;
    this.#prefix = prefix;
    this.#rows = graph.input(`${prefix}${STREAMED.rows}`, [tokens], "i32");
  }

  /** Puts rows of the micro-batch into a state. */
  keep(name: string, x: Tensor): void {
    scatterRows(this.#state(name, x.dim(1)), x, this.#rows);
  }

  /** Rows of the micro-batch from a state. */
  waiting(name: string, width: number): Tensor {
    return gatherRows(this.#state(name, width), this.#rows);
  }

  #state(name: string, width: number): Tensor {
    const shape = [this.#count, width];
    return this.#graph.state(`${this.#prefix}${name}`, shape, "f32", "hidden states");
  }
}
