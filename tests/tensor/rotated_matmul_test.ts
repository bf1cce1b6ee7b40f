/** Rotary position embedding in what a projection stores. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { countAccesses } from "../../bench/counted.ts";
import type { FloatDtype } from "../../src/formats/dtype.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import type { MatmulVariant } from "../../src/tensor/ops/matmul/shapes.ts";
import { matmulVariants } from "../../src/tensor/ops/matmul/variants.ts";
import { rope } from "../../src/tensor/ops/rope.ts";
import { rotatedMatmulOp } from "../../src/tensor/ops/rotated_matmul.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { assertWithin, hardwareTest, kernelsOf, run, type Value } from "./harness.ts";
import { type Equivalent, Hunters, isWithin } from "./mutants.ts";
import { indices, numericGradient, operand } from "./oracle.ts";

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
    // Of one row the last that the table has, of one the first that it has not.
    this.positions = Array.from({ length: m }, (_, t) => t < 2 ? POSITIONS - 1 + t : (7 * t) % POSITIONS);
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

  /** The node that planning makes of it. */
  node(graph: Graph, tensors: readonly Tensor[]): Tensor {
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
    return graph.add(rotatedMatmulOp, [...operands, ...others, ...row], attributes)[0]!;
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
    const counted = dy.values.map((v, i) => Math.floor(i / projection.width) === 1 ? 0 : v);
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
    const outside = (v: ArrayLike<number>) => Array.from(v).filter((_, i) => Math.floor(i / c.k) !== 1);
    assertWithin(outside(dx!), outside(wanted), 2e-6);
  },
);

/** Mistakes in what turns a product that change nothing that anybody could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [
  {
    mistake: /: ([xw]2?_unit|main): (?!.*(pair|first|second|w_nth|w_row|let (m|at|nth) =))/,
    because: "what else such a kernel does, it does in matmul_mutants_test.ts too",
  },
  {
    mistake: /: (first choice: turn_of: min\(m|term dropped: turn_of: size.m - #u)/,
    because: "a row beyond the last is never stored",
  },
  {
    mistake: /: (first choice: turn_of: min\(position|term dropped: turn_of: size.positions - #u in return)/,
    because: "what a position beyond the table is turned by is multiplied by NaN, whatever it is",
  },
  { mistake: /: other size: turn_of: size.nan /, because: "half of NaN is NaN" },
  {
    mistake: /: (at the edge: put_pair: m >= size.m|other size: put_pair: size.n )/,
    because: "a row beyond the last lies beyond the binding, and no pair has the last column first",
  },
  {
    mistake: /: put_pair: (size.accumulate |[ab] \+= out|begin .* in [ab] \+= out)/,
    because:
      "of these products only those in f16 go on with what an earlier launch has stored; they have a test of their own",
  },
  {
    mistake: /parts rope: (never|at the edge): put_pair: /,
    because: "who sums parts of pairs has as many threads as there are pairs",
  },
];

hardwareTest("a mistake in what turns a product before it is stored is noticed", async (gpu) => {
  const part = { heads: 5, headDim: 12, rotated: 8, k2: 8, bias: "f32" } as const;
  const cases: Readonly<Record<string, Case>> = {
    tiles: { ...part, m: 37, k: 20, kernel: SMALL },
    "few rows": { ...part, m: 7, k: 300, kernel: (v) => v.family === "few-rows" },
    "parts of a sum": { ...part, m: 9, k: 1104, kernel: tile(32, 32, 4, 0, 2) },
  };
  const hunters = new Hunters(EQUIVALENT);
  for (const [what, c] of Object.entries(cases)) {
    const projection = new Projection(c);
    const expected = projection.expected();
    await hunters.hunt(what, {
      gpu,
      values: projection.values,
      // Grids are folded.
      device: { ...projection.on(hardware(gpu)), maxWorkgroupsPerDimension: 3 },
      kernels: (kernel) => /rope/.test(kernel),
      build(graph, plant, ...inputs) {
        const turned = projection.node(graph, inputs);
        plant(turned);
        return [turned];
      },
      isRight: ([found]) => isWithin(found!, expected, 3e-7 * (3 + c.k)),
    });
  }
  hunters.end(false);
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
