/**
 * Views: other names for memory that is there already. They cost nothing.
 *
 * @module
 */
import { byteLength, elementCount, show, type Tensor, type TensorSpec } from "../graph.ts";
import { ensure, type Op } from "../op.ts";
import { ShapeError } from "../../base/errors.ts";
import { bytesOf, rowBytes } from "../weight_storage.ts";

interface RowsAttributes {
  readonly first: number;
  readonly count: number;
  readonly byteOffset: number;
}

/** The op behind {@linkcode rows}. */
const rowsOp: Op<RowsAttributes> = {
  name: "rows",
  infer: ([x], { first, count }) => {
    ensure(
      first >= 0 && count >= 1 && first + count <= x!.dim(0),
      "rows",
      [x!],
      `rows ${first}..${first + count} do not exist`,
    );
    return [{ shape: [count, ...x!.shape.slice(1)], dtype: x!.dtype }];
  },
  alias: (_, { byteOffset }) => ({ input: 0, byteOffset }),
  lower: isNeverLowered,
};

/**
 * Rows `first .. first + count` of a tensor. The first row must begin at a multiple of 256 bytes. It has no gradient of its own:
 * code that differentiates by chunks of rows (the head) assembles the gradient itself.
 */
export function rows(x: Tensor, first: number, count: number): Tensor {
  const byteOffset = first * rowBytes(x);
  ensure(
    byteOffset % 256 === 0,
    "rows",
    [x],
    `row ${first} begins at byte ${byteOffset}, which is not a multiple of 256`,
  );
  return x.graph.add(rowsOp, [x], { first, count, byteOffset })[0]!;
}

interface ReshapeAttributes {
  readonly shape: readonly number[];
}

/** The op behind {@linkcode reshape}. */
const reshapeOp: Op<ReshapeAttributes> = {
  name: "reshape",
  infer: ([x], { shape }) => {
    ensure(
      elementCount(shape) === elementCount(x!.shape),
      "reshape",
      [x!],
      `cannot become [${shape.join(", ")}]`,
    );
    return [{ shape, dtype: x!.dtype }];
  },
  gradient: ({ inputs, outputGradients }) => [reshape(outputGradients[0]!, inputs[0]!.shape)],
  alias: () => ({ input: 0, byteOffset: 0 }),
  lower: isNeverLowered,
};

/** The same elements in row-major order under another shape. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  return x.graph.add(reshapeOp, [x], { shape })[0]!;
}

interface PartAttributes {
  readonly shape: readonly number[];
  readonly elementOffset: number;
}

/** The op behind {@linkcode part}. */
const partOp: Op<PartAttributes> = {
  name: "part",
  infer: ([x], { shape, elementOffset }) => {
    ensure(
      elementOffset + elementCount(shape) <= elementCount(x!.shape),
      "part",
      [x!],
      "the part reaches beyond the end",
    );
    return [{ shape, dtype: x!.dtype }];
  },
  alias: (_, { elementOffset }) => ({ input: 0, byteOffset: bytesOf("f32", elementOffset) }),
  lower: isNeverLowered,
};

/** A tensor inside a flat f32 state: a parameter in the buffer of all parameters. `elementOffset` is a multiple of 64. */
export function part(flat: Tensor, elementOffset: number, shape: readonly number[]): Tensor {
  ensure(elementOffset % 64 === 0, "part", [flat], `element ${elementOffset} is not a multiple of 64`);
  return flat.graph.add(partOp, [flat], { shape, elementOffset })[0]!;
}

/** The op behind {@linkcode readAs}. */
const readAsOp: Op<TensorSpec> = {
  name: "readAs",
  infer: ([x], spec) => {
    ensure(byteLength(spec) <= byteLength(x!), "readAs", [x!], `is too small for ${show(spec)}`);
    return [spec];
  },
  alias: () => ({ input: 0, byteOffset: 0 }),
  lower: isNeverLowered,
};

/** The memory at the beginning of a tensor as another tensor, of whatever type. */
export function readAs(x: Tensor, { shape, dtype }: TensorSpec): Tensor {
  return x.graph.add(readAsOp, [x], { shape, dtype })[0]!;
}

function isNeverLowered(): never {
  throw new ShapeError("a view has no kernel; this is a bug");
}
