/**
 * Elementwise computation by a scalar expression: kernel, gradient and fusion all come from it. Sums over rows or columns stand here too:
 * each of the two is what the gradient of the other needs.
 *
 * @module
 */
import source from "../../../kernels/pointwise.wgsl" with { type: "text" };
import sumSource from "../../../kernels/sum_axis.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import { derivative, type Expression, helperFunctions, leaves, printWgsl, variable } from "../expr/mod.ts";
import { elementCount, type StepScalar, type Tensor } from "../graph.ts";
import { ensure, grid, type LoweringContext, type Op } from "../op.ts";
import { reshape } from "./views.ts";
import { fillConstant } from "./fill.ts";

/** How an operand's elements are found: one each, one a column of the output, one a row, or one for all. */
type Spread = "full" | "row" | "column" | "single";

/** Attributes of {@linkcode pointwiseOp}. */
export interface PointwiseAttributes {
  /** Over the variables `x0`, `x1`, ... (the inputs in order) and step scalars by name. */
  readonly expression: Expression;
  /** The step scalars it names. */
  readonly scalars: readonly StepScalar[];
}

/** Name of the variable that stands for input `i`. */
export function operandName(i: number): string {
  return `x${i}`;
}

function spreadOf(operand: Tensor, shape: readonly number[]): Spread | undefined {
  if (String(operand.shape) === String(shape)) return "full";
  if (elementCount(operand.shape) === 1) return "single";
  if (shape.length !== 2) return undefined;
  if (operand.shape.length === 1 && operand.dim(0) === shape[1]) return "row";
  if (operand.shape.length === 2 && operand.dim(0) === shape[0] && operand.dim(1) === 1) return "column";
  return undefined;
}

/** Requires that every operand can be spread over a shape. */
export function ensureSpread(op: string, inputs: readonly Tensor[], shape: readonly number[]): void {
  ensure(inputs.length <= 7, op, inputs, "at most 7 operands");
  for (const t of inputs) {
    ensure(t.dtype === "f32", op, inputs, "all operands must be f32");
    ensure(
      spreadOf(t, shape) !== undefined,
      op,
      inputs,
      `every operand must have the shape [${
        shape.join(", ")
      }], or be a row of it, a column [T, 1] or one number`,
    );
  }
}

/** y[t, n] = expression of the inputs' elements at (t, n). */
export const pointwiseOp: Op<PointwiseAttributes> = {
  name: "pointwise",
  infer(inputs) {
    const widest = inputs.reduce((a, b) => (elementCount(b.shape) > elementCount(a.shape) ? b : a));
    ensureSpread("pointwise", inputs, widest.shape);
    return [{ shape: widest.shape, dtype: "f32" }];
  },
  gradient({ inputs, outputs, attributes: { expression, scalars }, outputGradients, needed }) {
    const { shape } = outputs[0]!;
    const g = variable(operandName(inputs.length));
    return inputs.map((input, i) => {
      if (!needed[i]) return undefined;
      const slope = derivative(expression, operandName(i)).mul(g);
      // Nothing flows through what is detached, so what lies behind it needs no backward pass.
      if (slope.kind === "constant" && slope.value === 0) return undefined;
      const full = makePointwise([...inputs, outputGradients[0]!], slope, scalars);
      switch (spreadOf(input, shape)) {
        case "full":
          return full;
        case "row":
          return sumRows(full);
        case "column":
          return sumColumns(full);
        default:
          return reshape(
            sumRows(sumColumns(reshape(full, [full.dim(0), elementCount(shape) / full.dim(0)]))),
            input.shape,
          );
      }
    });
  },
  lower: (context) => lowerPointwise(context, false),
};

/**
 * The kernel of an elementwise expression.
 *
 * @param inPlace The first operand is the memory that the output is written to
 */
export function lowerPointwise(
  { inputs, outputs, attributes: { expression, scalars }, device, dispatch }: LoweringContext<
    PointwiseAttributes
  >,
  inPlace: boolean,
): void {
  const { shape } = outputs[0]!;
  const width = shape.at(-1)!;
  const lanes = width % 4 === 0 ? 4 : 1;
  const element = lanes === 4 ? "vec4<f32>" : "f32";
  // An operand given twice is bound once.
  const distinct = [...new Set(inputs)];
  const isTarget = (t: Tensor) => inPlace && t === inputs[0];
  const load = (t: Tensor): string => {
    const name = isTarget(t) ? "out" : `x${distinct.indexOf(t)}`;
    switch (spreadOf(t, shape)) {
      case "full":
        return `${name}[i]`;
      case "row":
        return `${name}[column]`;
      case "column":
        return `${name}[row]`;
      default:
        return `${name}[0]`;
    }
  };
  const isWide = (t: Tensor) => lanes === 4 && ["full", "row"].includes(spreadOf(t, shape)!);
  const printed = printWgsl([expression], {
    leaf: (name) => {
      const scalar = scalars.findIndex((s) => s.name === name);
      if (scalar >= 0) return { code: `scalar(${scalar}u)`, width: 1 };
      const t = inputs[Number(name.slice(1))]!;
      return { code: `v${distinct.indexOf(t)}`, width: isWide(t) ? 4 : 1 };
    },
  });
  const used = new Set(leaves([expression], "variable").map((name) => inputs[Number(name.slice(1))]!));
  const loaded = distinct.filter((t) => used.has(t));
  const bound = loaded.filter((t) => !isTarget(t));
  const binding = (i: number, access: string, name: string, type: string) =>
    `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`;
  const elements = elementCount(shape) / lanes;
  const groups = Math.ceil(elements / 64);
  dispatch({
    kernel: `pointwise ${bound.length}`,
    wgsl: expandTemplate("pointwise", source, {
      BINDINGS: [
        ...bound.map((t, i) => binding(i, "read", `x${distinct.indexOf(t)}`, isWide(t) ? element : "f32")),
        binding(bound.length, "read_write", "out", element),
      ].join("\n"),
      ELEMENT: element,
      HELPERS: helperFunctions(printed.helpers),
      LOADS: loaded.map((t) => `  let v${distinct.indexOf(t)} = ${load(t)};`).join("\n"),
      UNIFORM: printed.uniform.map((line) => `  ${line}`).join("\n"),
      LINES: printed.lines.map((line) => `  ${line}`).join("\n"),
      RESULT: printed.results[0]!.code,
    }),
    tensors: [...bound, outputs[0]!],
    size: [elements, groups, Math.max(1, width / lanes), 0, ...scalars],
    groups: grid(groups, device),
    flops: elementCount(shape),
    // Every thread reads each operand, also those that it shares with others.
    traffic: elements * 4 * (lanes + loaded.reduce((sum, t) => sum + (isWide(t) ? lanes : 1), 0)),
  });
}

/** The op from an expression over `x0`, `x1`, ...; {@linkcode pointwise} is the pleasant way. */
function makePointwise(
  inputs: readonly Tensor[],
  expression: Expression,
  scalars: readonly StepScalar[],
): Tensor {
  return inputs[0]!.graph.add(pointwiseOp, inputs, { expression, scalars })[0]!;
}

/**
 * Elementwise computation.
 *
 * @param inputs One to seven f32 tensors: of the output's shape, or a row [N], a column [T, 1] or a single number, which are
 *   repeated
 * @param body The expression of one element; step scalars may be named in it
 * @throws {ShapeError} if an operand does not fit
 * @example
 * ```ts ignore
 * const scaled = pointwise([x, magnitude], (x, m) => x.mul(m)); // x [T, N], magnitude [N]
 * ```
 */
export function pointwise(
  inputs: readonly Tensor[],
  body: (...elements: Expression[]) => Expression,
): Tensor {
  const { expression, scalars } = elementwiseExpression(inputs, body);
  return makePointwise(inputs, expression, scalars);
}

/** The expression of one element over the operands, with the step scalars it names. */
export function elementwiseExpression(
  inputs: readonly Tensor[],
  body: (...elements: Expression[]) => Expression,
): PointwiseAttributes {
  const expression = body(...inputs.map((_, i) => variable(operandName(i))));
  const { graph } = inputs[0]!;
  return { expression, scalars: leaves([expression], "scalar").map((name) => graph.scalar(name)) };
}

/** Which axis is summed away: `rows` gives [N], `columns` gives [T, 1]. */
export type Axis = "rows" | "columns";

/** The op behind {@linkcode sumRows} and {@linkcode sumColumns}. */
const sumAxisOp: Op<{ readonly axis: Axis }> = {
  name: "sumAxis",
  infer(inputs, { axis }) {
    const [x] = inputs;
    ensure(x!.shape.length === 2 && x!.dtype === "f32", "sumAxis", inputs, "expected f32 [T, N]");
    return [{ shape: axis === "rows" ? [x!.dim(1)] : [x!.dim(0), 1], dtype: "f32" }];
  },
  gradient: ({ inputs, outputGradients }) => {
    const [x] = inputs;
    const zero = fillConstant(x!.graph, x!.shape, 0);
    return [pointwise([zero, outputGradients[0]!], (z, g) => z!.add(g!))];
  },
  lower({ inputs, outputs, attributes: { axis }, device, dispatch }) {
    const [rows, columns] = [inputs[0]!.dim(0), inputs[0]!.dim(1)];
    const groups = axis === "rows" ? Math.ceil(columns / 64) : rows;
    dispatch({
      kernel: `sum ${axis}`,
      wgsl: expandTemplate("sum_axis", sumSource, { AXIS: axis }),
      tensors: [inputs[0]!, outputs[0]!],
      size: [rows, columns, groups],
      groups: grid(groups, device),
      flops: rows * columns,
    });
  },
};

/** sum_t x[t, n] of x [T, N]: f32 [N]. */
export function sumRows(x: Tensor): Tensor {
  return x.graph.add(sumAxisOp, [x], { axis: "rows" })[0]!;
}

/** sum_n x[t, n] of x [T, N]: f32 [T, 1]. */
export function sumColumns(x: Tensor): Tensor {
  return x.graph.add(sumAxisOp, [x], { axis: "columns" })[0]!;
}
