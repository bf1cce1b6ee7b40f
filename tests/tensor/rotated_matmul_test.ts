/** Rotary position embedding in what a projection stores. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { countAccesses } from "../../bench/counted.ts";
import { planCase } from "../../bench/roofline.ts";
import { ShapeError } from "../../src/base/errors.ts";
import type { FloatDtype } from "../../src/formats/dtype.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { assign } from "../../src/tensor/ops/assign.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { linear, matmul } from "../../src/tensor/ops/matmul.ts";
import type { MatmulVariant } from "../../src/tensor/ops/matmul/shapes.ts";
import { matmulVariants } from "../../src/tensor/ops/matmul/variants.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { rope } from "../../src/tensor/ops/rope.ts";
import { rotatedMatmulOp } from "../../src/tensor/ops/rotated_matmul.ts";
import { compile } from "../../src/tensor/executable.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { assertWithin, freeing, run, testGpu, type Value } from "./harness.ts";
import { indices, numericGradient, operand } from "./oracle.ts";
import { type Mistake, plantAny } from "./planted.ts";

/** Positions that the table has angles of. */
const POSITIONS = 17;

/** A projection of x [m, k] to heads, of which the first `rotated` columns are turned, and which of its kernels makes it. */
interface Case {
  readonly m: number;
  readonly heads: number;
  readonly headDim: number;
  readonly rotated?: number;
  readonly k: number;
  /** Depth of the second product. */
  readonly k2?: number;
  readonly weight?: FloatDtype;
  readonly bias?: FloatDtype;
  readonly compute?: "f16";
  readonly kernel: (v: MatmulVariant) => boolean;
}

const tile = (rows: number, columns: number, each: number, lanes = 0, parts = 1) => (v: MatmulVariant) =>
  v.family === "tiled" && v.rows === rows && v.columns === columns && v.columnsEach === each &&
  v.lanes === lanes && v.parts === parts;
const SMALL = tile(32, 32, 4);

function table(rotated: number): Float32Array {
  return Float32Array.from({ length: POSITIONS * rotated }, (_, at) => {
    const [p, i] = [Math.floor(at / rotated), at % (rotated / 2)];
    const angle = p * 100 ** (-2 * i / rotated);
    return at % rotated < rotated / 2 ? Math.cos(angle) : Math.sin(angle);
  });
}

/** The values of a case, and what they must give, in f64. */
class Projection {
  readonly values: readonly Value[];
  readonly width: number;
  readonly positions: readonly number[];
  readonly #case: Case;
  readonly #numbers: readonly Float32Array[];
  readonly #angles: Float32Array;

  constructor(c: Case) {
    const { m, heads, headDim, rotated = headDim, k, k2 = 0, weight = "f32", bias } = c;
    this.#case = c;
    this.width = heads * headDim;
    // One row's position is outside the table.
    this.positions = Array.from({ length: m }, (_, t) => t === 2 ? POSITIONS : (7 * t) % POSITIONS);
    this.#angles = table(rotated);
    const all = [
      operand([m, k], 1),
      operand([this.width, k], 2, weight, "weight"),
      ...k2 > 0 ? [operand([m, k2], 3), operand([this.width, k2], 4)] : [],
      ...bias ? [operand([this.width], 5, bias, "weight")] : [],
    ];
    this.#numbers = all.map(({ values }) => values);
    this.values = [
      ...all,
      indices(this.positions),
      { shape: [POSITIONS, rotated], kind: "weight", data: this.#angles },
    ];
  }

  /** As a model traces it; and what it is before it is turned, which nobody else may want where it is turned in what is stored. */
  trace(tensors: readonly Tensor[]): { before: Tensor; turned: Tensor } {
    const { heads, headDim, rotated = headDim, k2 = 0, bias, compute } = this.#case;
    const [x, w, ...others] = tensors as [Tensor, Tensor, ...Tensor[]];
    let before = linear(x, w, compute);
    if (k2 > 0) before = add(before, linear(scale(others.shift()!, 3), others.shift()!));
    if (bias) before = addRow(before, others.shift()!);
    const [positions, angles] = others as [Tensor, Tensor];
    return { before, turned: rope(before, positions, angles, heads, headDim, rotated) };
  }

  /** The node that planning makes of it, with mistakes in its kernels. */
  planted(graph: Graph, tensors: readonly Tensor[], mistakes: readonly Mistake[]): Tensor {
    const { heads, headDim, rotated = headDim, k2 = 0, bias } = this.#case;
    const operands = tensors.slice(0, k2 > 0 ? 4 : 2);
    const others = tensors.slice(operands.length);
    const row = bias ? [others.shift()!] : [];
    const product = { orientation: "NT", factors: k2 > 0 ? [1, 3] : [1], addend: false } as const;
    const attributes = {
      product,
      rope: { heads, headDim, rotated, inverse: false },
      bias: bias !== undefined,
    };
    return plantAny(graph.add(rotatedMatmulOp, [...operands, ...others, ...row], attributes)[0]!, mistakes);
  }

  /** Queries or keys, turned, in f64; of other values of x where they are given. */
  expected(x: ArrayLike<number> = this.#numbers[0]!): Float64Array {
    const { m, headDim, rotated = headDim, k, k2 = 0, bias } = this.#case;
    const [, w, ...others] = this.#numbers as [Float32Array, Float32Array, ...Float32Array[]];
    const [x2, w2] = others;
    const row = bias ? others.at(-1) : undefined;
    const made = Float64Array.from({ length: m * this.width }, (_, at) => {
      const [t, n] = [Math.floor(at / this.width), at % this.width];
      let sum = row?.[n] ?? 0;
      for (let l = 0; l < k; l++) sum += x[t * k + l]! * w[n * k + l]!;
      for (let l = 0; l < k2; l++) sum += 3 * x2![t * k2 + l]! * w2![n * k2 + l]!;
      return sum;
    });
    return made.map((value, at) => {
      const position = this.positions[Math.floor(at / this.width)]!;
      if (position >= POSITIONS) return NaN;
      const column = at % headDim;
      if (column >= rotated) return value;
      const i = column % (rotated / 2);
      const [cosine, sine] = [0, rotated / 2].map((part) => this.#angles[position * rotated + part + i]!);
      return column < rotated / 2
        ? value * cosine! - made[at + rotated / 2]! * sine!
        : value * cosine! + made[at - rotated / 2]! * sine!;
    });
  }

  /** The device, with the kernel of the case. */
  on(device: DeviceDescription): DeviceDescription {
    const { m, k, k2 = 0, weight = "f32", compute, kernel } = this.#case;
    const shape = { orientation: "NT", m, n: this.width, k, k2: compute ? 0 : k2, weight } as const;
    const rounded = { ...shape, ...(compute ? { compute } : {}) };
    const variant = matmulVariants.candidates(rounded, device).find(kernel);
    assert(variant, "there is no such kernel");
    const key = `matmul ${matmulVariants.shapeClass(rounded)}`;
    return { ...device, kernels: { [key]: matmulVariants.name(variant) } };
  }
}

/** The least that WebGPU guarantees, with what the device at hand has of subgroups, as hardware. */
function hardware({ description: { name, subgroupSize, shaderF16 } }: Gpu): DeviceDescription {
  return { ...DEFAULT_DEVICE, name, subgroupSize, ...(shaderF16 ? { shaderF16 } : {}) };
}

const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);

/** Of those that must be numbers. */
const finite = (values: ArrayLike<number>, like: ArrayLike<number>) =>
  Float64Array.from(values).filter((_, i) => !Number.isNaN(like[i]!));

function hardwareTest(name: string, fn: (gpu: Gpu) => Promise<void>): void {
  Deno.test({
    name,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const gpu = await testGpu("tiled");
      await freeing(gpu, () => fn(gpu));
    },
  });
}

/** What is launched for a traced block. */
function kernelsOf(device: DeviceDescription, trace: (graph: Graph) => void): string[] {
  const program = new Program();
  trace(program.block("test"));
  return plan(program, device).blocks.get("test")!.dispatches.map(({ kernel }) => kernel);
}

/** Heads that tiles end within, pairs of which the halves lie in other tiles, and all that a kernel may have beside. */
const CASES: Readonly<Record<string, Case>> = {
  "heads of 8": { m: 33, heads: 5, headDim: 8, k: 20, kernel: SMALL },
  "heads of 6, of which 3 columns are turned with 3": { m: 5, heads: 11, headDim: 6, k: 20, kernel: SMALL },
  "heads of 20, two products": { m: 35, heads: 3, headDim: 20, k: 44, k2: 8, kernel: SMALL },
  "heads of 64, two products": { m: 5, heads: 2, headDim: 64, k: 20, k2: 4, kernel: SMALL },
  "heads of 128": { m: 3 * 32 + 1, heads: 1, headDim: 128, k: 20, kernel: SMALL },
  "heads of 128, 64 x 128 values a tile": {
    ...{ m: 70, heads: 3, headDim: 128, k: 20, bias: "bf16" },
    kernel: tile(64, 128, 8),
  },
  "a row that is added, in bf16": {
    ...{ m: 9, heads: 3, headDim: 20, k: 20, k2: 4, weight: "bf16", bias: "bf16" },
    kernel: SMALL,
  },
  "a part of each head, and a row that is added": {
    ...{ m: 9, heads: 5, headDim: 12, rotated: 8, k: 20, bias: "f32" },
    kernel: SMALL,
  },
  "few rows": {
    m: 3,
    heads: 5,
    headDim: 20,
    rotated: 14,
    k: 300,
    k2: 8,
    kernel: (v) => v.family === "few-rows",
  },
  "parts of a sum": {
    ...{ m: 9, heads: 3, headDim: 20, k: 1104, k2: 8, bias: "f16" },
    kernel: tile(32, 32, 4, 0, 2),
  },
  "subgroups that spread rows": { m: 35, heads: 3, headDim: 20, k: 20, kernel: tile(32, 32, 4, 8) },
};

hardwareTest(
  "a projection that turns what it stores gives the bits of one whose output is turned, and f64's numbers",
  async (gpu) => {
    for (const [what, c] of Object.entries(CASES)) {
      if (what.startsWith("subgroups") && gpu.description.subgroupSize !== 8) continue;
      const projection = new Projection(c);
      const device = projection.on(hardware(gpu));
      const trace = (...inputs: Tensor[]) => {
        // What is wanted before it is turned stays apart.
        const [stored, apart] = [projection.trace(inputs).turned, projection.trace(inputs)];
        return [stored, apart.turned, apart.before];
      };
      const { outputs } = await run(gpu, projection.values, (_, ...inputs) => trace(...inputs), {}, device);
      const [stored, apart] = outputs as [Float32Array, Float32Array];
      const expected = projection.expected();
      assertEquals(bits(stored), bits(apart), what);
      assertWithin(finite(stored, expected), finite(expected, expected), 3e-7 * (3 + c.k), what);
      assertEquals([...stored].map(Number.isNaN), [...expected].map(Number.isNaN), what);
      const kernels = kernelsOf(device, (graph) => {
        const inputs = projection.values.map(({ kind = "input", shape, dtype = "f32" }, i) =>
          graph.use({ kind, name: `x${i}`, shape, dtype, category: "test" })
        );
        trace(...inputs).forEach((t, i) => graph.output(`y${i}`, t));
      });
      assertEquals(kernels.filter((kernel) => /^matmul .*\brope\b/.test(kernel)).length, 1, `${kernels}`);
      assertEquals(kernels.filter((kernel) => /^rope/.test(kernel)).length, 1, `${kernels}`);
    }
  },
);

hardwareTest("what turns a product in f16 gives the bits of one whose output is turned", async (gpu) => {
  if (!gpu.description.shaderF16) {
    console.log("skip: this device has no shader-f16");
    return;
  }
  const c: Case = { m: 9, heads: 3, headDim: 20, k: 20, k2: 4, bias: "bf16", compute: "f16", kernel: SMALL };
  const projection = new Projection(c);
  const device = projection.on(hardware(gpu));
  const { outputs: [stored, apart] } = await run(
    gpu,
    projection.values,
    (_, ...inputs) => {
      const { turned, before } = projection.trace(inputs);
      return [projection.trace(inputs).turned, turned, before];
    },
    {},
    device,
  );
  assertEquals(bits(stored!), bits(apart!));
  const expected = projection.expected();
  assertWithin(finite(stored!, expected), finite(expected, expected), 0.02);
});

hardwareTest(
  "the gradient through a projection that turns what it stores is that of the whole",
  async (gpu) => {
    const c: Case = { m: 5, heads: 3, headDim: 20, rotated: 12, k: 12, bias: "f32", kernel: SMALL };
    const projection = new Projection(c);
    const device = projection.on(hardware(gpu));
    const x = projection.values[0]! as ReturnType<typeof operand>;
    const dy = operand([c.m, projection.width], 9);
    // A row without a position has no gradient.
    const counted = dy.values.map((v, i) => Math.floor(i / projection.width) === 2 ? 0 : v);
    const trace = (graph: Graph, [dy, ...inputs]: Tensor[]) => {
      const { turned } = projection.trace(inputs);
      return [turned, gradients(graph, [[turned, dy!]], [inputs[0]!])[0]!];
    };
    const values = [dy, ...projection.values];
    const { outputs: [y, dx] } = await run(gpu, values, (graph, ...t) => trace(graph, t), {}, device);
    const expected = projection.expected();
    assertWithin(finite(y!, expected), finite(expected, expected), 1e-6);
    const numbers = (x: Float64Array) => projection.expected(x).map((v) => Number.isNaN(v) ? 0 : v);
    const wanted = numericGradient(numbers, x.values, counted);
    const outside = (v: ArrayLike<number>) => Array.from(v).filter((_, i) => Math.floor(i / c.k) !== 2);
    assertWithin(outside(dx!), outside(wanted), 2e-6);
  },
);

/** In what a kernel stores, and in which rows of w it takes for it. */
const MISTAKES: readonly Mistake[] = [
  [
    "out[begin + pair.first] = a * cosine - b * sine",
    "out[begin + pair.first] = a * cosine - select(b, -b, WRONG) * sine",
  ],
  [
    "out[begin + pair.second] = b * cosine + a * sine",
    "out[begin + pair.second] = b * cosine + select(a, b, WRONG) * sine",
  ],
  [
    "let cosine = table[turn.angles + pair.angle]",
    "let cosine = table[turn.angles + pair.angle + select(0u, size.half, WRONG)]",
  ],
  ["+ size.half + pair.angle]", "+ select(size.half, 0u, WRONG) + pair.angle]"],
  ["* 2u * size.half, sign)", "* select(2u, 1u, WRONG) * size.half, sign)"],
  ["positions[min(m, size.m - 1u)]", "positions[select(min(m, size.m - 1u), 0u, WRONG)]"],
  ["select(1.0, size.nan, position", "select(1.0, select(size.nan, 1.0, WRONG), position"],
  ["return first + side * size.half;", "return first + side * select(size.half, 1u, WRONG);"],
  ["let first = 2u * (pair - i) + i;", "let first = 2u * (pair - select(i, 0u, WRONG)) + i;"],
  ["return first + size.half + side *", "return first + select(size.half, 0u, WRONG) + side *"],
  ["a += pair.bias.x;", "a += select(pair.bias.x, pair.bias.y, WRONG);"],
  ["b += pair.bias.y;", "b += select(pair.bias.y, 0.0, WRONG);"],
];

/** Of each kernel, where its own columns come from. */
const OWN: Readonly<Record<string, readonly Mistake[]>> = {
  "a part of each head, and a row that is added": [
    ["w_nth0 % 16u", "w_nth0 % select(16u, 8u, WRONG)"],
    ["let first_pair = column / 2u;", "let first_pair = column / select(2u, 1u, WRONG);"],
    ["acc0_0[0], acc0_0[2])", "acc0_0[0], acc0_0[select(2u, 3u, WRONG)])"],
  ],
  "few rows, a part of each head": [
    ["sums[at + 256u]", "sums[at + select(256u, 0u, WRONG)]"],
    [
      "let column2 = pair_column(column / 2u + 0u, 1u)",
      "let column2 = pair_column(column / 2u + 0u, select(1u, 0u, WRONG))",
    ],
  ],
  "parts of a sum, a part of each head": [
    ["second += parts[at + pair.second]", "second += parts[at + select(pair.second, pair.first, WRONG)]"],
    ["(part * size.m + m)", "(part * size.m + select(m, 0u, WRONG))"],
  ],
};

hardwareTest("a mistake in what turns a product before it is stored does not pass", async (gpu) => {
  const part = { m: 9, heads: 5, headDim: 12, rotated: 8, bias: "f32" } as const;
  const cases: Record<string, Case> = {
    "a part of each head, and a row that is added": { ...part, k: 20, kernel: SMALL },
    "few rows, a part of each head": { ...part, m: 3, k: 300, k2: 8, kernel: (v) => v.family === "few-rows" },
    "parts of a sum, a part of each head": { ...part, k: 1104, k2: 8, kernel: tile(32, 32, 4, 0, 2) },
  };
  for (const [what, c] of Object.entries(cases)) {
    const projection = new Projection(c);
    const device = projection.on(hardware(gpu));
    const mistakes = [...MISTAKES, ...OWN[what]!];
    const program = new Program();
    const graph = program.block("test");
    const inputs = projection.values.map(({ kind = "input", shape, dtype = "f32" }, i) =>
      graph.use({ kind, name: `x${i}`, shape, dtype, category: "test" })
    );
    graph.output("y", projection.planted(graph, inputs, mistakes));
    const executable = await compile(gpu, plan(program, device));
    try {
      projection.values.forEach((v, i) => executable.write(`x${i}`, v.data));
      const expected = projection.expected();
      const isRight = async (mistake: number) => {
        executable.poison();
        projection.values.forEach((v, i) => executable.write(`x${i}`, v.data));
        executable.setScalar("mistake", mistake);
        executable.run("test");
        const found = (await executable.read(["y"], "test")).get("y")!.data as Float32Array;
        return expected.every((v, i) =>
          Number.isNaN(v) ? Number.isNaN(found[i]!) : Math.abs(found[i]! - v) <= 3e-7 * (3 + c.k)
        );
      };
      assert(await isRight(0), what);
      for (const [i, [, wrong]] of mistakes.entries()) {
        assert(!await isRight(i + 1), `${what}: ${wrong}`);
      }
      gpu.check();
    } finally {
      executable.destroy();
    }
  }
});

Deno.test("projections turn what they store where their kernels can, and only there", () => {
  interface Made {
    readonly graph: Graph;
    readonly x: Tensor;
    readonly weights: readonly Tensor[];
    readonly positions: Tensor;
    readonly angles: Tensor;
  }
  const launched = (trace: (made: Made) => Tensor[], device: Partial<DeviceDescription> = {}) =>
    kernelsOf({ ...DEFAULT_DEVICE, ...device }, (graph) => {
      const weights = ["q", "k"].map((name) => graph.weight(name, [24, 32], "f32"));
      const angles = graph.weight("table", [9, 8], "f32");
      const x = graph.state("x", [64, 32], "f32");
      const made = { graph, x, weights, positions: graph.input("positions", [64], "i32"), angles };
      trace(made).forEach((t, i) => graph.output(`y${i}`, t));
    }).map((kernel) => /^matmul .*rope/.test(kernel) ? "stored" : kernel.split(" ")[0]);
  const turn = ({ positions, angles }: Made, x: Tensor) => rope(x, positions, angles, 3, 8);
  const both = (m: Made, of = (x: Tensor) => x) => m.weights.map((w) => turn(m, of(linear(m.x, w))));
  const apart = ["matmul", "matmul", "ropes"];

  assertEquals(launched((m) => both(m)), ["stored", "stored"]);
  const biased = (m: Made, dtype: "f32" | "q8_0") =>
    both(m, (x) => addRow(x, m.graph.weight(`bias ${m.graph.nodes.length}`, [24], dtype)));
  assertEquals(launched((m) => biased(m, "f32")), ["stored", "stored"]);
  // Of two of which one is wanted as it is, one is left to be turned.
  const one = (m: Made) => {
    const k = linear(m.x, m.weights[1]!);
    return [turn(m, linear(m.x, m.weights[0]!)), turn(m, k), k];
  };
  assertEquals(launched(one), ["matmul", "stored", "rope"]);
  // The kernels of a processor, what is trained and small, what is scaled, added to or normed before, and backwards.
  assertEquals(launched((m) => both(m), { family: "subgroup8", subgroupSize: 8 }), apart);
  const trained = (m: Made) => ["a", "b"].map((n) => turn(m, linear(m.x, m.graph.state(n, [24, 32], "f32"))));
  assertEquals(launched(trained), apart);
  assertEquals(launched((m) => both(m, (x) => add(x, m.graph.input("r", [64, 24], "f32")))), apart);
  const normed = (m: Made) => both(m, (x) => rmsNorm(x, m.graph.weight("norm", [24], "f32"), 1e-5));
  assertEquals(launched(normed), ["matmul", "rmsNorm", "matmul", "rmsNorm", "ropes"]);
  assertEquals(launched((m) => biased(m, "q8_0")), ["matmul", "addRow", "matmul", "addRow", "ropes"]);
  const turned = (m: Made) =>
    [matmul("NN", m.x, m.graph.weight("w", [32, 24], "f32"))].map((x) => turn(m, x));
  assertEquals(launched(turned), ["matmul", "rope"]);
  const backwards = (m: Made) => {
    const q = m.graph.state("queries", [64, 24], "f32");
    return gradients(m.graph, [[turn(m, q), linear(m.x, m.weights[0]!)]], [q]).map((t) => t!);
  };
  assertEquals(launched(backwards), ["matmul", "rope"]);
  // The product would read what has been overwritten by then.
  const overwritten = (m: Made) => {
    const q = linear(m.x, m.weights[0]!);
    assign(m.x, [], (x) => x!.mul(2));
    return [turn(m, q)];
  };
  assertEquals(launched(overwritten).toSorted(), ["matmul", "pointwise", "rope"]);
  // A weight that a device binds in parts.
  const large = (m: Made) => {
    const q = linear(m.graph.input("few", [4, 32], "f32"), m.weights[0]!);
    return [rope(q, m.graph.input("some", [4], "i32"), m.angles, 3, 8)];
  };
  assertEquals(launched(large), ["stored"]);
  assertEquals(launched(large, { maxBindingSize: 2000 }), ["matmul", "matmul", "rope"]);
});

Deno.test("units for small matrices leave turning to others, unless others sum what they make", () => {
  const matrices = [{ m: 16, n: 16, k: 16, componentType: "f32", resultComponentType: "f32" }];
  for (
    const [k, expected] of [[64, ["subgroup-matrix", "rope"]], [2048, ["subgroup-matrix", "parts"]]] as const
  ) {
    const device = { ...DEFAULT_DEVICE, subgroupSize: 32, subgroupMatrices: matrices };
    const shape = { orientation: "NT", m: 64, n: 64, k, k2: 0, weight: "f32" } as const;
    const variant = matmulVariants.candidates(shape, device).find((v) => v.family === "subgroup-matrix")!;
    const kernels = { [`matmul ${matmulVariants.shapeClass(shape)}`]: matmulVariants.name(variant) };
    const launched = kernelsOf({ ...device, kernels }, (graph) => {
      const q = linear(graph.input("x", [64, k], "f32"), graph.weight("w", [64, k], "f32"));
      const angles = graph.weight("table", [9, 32], "f32");
      graph.output("y", rope(q, graph.input("positions", [64], "i32"), angles, 2, 32));
    });
    assertEquals(launched.map((kernel) => /subgroup-matrix|parts|rope/.exec(kernel)?.[0]), [...expected]);
    assertEquals(launched.some((kernel) => /rope/.test(kernel)), true);
  }
});

Deno.test("a layer of a model turns its queries and keys in what it stores, and back in one launch", async () => {
  const { dispatches } = (await planCase("stories260K", DEFAULT_DEVICE)).blocks.get("microBatch")!;
  const count = (wanted: RegExp) => dispatches.filter(({ kernel }) => wanted.test(kernel)).length;
  // Five layers of the teacher, and four of the student with adapters.
  assertEquals(count(/^matmul NT f32 rope /), 10);
  assertEquals(count(/^matmul NT x2 f32 rope /), 8);
  assertEquals(count(/^ropes/), 4);
  assertEquals(count(/^rope /), 0);
});

Deno.test("what is no projection of whole heads is refused", () => {
  const graph = new Program().block("test");
  const inputs = (width: number, row: number) => [
    graph.input("x", [5, 12], "f32"),
    graph.weight(`w${width}`, [width, 12], "f32"),
    graph.input("positions", [5], "i32"),
    graph.weight("table", [9, 8], "f32"),
    graph.weight(`row ${row}`, [row], "f32"),
  ];
  const product = { orientation: "NT", factors: [1], addend: false } as const;
  const attributes = { product, rope: { heads: 3, headDim: 8, rotated: 8, inverse: false }, bias: true };
  const add = (width: number, row: number) => graph.add(rotatedMatmulOp, inputs(width, row), attributes);
  assertEquals(add(24, 24)[0]!.shape, [5, 24]);
  assertThrows(() => add(16, 16), ShapeError, "x must be f32 [T, 3 * 8]");
  assertThrows(() => add(24, 16), ShapeError, "the row's length must be the width");
});

hardwareTest("projections that turn what they store move the bytes that their plan says", async (gpu) => {
  const device = hardware(gpu);
  for (const [m, k] of [[70, 60], [3, 300], [40, 1101]] as const) {
    const counted = await countAccesses(
      gpu,
      (() => {
        const program = new Program();
        const graph = program.block("test");
        const q = linear(graph.input("x", [m, k], "f32"), graph.weight("w", [60, k], "f32"));
        const row = addRow(q, graph.weight("row", [60], "bf16"));
        const angles = graph.weight("table", [128, 20], "f32");
        graph.output("y", rope(row, graph.input("positions", [m], "i32"), angles, 3, 20));
        return plan(program, device);
      })(),
      "test",
      (executable) => executable.write("positions", Int32Array.from({ length: m }, (_, i) => i)),
    );
    assert(counted.some(({ dispatch }) => dispatch.kernel.includes("rope")));
    for (const { dispatch, bytes } of counted) {
      const ratio = bytes / dispatch.traffic;
      assert(ratio > 0.9 && ratio < 1.15, `${dispatch.kernel} moves ${bytes} bytes, not ${dispatch.traffic}`);
    }
  }
});
