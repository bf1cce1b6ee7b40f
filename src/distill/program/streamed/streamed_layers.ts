/**
 * Which layers of a model can take each other's place: what a model whose layers come from disk is planned with. Two layers are of one
 * kind if their plans are the same but for the weights, so that one block, with other weights in its buffers, runs both.
 *
 * @module
 */
import type { DeviceDescription } from "../../../gpu/description.ts";
import type { WeightSpecs } from "../../../models/context.ts";
import { plan, Program } from "../../../tensor/plan.ts";
import { byteLength, type TensorSpec } from "../../../tensor/weight_storage.ts";
import type { Model } from "../../inputs/models.ts";
import { traceModel } from "../traced_model.ts";

/** Buffers for layers: while one is computed with, the other is filled. */
export const SLOTS = ["A", "B"] as const;

/** Of the two. */
export type Slot = typeof SLOTS[number];

/** The other one. */
export function otherSlot(slot: Slot): Slot {
  return slot === "A" ? "B" : "A";
}

/** Where layers come from. */
export interface LayerSource {
  readonly layers: StreamedLayers;
  /**
   * Waits until a layer is on the GPU; work with the one taken before must be queued. Its buffers are among the weights of whoever takes it.
   * Absent where layers are to be read into buffers of one's own.
   */
  take?(layer: number): Promise<Slot>;
}

/** The tensors of a layer by their names within it, as they lie on the GPU. */
type LayerTensors = ReadonlyMap<string, TensorSpec>;

/** Sizes of the stream that a layer is planned for. */
export interface LayerSizes {
  readonly tokens: number;
  /** Rows of tables by position. */
  readonly positions: number;
}

/** The layers of a model that come from disk. */
export class StreamedLayers {
  readonly model: Model;
  /** Of each layer the first that is of its kind. */
  readonly kinds: readonly number[];
  readonly #tensors: readonly LayerTensors[];
  /** For each name the largest tensor of it that a layer has. */
  readonly #buffers: LayerTensors;

  /**
   * @param taps Inner values that are wanted: layers that show some are of no kind but their own
   * @throws {DeviceError} if a layer does not fit the device
   */
  constructor(model: Model, sizes: LayerSizes, device: DeviceDescription, taps: ReadonlySet<string>) {
    this.model = model;
    const plans: string[] = [];
    this.#tensors = Array.from({ length: model.config.layers }, (_, layer) => {
      const { tensors, signature, shown } = planAlone(model, layer, sizes, device, taps);
      plans.push(`${shown} ${signature}`);
      return tensors;
    });
    this.kinds = plans.map((plan) => plans.indexOf(plan));
    const buffers = new Map<string, TensorSpec>();
    for (const [name, spec] of this.#tensors.flatMap((tensors) => [...tensors])) {
      const known = buffers.get(name);
      if (!known || byteLength(known) < byteLength(spec)) buffers.set(name, spec);
    }
    this.#buffers = buffers;
  }

  get count(): number {
    return this.kinds.length;
  }

  /** How the model's weights are stored in a block that runs a layer with the weights of a buffer. */
  weights(layer: number, slot: Slot): WeightSpecs {
    const own = layerWeights(this.model, layer, slot);
    return {
      ...own,
      buffer: (stored) => {
        const prefix = slotPrefix(slot);
        return stored.startsWith(prefix) ? this.#buffers.get(stored.slice(prefix.length)) : undefined;
      },
    };
  }

  /** What has to be in a buffer before a layer runs: each tensor, the storage it lies in, and the one it would have to itself. */
  contents(
    layer: number,
    slot: Slot,
  ): { storage: string; weight: string; spec: TensorSpec; bytes: number }[] {
    const { model } = this;
    return [...this.#tensors[layer]!].map(([name, spec]) => ({
      storage: `${model.specs.prefix}${slotPrefix(slot)}${name}`,
      weight: `${model.specs.prefix}${model.storedName(`${layerPath(model, layer)}${name}`)}`,
      spec,
      bytes: byteLength(spec),
    }));
  }
}

function slotPrefix(slot: Slot): string {
  return `layer ${slot}: `;
}

function layerPath({ architecture }: Model, layer: number): string {
  return `${architecture.family.names.layers}.${layer}.`;
}

/** The model's weights, those of a layer under the name of a buffer. */
function layerWeights(model: Model, layer: number, slot: Slot): WeightSpecs {
  const path = layerPath(model, layer);
  return {
    ...model.specs,
    resolve(name) {
      const found = model.specs.resolve(name);
      if (!name.startsWith(path)) return found;
      // What stands behind a stored name says in what the tensor is.
      const rest = found.name.slice(model.storedName(name).length);
      return { ...found, name: `${slotPrefix(slot)}${name.slice(path.length)}${rest}` };
    },
  };
}

/** Plans a layer in a program of its own: which weights it has, what it shows of what is wanted, and a text of all that it runs. */
function planAlone(
  model: Model,
  layer: number,
  { tokens, positions }: LayerSizes,
  device: DeviceDescription,
  taps: ReadonlySet<string>,
): { tensors: LayerTensors; shown: readonly string[]; signature: string } {
  const program = new Program();
  const graph = program.block("layer");
  const shown: string[] = [];
  let isInside = false;
  traceModel(graph, "model", model, tokens, { length: positions }, {
    weights: layerWeights(model, layer, "A"),
    onTap: (name) => void (isInside && taps.has(name) && shown.push(name)),
    onLayer(i, x, body) {
      if (i !== layer) return x;
      isInside = true;
      graph.output("output", body(graph.input("input", x.shape, "f32")));
      isInside = false;
      return x;
    },
  });
  const prefix = `${model.specs.prefix}${slotPrefix("A")}`;
  const own = [...program.storages.values()].filter(({ name }) => name.startsWith(prefix));
  const { blocks, sizeWords } = plan(program, device);
  const runs = blocks.get("layer")!.dispatches.map((
    { kernel, wgsl, bindings, writable, sizeOffset, groups },
  ) => [kernel, wgsl, bindings, [...writable], sizeOffset, groups] as const);
  return {
    tensors: new Map(own.map(({ name, shape, dtype }) => [name.slice(prefix.length), { shape, dtype }])),
    shown,
    signature: JSON.stringify([[...program.storages.values()], runs, [...sizeWords]]),
  };
}
