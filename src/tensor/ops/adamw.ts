/**
 * The AdamW optimiser over flat buffers (Loshchilov and Hutter, arXiv 1711.05101), as `torch.optim.AdamW` computes it.
 *
 * @module
 */
import source from "../../../kernels/adamw.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { StepScalar, Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import { windows } from "../windows.ts";

/** The numbers of the optimiser that hold for all parameters. */
export interface AdamwSettings {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** The largest norm of the gradient; a longer gradient is scaled down to it. Absent: no clipping. */
  readonly clip?: number;
}

/** An optimiser group: a range of the flat buffers with a learning rate and weight decay of its own. */
export interface AdamwGroup {
  /** The first element; a multiple of 64. */
  readonly first: number;
  readonly count: number;
  /** Times the learning rate of the step; 1 by default. LoRA+ gives B matrices more. */
  readonly learningRateRatio?: number;
  /** Decoupled: each step multiplies the parameter by 1 - learning rate * weight decay. */
  readonly weightDecay: number;
}

/** Names of the step scalars that {@linkcode adamw} reads. */
export const ADAMW_SCALARS = {
  learningRate: "learningRate",
  /** 1 - beta1^t for step t = 1, 2, ...; see {@linkcode biasCorrections}. */
  bias1: "adamw.bias1",
  bias2: "adamw.bias2",
} as const;

interface AdamwAttributes extends AdamwSettings, AdamwGroup {
  readonly learningRate: StepScalar;
  readonly bias1: StepScalar;
  readonly bias2: StepScalar;
}

/** One step in place; inputs: parameters, gradients, m, v, norm. */
const adamwOp: Op<AdamwAttributes> = {
  name: "adamw",
  mutates: true,
  alias: (output) => ({ input: [0, 2, 3][output]!, byteOffset: 0 }),
  infer(inputs, { first, count }) {
    const [parameters, gradients, m, v, norm] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor];
    const size = parameters.dim(0);
    for (const t of [parameters, gradients, m, v]) {
      ensure(
        t.shape.length === 1 && t.dim(0) === size && t.dtype === "f32",
        "adamw",
        inputs,
        "parameters, gradients, m and v must be flat f32 tensors of one size",
      );
    }
    ensure(norm.dtype === "f32" && norm.dim(0) === 2, "adamw", inputs, "the norm must be f32 [2]");
    ensure(
      first % 64 === 0 && first >= 0 && count >= 1 && first + count <= size,
      "adamw",
      inputs,
      `elements ${first}..${first + count} are not a range of ${size} that begins at a multiple of 64`,
    );
    return [parameters, m, v].map((t) => ({ shape: t.shape, dtype: t.dtype }));
  },
  lower({ inputs, outputs, attributes, device, dispatch }) {
    const [, gradients, , , norm] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor];
    const [parameters, m, v] = outputs as [Tensor, Tensor, Tensor];
    const { first, count, learningRateRatio = 1, weightDecay, beta1, beta2, epsilon, clip } = attributes;
    const wgsl = expandTemplate("adamw", source, { CLIP: clip !== undefined });
    const cut = { unitElements: 1, first, count };
    const buffers = [parameters, gradients, m, v].map((t) => windows(t, device, cut));
    buffers[0]!.forEach((part, i) => {
      const groups = Math.ceil(part.count / 1024);
      dispatch({
        kernel: "adamw",
        wgsl,
        tensors: [...buffers.map((parts) => parts[i]!.binding), norm],
        size: [
          part.count,
          groups,
          attributes.learningRate,
          attributes.bias1,
          attributes.bias2,
          { f32: learningRateRatio },
          { f32: weightDecay },
          { f32: clip ?? 0 },
          { f32: 1 - beta1 },
          { f32: beta2 },
          { f32: 1 - beta2 },
          { f32: epsilon },
        ],
        groups: grid(groups, device),
        flops: 16 * part.count,
        // Four buffers are read, three of them written.
        traffic: 28 * part.count,
      });
    });
  },
};

/**
 * One step of AdamW in place over one optimiser group, after clipping by the global norm as `torch.nn.utils.clip_grad_norm_`
 * does it. Where the norm's flag is set, nothing is written. Learning rate and bias corrections are the step scalars
 * {@linkcode ADAMW_SCALARS}.
 *
 * @param parameters f32 [N], flat
 * @param gradients f32 [N], already divided by the number of tokens
 * @param m f32 [N], running mean of the gradient
 * @param v f32 [N], running mean of its square
 * @param norm f32 [2], from `gradientNorm` of all gradients
 * @returns The updated parameters, m and v: the same memory
 * @throws {ShapeError} if the buffers differ in size, or the group lies outside or is not aligned
 * @example
 * ```ts ignore
 * const norm = gradientNorm(gradients);
 * adamw(parameters, gradients, m, v, norm, {
 *   beta1: 0.9, beta2: 0.999, epsilon: 1e-8, clip: 1, first: 0, count: 65536, weightDecay: 0.01,
 * });
 * ```
 */
export function adamw(
  parameters: Tensor,
  gradients: Tensor,
  m: Tensor,
  v: Tensor,
  norm: Tensor,
  settings: AdamwSettings & AdamwGroup,
): readonly Tensor[] {
  const { graph } = parameters;
  return graph.add(adamwOp, [parameters, gradients, m, v, norm], {
    ...settings,
    learningRate: graph.scalar(ADAMW_SCALARS.learningRate),
    bias1: graph.scalar(ADAMW_SCALARS.bias1),
    bias2: graph.scalar(ADAMW_SCALARS.bias2),
  });
}

/**
 * The bias corrections of a step, by the names of {@linkcode ADAMW_SCALARS}.
 *
 * @param step 1 for the first step
 */
export function biasCorrections(settings: AdamwSettings, step: number): Record<string, number> {
  return {
    [ADAMW_SCALARS.bias1]: 1 - settings.beta1 ** step,
    [ADAMW_SCALARS.bias2]: 1 - settings.beta2 ** step,
  };
}
