/**
 * A model family with the numbers of one config, and what tracing its decoder once tells of it.
 *
 * @module
 */
import { Graph, StepScalars, StorageSet } from "../tensor/graph.ts";
import { applies } from "../tensor/op.ts";
import { matmulOp } from "../tensor/ops/matmul.ts";
import type { DecoderConfig } from "./config.ts";
import { type ExpertLayer, ModelContext, streamInputs, type WeightSpecs } from "./context.ts";
import type { ModelFamily } from "./family.ts";

/** A linear layer: y = x W^T with W [out, in]. */
export interface LinearLayer {
  /** Module path, without `.weight`. */
  readonly name: string;
  readonly out: number;
  readonly in: number;
}

/**
 * A family with the numbers of one config.
 *
 * @example
 * ```ts
 * const architecture = readArchitecture(source.config, source.path);
 * architecture.config.layers; // 6
 * architecture.tensors.get("model.layers.0.mlp.down_proj.weight"); // [hiddenSize, intermediateSize]
 * ```
 */
export class Architecture {
  readonly family: ModelFamily;
  readonly config: DecoderConfig;
  /** Families beside the built-in ones that were known when it was read: those that a config made of its config may name. */
  readonly further: readonly ModelFamily[];
  /** Every tensor by its Hugging Face name with its shape, in the order of the forward pass. */
  readonly tensors: ReadonlyMap<string, number[]>;
  /** Every linear layer but the head, in the order of the forward pass. */
  readonly linearLayers: readonly LinearLayer[];
  /** Every layer of experts, likewise. */
  readonly expertLayers: readonly ExpertLayer[];
  /** Width of every inner value that is shown to losses, f32 [T, width], by its name. */
  readonly taps: ReadonlyMap<string, number>;
  /** The tensor of the head's weight [vocabularySize, hiddenSize]: the embedding where it is tied. */
  readonly headWeight: string;
  /** Whether logits are the product of hidden states and the head's weight, and nothing more. */
  readonly plainHead: boolean;

  /** @throws {ShapeError} if there is no kernel for such numbers */
  constructor(family: ModelFamily, config: DecoderConfig, further: readonly ModelFamily[] = []) {
    this.family = family;
    this.config = config;
    this.further = further;
    const tensors = new Map<string, number[]>();
    const taps = new Map<string, number>();
    const [asked, linear, experts]: [string[], LinearLayer[], ExpertLayer[]] = [[], [], []];
    const graph = new Graph("outline", new StorageSet(), new StepScalars());
    const weights: WeightSpecs = {
      prefix: "",
      category: "weights",
      resolve: (name) => ({ name, dtype: "f32" }),
    };
    const ctx = new ModelContext(graph, family.name, streamInputs(graph, 1, { length: 1 }), weights, {
      onWeight(name, shape) {
        asked.push(name);
        tensors.set(name, [...shape]);
        return undefined;
      },
      onLinear(name, _x, weight, base) {
        linear.push({ name, out: weight.dim(0), in: weight.dim(1) });
        return base();
      },
      onExperts(layer) {
        experts.push(layer);
        return undefined;
      },
      onTap: (name, x) => void taps.set(name, x.dim(1)),
    });
    const hidden = family.decoder(ctx, config);
    const before = { asked: asked.length, linear: linear.length };
    const { producer } = family.head(ctx, config, hidden);
    [this.tensors, this.taps] = [tensors, taps];
    this.linearLayers = linear.slice(0, before.linear);
    this.expertLayers = experts;
    this.headWeight = asked[before.asked]!;
    this.plainHead = producer !== undefined && applies(producer, matmulOp) && !producer.attributes.addend;
  }

  /** Tables made on the host, by the names that the decoder asks for; each gives so many rows. */
  get tables(): ReturnType<ModelFamily["tables"]> {
    return this.family.tables(this.config);
  }

  /**
   * The same with some of its layers, another head, or fewer rows of embedding and head.
   *
   * @param change.layers Layers that stay, rising; they are renumbered from 0
   */
  with(
    { layers, ...change }: { layers?: readonly number[]; tiedHead?: boolean; vocabularySize?: number },
  ): Architecture {
    const { family, config, further } = this;
    const all = layers === undefined || layers.length === config.layers;
    const kept = all ? config : family.keepLayers?.(config, layers) ?? { ...config, layers: layers.length };
    return new Architecture(family, { ...kept, ...change }, further);
  }

  /** See {@linkcode ModelFamily.layerFields}. */
  get layerFields(): Record<string, unknown> {
    return this.family.layerFields?.(this.config) ?? {};
  }

  /** Number of values in all tensors, a tied head once. */
  get parameterCount(): number {
    return [...this.tensors.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  }
}
