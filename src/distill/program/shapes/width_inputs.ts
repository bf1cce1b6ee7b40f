/**
 * The width of a student as an input of its program: masks of heads and channels, and the biases that stand for what is masked. Masking the
 * inputs of the two output projections of a layer computes what cutting the matrices would.
 *
 * @module
 */
import type { NarrowedLinears } from "../../../models/context.ts";
import type { LayerProjections } from "../../../models/family.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { pointwise } from "../../../tensor/ops/pointwise.ts";
import { part } from "../../../tensor/ops/views.ts";
import { narrowingOf } from "../../inputs/cut_model.ts";
import type { Model } from "../../inputs/models.ts";
import type { StudentWidth } from "../../inputs/shape_space.ts";
import { ParameterLayout, type ParameterSpec } from "../../trained/parameters.ts";

/** Name of the input. */
const INPUT = "width";

/** Masks and biases of a model whose widths change from shape to shape. */
export class WidthInputs {
  readonly #model: Model;
  readonly #projections: LayerProjections;
  readonly #layout: ParameterLayout;

  /** @throws {InputError} for a family whose layers cannot be made narrower */
  constructor(model: Model) {
    this.#model = model;
    this.#projections = narrowingOf(model.architecture, model.path).projections;
    const spec = (name: string, length: number): ParameterSpec => ({ name, shape: [length], group: "width" });
    const { layers, hiddenSize, intermediateSize } = model.config;
    this.#layout = new ParameterLayout(
      Array.from({ length: layers }, (_, layer) => {
        const { attention, mlp } = this.#outputs(layer);
        return [
          ...[spec(`${attention} mask`, this.#queryWidth), spec(`${attention} bias`, hiddenSize)],
          ...[spec(`${mlp} mask`, intermediateSize), spec(`${mlp} bias`, hiddenSize)],
        ];
      }).flat(),
    );
  }

  get #queryWidth(): number {
    const { attentionHeads, headDim } = this.#model.config;
    return attentionHeads * headDim;
  }

  /** Module paths of a layer's output projections. */
  #outputs(layer: number): { attention: string; mlp: string } {
    const at = `${this.#model.architecture.family.names.layers}.${layer}`;
    const { attentionOutput, mlpOutput } = this.#projections;
    return { attention: `${at}.${attentionOutput}`, mlp: `${at}.${mlpOutput}` };
  }

  /** What stands in the place of inputs and outputs in a block. */
  in(graph: Graph): NarrowedLinears {
    const find = (name: string): Tensor | undefined => {
      if (!this.#layout.has(name)) return undefined;
      const { offset, shape } = this.#layout.get(name);
      return graph.ungated(() => part(graph.input(INPUT, [this.#layout.total], "f32"), offset, shape));
    };
    return {
      input(name, x) {
        const mask = find(`${name} mask`);
        return mask ? pointwise([x, mask], (x, m) => x!.mul(m!)) : x;
      },
      output(name, y) {
        const bias = find(`${name} bias`);
        return bias ? pointwise([y, bias], (y, b) => y!.add(b!)) : y;
      },
    };
  }

  /** The input's values for a width, and its name. */
  values({ cut }: StudentWidth): { name: string; data: Float32Array } {
    const data = new Float32Array(this.#layout.total);
    const { attentionHeads, keyValueHeads, headDim, layers } = this.#model.config;
    const ofGroup = attentionHeads / keyValueHeads * headDim;
    for (let layer = 0; layer < layers; layer++) {
      const { attention, mlp } = this.#outputs(layer);
      this.#mask(data, attention, cut?.groups[layer], ofGroup);
      this.#mask(data, mlp, cut?.channels[layer], 1);
      const compensation = cut?.compensation?.[layer];
      if (!compensation) continue;
      this.#layout.scatter(
        data,
        new Map([
          [`${attention} bias`, Float32Array.from(compensation.attention)],
          [`${mlp} bias`, Float32Array.from(compensation.mlp)],
        ]),
      );
    }
    return { name: INPUT, data };
  }

  /** @param kept Units that stay, each of `size` inputs; all when absent */
  #mask(data: Float32Array, module: string, kept: readonly number[] | undefined, size: number): void {
    const { offset, count } = this.#layout.get(`${module} mask`);
    if (!kept) data.fill(1, offset, offset + count);
    for (const unit of kept ?? []) data.fill(1, offset + unit * size, offset + (unit + 1) * size);
  }
}
