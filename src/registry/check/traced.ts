/**
 * Runs small traced programs for checks, on poisoned memory, and differentiates them by shifting what goes in.
 *
 * @module
 */
import { DeviceError } from "../../base/errors.ts";
import { type Gpu, type GpuOptions, openGpu } from "../../gpu/device.ts";
import { gradients } from "../../tensor/differentiate.ts";
import { ExpressionNode } from "../../tensor/expr/mod.ts";
import { compile, type Executable } from "../../tensor/executable.ts";
import { elementCount, type Graph, type Tensor } from "../../tensor/graph.ts";
import { plan, Program } from "../../tensor/plan.ts";
import { CheckFailure, CheckSkipped } from "./checklist.ts";
import { randomNumbers } from "./rows.ts";

/** f32 numbers that go into a program, by name. */
export type Values = Readonly<
  Record<string, { readonly shape: readonly number[]; readonly data: Float32Array }>
>;

/** The device that kernels are run on. @throws {CheckSkipped} where there is none */
export async function openDevice(options?: GpuOptions): Promise<Gpu> {
  try {
    return await openGpu(options);
  } catch (error) {
    if (error instanceof DeviceError) throw new CheckSkipped(`there is no GPU here: ${error.message}`);
    throw error;
  }
}

/** A compiled program y = f(values) with d(sum of above * y)/d value for some of them. */
export class TracedProgram {
  readonly #executable: Executable;
  readonly #wanted: readonly string[];
  readonly #gpu: Gpu;
  /** Whether some part of the forward pass is kept out of the gradient on purpose. */
  readonly detaches: boolean;
  readonly outputShape: readonly number[];
  readonly #constants: Readonly<Record<string, Int32Array>>;

  private constructor(
    gpu: Gpu,
    executable: Executable,
    wanted: readonly string[],
    y: Tensor,
    detaches: boolean,
    constants: Readonly<Record<string, Int32Array>>,
  ) {
    this.#constants = constants;
    [this.#gpu, this.#executable, this.#wanted, this.outputShape, this.detaches] = [
      gpu,
      executable,
      wanted,
      y.shape,
      detaches,
    ];
  }

  /**
   * @param wanted Values whose gradients are wanted
   * @param constants What other inputs hold, if the program has them
   * @throws {CheckFailure} if the output is not f32 of `shape`
   */
  static async make(
    gpu: Gpu,
    values: Values,
    wanted: readonly string[],
    shape: readonly number[],
    trace: (graph: Graph, input: (name: string) => Tensor) => Tensor,
    constants: Readonly<Record<string, Int32Array>> = {},
  ): Promise<TracedProgram> {
    const program = new Program();
    const graph = program.block("check");
    const input = (name: string) => graph.input(name, values[name]!.shape, "f32");
    const y = trace(graph, input);
    if (y?.dtype !== "f32" || String(y.shape) !== String(shape)) {
      throw new CheckFailure(
        `it returns ${y ? `${y.dtype} [${y.shape.join(", ")}]` : "nothing"} where f32 [${
          shape.join(", ")
        }] is wanted`,
        {
          hint:
            "Follow the shapes through the function; tensor.linear(x, w) of x [T, in] and w [out, in] is [T, out].",
        },
      );
    }
    const detaches = graph.nodes.some((node) => node.op.name === "detach" || hasDetached(node.attributes));
    graph.output("y", y);
    if (wanted.length > 0) {
      const found = gradients(graph, [[y, graph.input("above", y.shape, "f32")]], wanted.map(input));
      found.forEach((gradient, i) => gradient && graph.output(`gradient of ${wanted[i]}`, gradient));
    }
    const executable = await compile(gpu, plan(program, gpu.description));
    return new TracedProgram(
      gpu,
      executable,
      wanted.filter((_, i) => graph.outputs.has(`gradient of ${wanted[i]}`)),
      y,
      detaches,
      constants,
    );
  }

  /** Values whose gradient there is: those the output depends on. */
  get differentiable(): readonly string[] {
    return this.#wanted;
  }

  /** y, and the gradients by name. */
  async run(
    values: Values,
    above?: Float32Array,
  ): Promise<{ y: Float32Array; gradients: Map<string, Float32Array> }> {
    const executable = this.#executable;
    executable.poison();
    const known = executable.plan.storages;
    for (const [name, { data }] of Object.entries(values)) if (known.has(name)) executable.write(name, data);
    for (const [name, data] of Object.entries(this.#constants)) {
      if (known.has(name)) executable.write(name, data);
    }
    if (known.has("above")) {
      executable.write("above", above ?? new Float32Array(elementCount(this.outputShape)).fill(1));
    }
    executable.run("check");
    const names = this.#wanted.map((name) => `gradient of ${name}`);
    const read = await executable.read(["y", ...names], "check");
    this.#gpu.check();
    const take = (name: string, shape: readonly number[]) =>
      (read.get(name)!.data as Float32Array).slice(0, elementCount(shape));
    return {
      y: take("y", this.outputShape),
      gradients: new Map(
        this.#wanted.map((name) => [name, take(`gradient of ${name}`, values[name]!.shape)]),
      ),
    };
  }

  destroy(): void {
    this.#executable.destroy();
  }
}

/** Whether an op's attributes hold an expression with a detached part. */
function hasDetached(attribute: unknown): boolean {
  if (attribute instanceof ExpressionNode) {
    return attribute.kind === "detach" || attribute.operands.some(hasDetached);
  }
  if (typeof attribute !== "object" || attribute === null) return false;
  return Object.values(attribute).some(hasDetached);
}

/** Uniform numbers in [-scale, scale). */
export function randomValues(shape: readonly number[], seed: number, scale = 1) {
  const next = randomNumbers(seed);
  return { shape, data: Float32Array.from({ length: elementCount(shape) }, () => (2 * next() - 1) * scale) };
}

/** Along a direction of numbers in [-1, 1). */
const STEP = 0.02;

/** Largest difference of slopes, relative to the gradient. */
const TOLERANCE = 5e-3;

/**
 * Compares gradients with the change of the output along random directions, one value at a time.
 *
 * @throws {CheckFailure} naming the first value whose gradient is wrong
 */
export async function compareGradients(program: TracedProgram, values: Values): Promise<string> {
  const above = randomValues(program.outputShape, 77).data;
  const { gradients } = await program.run(values, above);
  const objective = (y: Float32Array) => y.reduce((sum, x, i) => sum + x * above[i]!, 0);
  let worst = 0;
  for (const name of program.differentiable) {
    const gradient = gradients.get(name)!;
    const bad = gradient.findIndex((g) => !Number.isFinite(g));
    if (bad >= 0) throw new CheckFailure(`the gradient of ${name} is ${gradient[bad]} at element ${bad}`);
    for (let trial = 0; trial < 3; trial++) {
      const direction = randomValues(values[name]!.shape, 100 + trial).data;
      const at = async (h: number) => {
        const data = values[name]!.data.map((x, i) => x + h * direction[i]!);
        return objective((await program.run({ ...values, [name]: { ...values[name]!, data } }, above)).y);
      };
      // Central differences of two steps, extrapolated (Richardson): exact to fourth order.
      const slope = async (h: number) => (await at(h) - await at(-h)) / (2 * h);
      const extrapolated = async (h: number) => (4 * await slope(h) - await slope(2 * h)) / 3;
      const claimed = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
      const size = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
      const errorOf = (slope: number) => Math.abs(slope - claimed) / Math.max(1, size, Math.abs(slope));
      let measured = await extrapolated(STEP);
      // Where the slope itself changes fast, rounding is the smaller evil.
      if (errorOf(measured) > TOLERANCE) measured = await extrapolated(STEP / 8);
      const error = errorOf(measured);
      if (!(error <= TOLERANCE)) {
        if (program.detaches) {
          throw new CheckSkipped("it detaches a part, so its gradient is not the derivative");
        }
        throw new CheckFailure(
          `along a random direction of ${name} the gradient says ${
            claimed.toPrecision(5)
          }, the output changes by ${measured.toPrecision(5)}`,
          { hint: "Every op has a gradient of its own: look for jumps, and for what is detached." },
        );
      }
      worst = Math.max(worst, error);
    }
  }
  return `${program.differentiable.join(", ")}: largest relative difference ${worst.toExponential(1)}`;
}
