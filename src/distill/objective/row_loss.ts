/**
 * The op of an objective's row losses: rows of the learner's logits become their gradient in place, and each loss of each row is written.
 *
 * @module
 */
import type { DeviceDescription } from "../../gpu/description.ts";
import type { StepScalar, Tensor } from "../../tensor/graph.ts";
import { ensure, grid, type Op, type SizeWord } from "../../tensor/op.ts";

/** A kernel over one row of logits at a time, as the registry compiles it from an objective. */
export interface RowKernel {
  readonly name: string;
  readonly wgsl: string;
  /** Words of memory that it needs for each row while it does it. */
  readonly memoryWords: number;
  /** Words of its size struct, for a dispatch over rows from `first` to before `end`. */
  size(rows: number, part: { readonly first: number; readonly end: number }): SizeWord[];
  readonly groups: (rows: number) => number;
  /** Bytes that it moves for so many rows, where that is not each binding once. */
  readonly traffic?: (rows: number) => number;
}

/** The losses of an objective as the head needs them. */
export interface RowLosses {
  /** Values written per row, K: the objective's losses first, in its order. */
  readonly valueCount: number;
  /** Weight of each value in the objective, by name of its step scalar; monitored values have none. */
  readonly weights: readonly (StepScalar | undefined)[];
  /** Whether the target's logits are compared. */
  readonly needsTarget: boolean;
  /** Whether rows come with the bits of token masks, rather than counting where they have a label. */
  readonly tokenMasks: boolean;
  /** Whether a cached target is compared. */
  readonly needsCache: boolean;
  /** Whether the target's rows may be of another vocabulary. */
  readonly ownVocabularies?: boolean;
  compile(device: DeviceDescription, gradient: boolean): RowKernel;
}

/** Labels, learner logits, values, perhaps token masks, target: writes the values, and the gradient over the learner's logits. */
export const rowLossOp: Op<{ losses: RowLosses; gradient: boolean }> = {
  name: "rowLoss",
  mutates: true,
  alias: (output) => ({ input: output === 0 ? 2 : 1, byteOffset: 0 }),
  infer(inputs, { losses }) {
    const [labels, logits, values] = inputs;
    ensure(
      !losses.needsTarget || losses.ownVocabularies ||
        String(inputs.at(-1)!.shape) === String(logits!.shape),
      "rowLoss",
      inputs,
      "both models need one vocabulary",
    );
    ensure(labels!.dim(0) === logits!.dim(0), "rowLoss", inputs, "one label a row");
    return [values!, logits!];
  },
  lower({ inputs, attributes, device, scratch, dispatch }) {
    const [labels, logits, values, ...bound] = inputs as [Tensor, Tensor, Tensor, ...Tensor[]];
    const { losses, gradient } = attributes;
    const kernel = losses.compile(device, gradient);
    const [count, vocabulary] = [logits.dim(0), logits.dim(1)];
    const { memoryWords } = kernel;
    const most = Math.min(ROW_MEMORY, device.maxBindingSize);
    const together = memoryWords === 0 ? count : rowsTogether(count, Math.floor(most / (4 * memoryWords)));
    const memory = memoryWords === 0 ? [] : [scratch([together, memoryWords], "u32")];
    for (let first = 0; first < count; first += together) {
      const end = Math.min(count, first + together);
      dispatch({
        kernel: kernel.name,
        wgsl: kernel.wgsl,
        tensors: [labels, ...bound, logits, values, ...memory],
        size: kernel.size(count, { first, end }),
        groups: grid(kernel.groups(end - first), device),
        flops: 20 * (end - first) * vocabulary,
        ...(kernel.traffic ? { traffic: kernel.traffic(end - first) } : {}),
      });
    }
  },
};

/** Bytes that losses with memory of their own may have for all rows of a dispatch: enough rows to keep a GPU busy. */
const ROW_MEMORY = 64 * 2 ** 20;

/** Rows of a dispatch, at most so many, so that all dispatches have about the same number. */
function rowsTogether(count: number, most: number): number {
  return Math.ceil(count / Math.ceil(count / Math.max(1, most)));
}
