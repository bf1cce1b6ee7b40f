/**
 * Taking columns apart and putting them together: projections that lie fused in one matrix, and heads of other widths.
 *
 * @module
 */
import source from "../../../kernels/rows/columns.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op } from "../op.ts";

/** Some columns of every group of columns. */
interface Columns {
  readonly first: number;
  readonly width: number;
}

/** Attributes of the two ops, each of which is the gradient of the other. The whole is [T, groups * width]. */
interface ColumnsAttributes {
  readonly groups: number;
  /** Columns of a group. */
  readonly width: number;
  /** In ascending order, none in two. Part i is [T, groups * its width]. */
  readonly parts: readonly Columns[];
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

/** The parts of a matrix. */
const takeColumnsOp: Op<ColumnsAttributes> = {
  name: "takeColumns",
  infer: (inputs, { groups, width, parts }) => {
    const [x] = inputs as [Tensor];
    ensure(
      x.dtype === "f32" && x.shape.length === 2 && x.dim(1) === groups * width,
      "takeColumns",
      inputs,
      `x must be f32 [T, ${groups} * ${width}]`,
    );
    return parts.map((part) => ({ shape: [x.dim(0), groups * part.width], dtype: "f32" }));
  },
  gradient({ inputs, attributes, outputGradients }) {
    const known = attributes.parts.flatMap((
      part,
      i,
    ) => (outputGradients[i] ? [{ part, of: outputGradients[i] }] : []));
    const parts = known.map(({ part }) => part);
    return [inputs[0]!.graph.add(placeColumnsOp, known.map(({ of }) => of), { ...attributes, parts })[0]];
  },
  lower(context) {
    const { inputs, outputs, attributes: { width, parts } } = context;
    parts.forEach((part, i) => {
      const to = { tensor: outputs[i]!, width: part.width, first: 0 };
      copy(context, part.width, to, { tensor: inputs[0]!, width, first: part.first });
    });
  },
};

/** A matrix of the parts, zero beside them. */
const placeColumnsOp: Op<ColumnsAttributes> = {
  name: "placeColumns",
  infer: (inputs, { groups, width, parts }) => {
    ensure(inputs.length === parts.length && inputs.length > 0, "placeColumns", inputs, "there is no part");
    ensure(
      parts.every((part) => Number.isInteger(part.width) && part.width > 0),
      "placeColumns",
      inputs,
      `columns that are no ${groups} groups of one width`,
    );
    const rows = inputs[0]!.dim(0);
    inputs.forEach((t, i) =>
      ensure(
        t.dtype === "f32" && String(t.shape) === String([rows, groups * parts[i]!.width]),
        "placeColumns",
        inputs,
        `part ${i} must be f32 [${rows}, ${groups} * ${parts[i]!.width}]`,
      )
    );
    return [{ shape: [rows, groups * width], dtype: "f32" }];
  },
  gradient: ({ attributes, outputGradients }) =>
    outputGradients[0]!.graph.add(takeColumnsOp, [outputGradients[0]!], attributes),
  lower(context) {
    const { inputs, outputs, attributes: { width, parts } } = context;
    let end = 0;
    [...parts, { first: width, width: 0 }].forEach((part, i) => {
      const place = (first: number) => ({ tensor: outputs[0]!, width, first });
      if (part.first > end) copy(context, part.first - end, place(end));
      if (part.width > 0) {
        copy(context, part.width, place(part.first), { tensor: inputs[i]!, width: part.width, first: 0 });
      }
      end = part.first + part.width;
    });
  },
};

/** Where columns lie: from `first` on in every group of `width`. */
interface Place {
  readonly tensor: Tensor;
  readonly width: number;
  readonly first: number;
}

/** Copies `width` columns of every group, or fills them with zeros where there is nothing to copy. */
function copy(
  { attributes: { groups }, device, dispatch }: LoweringContext<ColumnsAttributes>,
  width: number,
  to: Place,
  from?: Place,
): void {
  const places = [to.width, to.first, ...(from ? [from.width, from.first] : [])];
  const vector = [width, ...places].every((n) => n % 4 === 0) ? 4 : 1;
  const units = to.tensor.dim(0) * groups * width / vector;
  const workgroups = Math.ceil(units / 256);
  const inUnits = (place: Place) => [place.width / vector, place.first / vector];
  dispatch({
    kernel: from ? "columns" : "columns zero",
    wgsl: expandTemplate("columns", source, { VECTOR: vector, FILL: from === undefined }),
    tensors: [...(from ? [from.tensor] : []), to.tensor],
    size: [units, workgroups, width / vector, ...(from ? inUnits(from) : [0, 0]), ...inUnits(to)],
    groups: grid(workgroups, device),
  });
}

/**
 * The parts of a matrix whose columns lie side by side, such as queries, keys and values of one projection.
 *
 * @param x f32 [T, groups * (sum of widths)]
 * @param widths Columns of each part, in the order in which they lie
 * @param groups How often the parts repeat: 1 where each lies in one piece (Phi), the heads where every head has its own queries, keys
 *   and values (GPT-NeoX)
 * @returns f32 [T, groups * width] for each width
 * @throws {ShapeError} if x has another width
 * @example
 * ```ts ignore
 * const [q, k, v] = splitColumns(qkv, [heads * headDim, keyWidth, keyWidth]);
 * const [q, k, v] = splitColumns(qkv, [headDim, headDim, headDim], heads);
 * ```
 */
export function splitColumns(x: Tensor, widths: readonly number[], groups = 1): readonly Tensor[] {
  const parts = widths.map((width, i) => ({ first: sum(widths.slice(0, i)), width }));
  return x.graph.add(takeColumnsOp, [x], { groups, width: sum(widths), parts });
}

/**
 * The matrix that {@linkcode splitColumns} takes apart.
 *
 * @param parts f32 [T, groups * width], one for each width
 * @throws {ShapeError} if a part has another shape
 */
export function joinColumns(parts: readonly Tensor[], groups = 1): Tensor {
  const widths = parts.map((t) => t.dim(1) / groups);
  const columns = widths.map((width, i) => ({ first: sum(widths.slice(0, i)), width }));
  return parts[0]!.graph.add(placeColumnsOp, parts, { groups, width: sum(widths), parts: columns })[0]!;
}

/**
 * Every group of columns in the first columns of a wider group, zeros after it.
 *
 * @param x f32 [T, groups * from]
 * @returns f32 [T, groups * to]
 */
export function widenColumns(x: Tensor, groups: number, to: number): Tensor {
  const parts = [{ first: 0, width: x.dim(1) / groups }];
  return x.graph.add(placeColumnsOp, [x], { groups, width: to, parts })[0]!;
}

/**
 * The first columns of every group.
 *
 * @param x f32 [T, groups * from]
 * @returns f32 [T, groups * to]
 */
export function narrowColumns(x: Tensor, groups: number, to: number): Tensor {
  const parts = [{ first: 0, width: to }];
  return x.graph.add(takeColumnsOp, [x], { groups, width: x.dim(1) / groups, parts })[0]!;
}
