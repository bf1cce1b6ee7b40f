/** Mistakes that are planted by rule in the kernels of experts, each of which has to be noticed. */
import { DEFAULT_DEVICE, type KernelFamily } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { expertLinear } from "../../src/tensor/ops/expert_linear.ts";
import { type ExpertShape, expertVariants } from "../../src/tensor/ops/matmul/experts.ts";
import { tileOf } from "../../src/tensor/ops/matmul/shapes.ts";
import { places } from "./expert_places.ts";
import { gpuTest, type Value } from "./harness.ts";
import { type Equivalent, type Hunt, Hunters, isWithin } from "./mutants.ts";
import { operand } from "./oracle.ts";
import { PRODUCT_REASONS } from "./product_reasons.ts";

/** Mistakes that change nothing that anybody could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [
  {
    mistake: /: [^:]*: (main|put): .*(accumulate|keep|has_addend|addend\[at\]|value \+= (keep \* )?out)/,
    because:
      "products of experts are added to nothing, but where they are cut along K, which is none of these",
  },
  {
    mistake: /: (always|at the edge): main: (lane|thread) == #u in if \((lane|thread) == #u\) \{ own_rows/,
    because: "all threads know the same rows",
  },
  {
    mistake: /: at the edge: main: i32\(row % #u\) >= tile_rows.y in/,
    because: "what begins behind the last row stores none",
  },
  {
    mistake: /: at the edge: main: expert >= i32\(size.experts\) in/,
    because: "the next launch, which has that expert, makes its rows again",
  },
  {
    mistake:
      /: (at the edge: put: m >= size.m in|(first choice|term dropped): main: (min\(#u, )?size.m - row\)? in let rows)/,
    because: "rows are a multiple of 32, and so of a tile's",
  },
  {
    mistake: /: term dropped: main: u32\(expert\) \* size.expert_values \+ size.expert_offset in/,
    because: "an expert's weight begins elsewhere only where it is cut along K, which is none of these",
  },
  {
    mistake:
      /^gradients of .*: (zero|one more|other size): main: (let x_stride|size.x_stride in let x_stride)/,
    because: "a product of this orientation reads x by the width of the output alone",
  },
  {
    mistake: /^gradients of .* tiled .*: (zero|one more): main: let turn = /,
    because: "only what lies along K is spread over the banks of workgroup memory",
  },
  {
    mistake: /^gradients of .* tiled .*: (never|always|at the edge|term dropped): main: slice % #u/,
    because:
      "blocks make a sum more exact, and no other; tests/tensor/matmul_test.ts sums by the depth of a vocabulary",
  },
  {
    mistake:
      /^gradients of .* subgroup8 .*: (one more: main: let out_begin|other size: main: size.x_column) /,
    because: "four neighbours are read and stored together, by the first of them",
  },
  {
    mistake:
      /^gradients of .* subgroup8 .*: (zero: main: let own_k|term dropped: main: (k \+ #u \+ own_k|x_begin \+ own_k \* x_step|lane % #u in var xi))/,
    because: "a load of all lanes brings 32 rows of one k",
  },
  {
    mistake:
      /^experts (?!.*, cut: ).*: (never: main: expert < # \|\||term dropped: main: tile_rows.x - i32\(size.first_expert\))/,
    because: "all weights are bound at once there",
  },
  ...PRODUCT_REASONS,
];

/** Rows of each expert: none, whole tiles, and tiles of which a part is used; for gradients, so many that their sums are made of blocks. */
const countsFor = (isTrained: boolean) => [3, 0, isTrained ? 300 : 45, 1, 32];
const EXPERTS = countsFor(false).length;

/** A matrix whose second row, or column, is no number where an expert has it, and rows that are nobody's neither. */
function factor(shape: readonly [number, number], seed: number, isNaN: (i: number) => boolean): Value {
  const { values } = operand(shape, seed);
  return { shape, data: values.map((v, i) => (isNaN(i) ? NaN : v)) };
}

interface Case {
  readonly n: number;
  readonly k: number;
  /** Whether it is the gradient of a trained weight; else the product with a frozen one, and its gradient. */
  readonly isTrained: boolean;
  readonly variant: ReturnType<typeof expertVariants.candidates>[number];
  readonly share?: Hunt["share"];
}

/** Products with weights of experts, what comes back to the rows, and the weights' gradients. */
function huntIn(hunters: Hunters, gpu: Gpu, family: KernelFamily, c: Case): Promise<void> {
  const { n, k, isTrained, variant, share } = c;
  const counts = countsFor(isTrained);
  const pairs = counts.reduce((a, b) => a + b);
  const { tiles, ranges, expertOfRow } = places(counts);
  const rows = expertOfRow.length;
  const nobody = (width: number) => (i: number) => expertOfRow[Math.floor(i / width)]! < 0;
  const x = factor([rows, k], 1, (i) => nobody(k)(i) || Math.floor(i / k) === 1);
  const dy = factor([rows, n], 2, (i) => nobody(n)(i) || Math.floor(i / n) === 2);
  const w = factor([EXPERTS * n, k], 3, (i) => Math.floor(i / k) === n + 1);
  const [xs, ws, ds] = [x, w, dy].map(({ data }) => data as Float32Array) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const [y, dx, dw] = [
    new Float64Array(rows * n).fill(NaN),
    new Float64Array(rows * k).fill(NaN),
    new Float64Array(EXPERTS * n * k),
  ];
  expertOfRow.forEach((e, row) => {
    if (e < 0) return;
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < k; j++) sum += xs[row * k + j]! * ws[(e * n + i) * k + j]!;
      y[row * n + i] = sum;
      for (let j = 0; j < k; j++) dw[(e * n + i) * k + j]! += ds[row * n + i]! * xs[row * k + j]!;
    }
    for (let j = 0; j < k; j++) {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += ds[row * n + i]! * ws[(e * n + i) * k + j]!;
      dx[row * k + j] = sum;
    }
  });
  const expected = isTrained ? [[dw, Math.max(...counts)] as const] : [[y, k] as const, [dx, n] as const];
  const shapes = (["NT", "NN"] as const).map((orientation): ExpertShape => ({
    ...{ orientation, experts: EXPERTS, pairs, weight: "f32" },
    ...(orientation === "NT" ? { n, k } : { n: k, k: n }),
  }));
  const called = expertVariants.name(variant);
  const [tileRows, tileColumns] = isTrained ? [32, 32] as const : tileOf(variant, rows);
  const tilesOf = (width: number) => Math.ceil(width / tileColumns);
  const workgroups = isTrained
    ? EXPERTS * Math.ceil(n / tileRows) * tilesOf(k)
    : Math.ceil(rows / tileRows) * tilesOf(Math.max(n, k));
  // Where weights begin where bindings may, and are larger than what else is bound.
  const isCut = !isTrained && k % 4 === 0;
  const what = isTrained ? "gradients of experts" : "experts";
  return hunters.hunt(`${what} ${called}, ${n}x${k}${k % 4 === 0 ? "" : ", odd"}${isCut ? ", cut" : ""}`, {
    gpu,
    ...(share ? { share } : {}),
    kernels: (kernel) => kernel.startsWith(isTrained ? "expertGradient" : "expertLinear"),
    values: [x, isTrained ? w : { ...w, kind: "weight" }, dy, tiles, ranges],
    device: {
      ...gpu.description,
      family,
      // Frozen weights of the last expert are bound by themselves.
      maxBindingSize: isCut
        ? (EXPERTS - 1) * 4 * n * k
        : 8 * Math.max(EXPERTS * n * k, rows * Math.max(n, k)),
      // Grids are folded.
      maxWorkgroupsPerDimension: Math.ceil(Math.sqrt(workgroups)),
      kernels: Object.fromEntries(shapes.map((s) => [`experts ${expertVariants.shapeClass(s)}`, called])),
    },
    build(graph, plant, ...inputs) {
      const [x, w, dy, tiles, ranges] = inputs;
      const sizes = { experts: EXPERTS, pairs, ...(isTrained ? { ranges: ranges! } : {}) };
      const y = expertLinear(x!, w!, tiles!, sizes);
      const [back] = gradients(graph, [[y, dy!]], [isTrained ? w! : x!]);
      const made = isTrained ? [back!] : [y, back!];
      made.forEach(plant);
      return made;
    },
    isRight: (found) =>
      expected.every(([values, depth], i) => isWithin(found[i]!, values, 4e-7 * (3 + depth))),
  });
}

/** Every kernel takes minutes, and runs where it is asked for; else some of the mistakes of one. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";

gpuTest(
  `a mistake in ${ALL ? "any" : "some"} kernel of experts is noticed, wherever it is`,
  async (gpu, family) => {
    const hunters = new Hunters(EQUIVALENT);
    const device = { ...DEFAULT_DEVICE, family };
    for (const [n, k] of ALL ? [[76, 84], [101, 117]] as const : [[76, 84]] as const) {
      const shape: ExpertShape = { orientation: "NT", experts: EXPERTS, pairs: 81, n, k, weight: "f32" };
      const found = expertVariants.candidates(shape, device).filter((v) =>
        (v.family === "subgroup8") === (family === "subgroup8")
      );
      for (const [i, variant] of (ALL ? found : found.slice(0, 1)).entries()) {
        const share = ALL ? {} : { share: { of: 12, at: 1 } };
        await huntIn(hunters, gpu, family, { n, k, variant, isTrained: false, ...share });
        // Of these there is one.
        if (i === 0) await huntIn(hunters, gpu, family, { n, k, variant, isTrained: true, ...share });
      }
    }
    hunters.end(ALL);
  },
);
