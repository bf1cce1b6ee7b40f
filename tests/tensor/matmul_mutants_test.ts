/** Mistakes that are planted by rule in every kernel of matrix products, each of which has to be noticed. */
import { DEFAULT_DEVICE, type DeviceDescription, type KernelFamily } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { FloatDtype } from "../../src/formats/dtype.ts";
import type { Compute, Graph, StepScalar, Tensor } from "../../src/tensor/graph.ts";
import { matmulAccumulateOp, matmulOp, type Orientation } from "../../src/tensor/ops/matmul.ts";
import {
  type MatmulVariant,
  partsOf,
  type TiledVariant,
  tileOf,
} from "../../src/tensor/ops/matmul/shapes.ts";
import { matmulVariants } from "../../src/tensor/ops/matmul/variants.ts";
import { type BlockDtype, byteLength, type DType } from "../../src/tensor/weight_storage.ts";
import { gpuTest, type Value } from "./harness.ts";
import { type Hunt, Hunters, isWithin } from "./mutants.ts";
import { operand } from "./oracle.ts";
import { PRODUCT_REASONS } from "./product_reasons.ts";
import { BLOCK_DTYPES, quantisedValue } from "./quantised.ts";
import { writtenOut } from "./written_out.ts";

const { candidates, name, shapeClass } = matmulVariants;

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly k2: number;
}

type Numbers = ArrayLike<number>;

/** x w, in f64; x and w as the orientation has them in memory. */
function product(orientation: Orientation, m: number, n: number, k: number, x: Numbers, w: Numbers) {
  const [xm, xk] = orientation === "TN" ? [1, m] : [k, 1];
  const [wn, wk] = orientation === "NT" ? [k, 1] : [1, n];
  return Float64Array.from({ length: m * n }, (_, i) => {
    const [row, column] = [Math.floor(i / n) * xm, i % n * wn];
    let sum = 0;
    for (let l = 0; l < k; l++) sum += x[row + l * xk]! * w[column + l * wk]!;
    return sum;
  });
}

/** A matrix of `depth` along K; its first row but one across K is no number, and so is that row of the product, and nothing else. */
function factor(
  across: number,
  depth: number,
  turned: boolean,
  seed: number,
): Factor & { data: Float32Array } {
  const { shape, values } = operand(turned ? [depth, across] : [across, depth], seed);
  const data = values.map((v, i) => (turned ? i % across : Math.floor(i / depth)) === 1 ? NaN : v);
  return { shape, data, values: data };
}

/** A matrix as kernels get it, and the numbers that it holds. */
type Factor = Value & { readonly values: Float32Array };

/** What a row of x, and so of the product, is multiplied by, and what it is compared in: of the smallest some bits are lost. */
const powerOf = (row: number) => [1, 2 ** -40, 2 ** 30, 2 ** -114, 2 ** 10][row % 5]!;
const unitOf = (row: number) => Math.max(powerOf(row), 2 ** -108);

/**
 * Rows of numbers that f16 holds exactly once a row is brought into its range, where without it they would be zeros or infinite; each has its
 * largest elsewhere, four times as large as any other, and some of them where a thread that looks for it could miss it. The second is no number.
 */
function rowsOfHalves(across: number, depth: number, seed: number): Factor {
  const { shape, values } = operand([across, depth], seed);
  const data = values.map((v, i) => {
    const [row, k] = [Math.floor(i / depth), i % depth];
    if (row === 1) return NaN;
    return powerOf(row) *
      (k === (row === 0 ? depth - 1 : (19 * row + 79) % depth) ? 4 : Math.round(1024 * v) / 1024);
  });
  return { shape, data, values: data };
}

/** A weight of numbers that f16 holds exactly. */
function weightOfHalves(shape: readonly number[], seed: number): Factor {
  const data = operand(shape, seed).values.map((v) => Math.round(1024 * v) / 1024);
  return { shape, data, values: data };
}

/** A weight in its storage. */
function stored(dtype: DType, shape: readonly number[], seed: number): Factor {
  const isBlock = (BLOCK_DTYPES as readonly DType[]).includes(dtype);
  return isBlock
    ? quantisedValue(dtype as BlockDtype, shape, seed)
    : operand(shape, seed, dtype as FloatDtype);
}

/** A product of each size in one program; the kernels are the same. */
interface Case {
  readonly orientation: Orientation;
  readonly variant: MatmulVariant;
  readonly terms: 1 | 2;
  readonly sizes: readonly Sizes[];
  /** How w is stored, where not f32. */
  readonly weight?: DType;
  /** What factors are rounded to, where not f32. */
  readonly compute?: Compute;
  /** Where mistakes are made; everywhere by default. */
  readonly places?: RegExp;
}

/** Rows beyond those of a tile: where rows of both factors are read along K, they need not be a multiple of four for any device. */
function moreRows({ family }: MatmulVariant, orientation: Orientation): number {
  return family === "subgroup8" && orientation !== "TN" ? 5 : 4;
}

/**
 * Sizes that meet every edge of a kernel's tile: one with more than two tiles along one side, more than one along the other, and a weight that is
 * larger than all else, so that it alone is cut into parts; and one that is not, with a slice along K that is not full.
 */
function sizesFor(variant: MatmulVariant, isOdd: boolean, orientation: Orientation): Sizes[] {
  const [rows, columns] = tileOf(variant, 8);
  const odd = isOdd ? 1 : 0;
  const few = variant.family === "few-rows";
  const more = moreRows(variant, orientation) + odd;
  const m = few ? 8 : rows + more;
  const n = 4 * Math.ceil((few ? 74 : 2 * Math.max(rows, columns) + 10) / 4) + odd;
  const cut = { m, n, k: (few ? 276 : Math.max(84, 4 * Math.ceil((m + 20) / 4))) + odd, k2: 20 + odd };
  return [cut, { m: few ? 7 : more, n: columns + 4 + odd, k: 44 + odd, k2: 20 + odd }];
}

/** The operands of a product, and what it has to be onto each of several addends. */
class Product {
  readonly values: readonly Value[];
  readonly #expected: readonly Float64Array[];
  readonly #sizes: Sizes;
  readonly #case: Case;
  /** Of the weight, at least 1. */
  readonly #largest: number;

  /** @param isFrozen Whether w is a frozen weight, whose product is made alone */
  constructor(c: Case, sizes: Sizes, isFrozen: boolean) {
    [this.#case, this.#sizes] = [c, sizes];
    const { orientation, terms, weight, compute } = c;
    const { m, n, k, k2 } = sizes;
    const [turnsX, turnsW] = [orientation === "TN", orientation !== "NT"];
    const x = compute ? rowsOfHalves(m, k, 1) : factor(m, k, turnsX, 1);
    const shape = turnsW ? [k, n] : [n, k];
    const w = weight
      ? stored(weight, shape, 3)
      : compute
      ? weightOfHalves(shape, 3)
      : factor(n, k, turnsW, 3);
    const [x2, w2] = [factor(m, k2, turnsX, 2), factor(n, k2, turnsW, 4)];
    this.#largest = w.values.reduce((most, v) => Math.abs(v) > most ? Math.abs(v) : most, 1);
    const first = product(orientation, m, n, k, x.values, w.values);
    const second = product(orientation, m, n, k2, x2.data, w2.data);
    const sum = first.map((v, i) => 2 * v + (terms === 2 ? 3 * second[i]! : 0));
    const [r, kept, added] = [5, 6, 7].map((seed) => {
      const { values } = operand([m, n], seed);
      return compute ? values.map((v, i) => v * powerOf(Math.floor(i / n))) : values;
    }) as [Float32Array, Float32Array, Float32Array];
    const states = [kept, added, new Float32Array(m * n).fill(NaN)];
    this.values = [
      ...[x, { ...w, kind: isFrozen ? "weight" : "input" } as const, x2, w2, { shape: [m, n], data: r }],
      ...states.map((data): Value => ({ shape: [m, n], kind: "state", data })),
    ];
    this.#expected = [r, kept.map((v) => 0.75 * v), added, sum.map(() => 0)].map((onto) =>
      this.#perRow(sum.map((v, i) => v + onto[i]!))
    );
  }

  /** The choice of the kernel. */
  get choice(): [shape: string, kernel: string] {
    const { k2, ...others } = this.#sizes;
    const { orientation, terms, variant, weight = "f32", compute } = this.#case;
    const shape = {
      ...{ ...others, orientation, k2: terms === 2 ? k2 : 0, weight },
      ...(compute ? { compute } : {}),
    };
    const isCut = variant.family === "subgroup8" && others.k > 512;
    return [`matmul ${shapeClass(shape)}`, name(isCut ? { ...variant, depth: 512 } : variant)];
  }

  /** The product onto an addend, and onto what memory holds: a part of it, all, or nothing. */
  build(graph: Graph, plant: (t: Tensor) => void, [x, w, x2, w2, r, kept, added, fresh]: readonly Tensor[]) {
    const { orientation, terms, compute } = this.#case;
    const rounded = compute ? { compute } : {};
    const factors = terms === 2 ? [2, 3] : [2];
    const operands = terms === 2 ? [x!, w!, x2!, w2!] : [x!, w!];
    const onto = (state: Tensor, accumulate: StepScalar | 1) =>
      graph.add(matmulAccumulateOp, [...operands, state], {
        ...{ orientation, factors, addend: false, ...rounded },
        accumulate,
      })[0]!;
    const attributes = { orientation, factors, addend: true, ...rounded };
    const made = graph.add(matmulOp, [...operands, r!], attributes)[0]!;
    const all = [
      made,
      onto(kept!, graph.scalar("keep")),
      onto(added!, 1),
      onto(fresh!, graph.scalar("nothing")),
    ];
    all.forEach(plant);
    return made;
  }

  /** Whether the product and the states are right. */
  isRight(results: readonly Float32Array[]): boolean {
    const tolerance = 4e-7 * (3 + this.#sizes.k) * this.#largest;
    return results.every((found, i) => isWithin(this.#perRow(found), this.#expected[i]!, tolerance));
  }

  /** Without what rows are multiplied by. */
  #perRow<T extends Float32Array | Float64Array>(values: T): T {
    if (!this.#case.compute) return values;
    const { n } = this.#sizes;
    return values.map((v, i) => v / unitOf(Math.floor(i / n))) as T;
  }

  /** Bytes of w, and of the largest of the others. */
  get bytes(): [weight: number, others: number] {
    const { m, n, k } = this.#sizes;
    return [byteLength({ shape: [n, k], dtype: this.#case.weight ?? "f32" }), 4 * m * Math.max(n, k)];
  }
}

function huntIn(
  hunters: Hunters,
  gpu: Gpu,
  device: DeviceDescription,
  c: Case,
  share?: Hunt["share"],
): Promise<void> {
  // Those of two terms, and large ones, are made alone, whatever their weights are.
  const alone = c.terms === 2 || c.weight || c.compute || Math.min(c.sizes[0]!.m, c.sizes[0]!.n) > 128;
  const products = (alone ? [true] : [true, false]).flatMap((isFrozen) =>
    c.sizes.map((sizes) => new Product(c, sizes, isFrozen))
  );
  const { m, n, k } = c.sizes[0]!;
  const [weight, others] = products[0]!.bytes;
  const each = products[0]!.values.length;
  const [rows, columns] = tileOf(c.variant, m);
  const tiles = Math.ceil(m / rows) * Math.ceil(n / columns) * partsOf(c.variant);
  // Rows have a scale each.
  const groups = Math.max(tiles, partsOf(c.variant) > 1 ? Math.ceil(m * n / 64) : 0, c.compute ? m : 0);
  return hunters.hunt(
    `${c.orientation}${c.terms === 2 ? " x2" : ""} ${name(c.variant)}, ${m}x${n}x${k}${
      k % 4 === 0 ? "" : ", odd"
    }${c.weight ? `, ${c.weight}` : ""}${c.compute ? ", in f16" : ""}`,
    {
      gpu,
      ...(share ? { share } : {}),
      // Where a weight is cut along K, the parts but the first have one term, and add to what is there.
      kernels: (kernel, place) =>
        (kernel === "matmul parts" ? !c.compute : kernel.includes(" x2 ") === (c.terms === 2)) &&
        (!c.places || c.places.test(place)),
      finish: (wgsl) => wgsl.includes("subgroupMatrix") ? writtenOut(wgsl) : wgsl,
      values: products.flatMap(({ values }) => values),
      scalars: { a: 0.1, b: 0.2, c: 0.3, keep: 0.75, nothing: 0 },
      device: {
        ...device,
        // Where no weight is cut, there is room behind all that is bound.
        maxBindingSize: c.sizes.length > 1 ? Math.max(weight - 4, others) : 2 * Math.max(weight, others),
        // Grids are folded.
        maxWorkgroupsPerDimension: c.compute ? foldedGrid(groups) : Math.ceil(Math.sqrt(groups)),
        kernels: Object.fromEntries(products.map(({ choice }) => choice)),
      },
      build(graph, plant, ...inputs) {
        // What is kept stands at the beginning of a vector of these numbers, but not of the first.
        for (const name of ["a", "b", "c", "keep", "nothing"]) graph.scalar(name);
        return products.map((product, i) =>
          product.build(graph, plant, inputs.slice(i * each, (i + 1) * each))
        );
      },
      isRight(results) {
        const states = results.slice(products.length);
        return products.every((product, i) =>
          product.isRight([results[i]!, ...states.slice(3 * i, 3 * i + 3)])
        );
      },
    },
  );
}

/** Where a weight is read; what its storage makes of that is for tests/tensor/weight_mutants_test.ts. */
const READING = /^w_unit|\bweight\(/;

/** The most workgroups along a dimension of a grid that is folded, and has more than there are. */
function foldedGrid(count: number): number {
  let most = Math.ceil(Math.sqrt(count));
  const launched = () => Math.ceil(count / most) * Math.ceil(count / Math.ceil(count / most));
  while (launched() === count && most < count - 1) most++;
  return most;
}

/** Every kernel in every orientation takes many minutes, and runs where it is asked for; else one of each kind. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";

/** Of the kernels that compile soonest, one of each kind. */
const SOME =
  /^NT (tiled 32x32 by 16, 4x4 each|few rows 16x16)$|^NN subgroup8 8x32$|^TN subgroups.* 32x32 .*each$/;

/** Of those with other numbers in their factors, and of their storages, one of each kind. */
const isSome = ({ orientation, variant, weight, compute, sizes }: Case): boolean => {
  if (!SOME.test(`${orientation} ${name(variant)}`)) return false;
  if (weight) {
    return variant.family === "tiled" && weight === "q4_0" && sizes[0]!.k % 4 === 0;
  }
  return !compute || sizes[0]!.k % 4 === 0;
};

/** Of their mistakes one in so many. */
const SHARE = 6;

/** Kernels to hunt in, those of each kind first. */
function* kernels(family: KernelFamily, device: DeviceDescription): Generator<Case> {
  const shape = { m: 200, n: 200, k: 200, k2: 8, weight: "f32" } as const;
  for (const [turn, orientation] of (["NT", "NN", "TN"] as const).entries()) {
    const tiles = candidates({ ...shape, orientation }, { ...device, family })
      .filter((v) => (v.family === "subgroup8") === (family === "subgroup8"));
    for (const [i, variant] of tiles.entries()) {
      const terms = (i + turn) % 2 === 0 ? 1 : 2;
      const sizes = sizesFor(variant, false, orientation);
      yield { orientation, variant, terms, sizes };
      if (family === "subgroup8" || i > 0) continue;
      yield { orientation, variant, terms: 2, sizes: sizesFor(variant, true, orientation) };
    }
    for (const [i, variant] of tiles.entries()) {
      // So deep that workgroups share the sums along K, and that they are made of blocks; each in one of the orientations.
      if (i % 3 !== turn) continue;
      const [rows, columns] = tileOf(variant, 5);
      const m = rows + moreRows(variant, orientation);
      const sizes = [{ m, n: columns + 4, k: 1044, k2: 20 }];
      if (variant.family === "subgroup8") yield { orientation, variant, terms: 1, sizes };
      if (variant.family !== "tiled") continue;
      const deep = candidates({ orientation, ...sizes[0]!, weight: "f32" }, device);
      const parted = deep.find((v) => v.family === "tiled" && v.parts > 1 && sameTile(v, variant));
      if (parted) yield { orientation, variant: parted, terms: 2, sizes };
      if (!parted || orientation !== "NT" || rows + columns > 64) continue;
      // So many tiles that more workgroups are launched than there are parts.
      const many = { m: 4 * rows + 4, n: 6 * columns + 4, k: 1056, k2: 20 };
      yield { orientation, variant: parted, terms: 2, sizes: [many], places: /part \* size\.part_depth >=/ };
    }
  }
  if (family === "subgroup8") return;
  const few = candidates({ ...shape, orientation: "NT", m: 8 }, device).filter((v) =>
    v.family === "few-rows"
  );
  for (const [i, variant] of few.entries()) {
    for (const isOdd of [false, true]) {
      const terms = i % 2 === 0 ? 2 : 1;
      yield { orientation: "NT", variant, terms, sizes: sizesFor(variant, isOdd, "NT") };
    }
  }
}

/** Products of factors in f16, and on units for small matrices, of which the device is to have some. */
function* roundedAndUnits(device: DeviceDescription): Generator<Case> {
  for (const [turn, orientation] of (["NT", "NN"] as const).entries()) {
    const compute = "f16";
    const shape = { orientation, m: 200, n: 200, k: 200, k2: 0, weight: "f32", compute } as const;
    const tiles = candidates(shape, device);
    for (const [i, variant] of tiles.entries()) {
      const sizes = sizesFor(variant, false, orientation);
      yield { orientation, variant, terms: 1, compute, sizes: [sizes[0]!, { ...sizes[1]!, m: 13, k: 300 }] };
      if (i === 0) {
        yield { orientation, variant, terms: 1, compute, sizes: sizesFor(variant, true, orientation) };
      }
      if (variant.family !== "tiled" || i % 5 !== turn) continue;
      const [rows, columns] = tileOf(variant, 5);
      const deep = { m: rows + 4, n: columns + 4, k: 1044, k2: 20 };
      const parted = candidates({ ...shape, ...deep, k2: 0 }, device).find((v) =>
        v.family === "tiled" && v.parts > 1 && sameTile(v, variant)
      );
      if (parted) yield { orientation, variant: parted, terms: 1, compute, sizes: [deep] };
    }
  }
  for (const [i, orientation] of (["NT", "NN", "TN"] as const).entries()) {
    const shape = { orientation, m: 200, n: 200, k: 200, k2: 8, weight: "f32" } as const;
    const variant = candidates(shape, device).find((v) => v.family === "subgroup-matrix")!;
    yield { orientation, variant, terms: i === 0 ? 2 : 1, sizes: sizesFor(variant, i === 1, orientation) };
    const deep = { m: 68, n: 68, k: 1100, k2: 20 };
    const parted = candidates({ ...shape, ...deep }, device).find((v) => v.family === "subgroup-matrix")!;
    yield { orientation, variant: parted, terms: i === 0 ? 1 : 2, sizes: [deep] };
  }
}

/** A matrix unit of three sizes that differ, so that none can stand in for another. */
const UNITS = (["f32", "f16"] as const).map((componentType) => ({
  ...{ m: 16, n: 32, k: 8 },
  componentType,
  resultComponentType: "f32",
}));

/** Weights in every storage but f32, whose rows have to be of so many values. */
const WIDTHS: Readonly<Partial<Record<DType, readonly number[]>>> = {
  ...{ f16: [84, 85], bf16: [84, 85], q8_0: [96], q4_0: [96], q4_k: [256], q6_k: [256] },
  ...{ nf4: [172, 85], "nf4-double": [172, 85] },
};

/** Products with weights in each storage, of the kernel that compiles soonest. */
function* storages(family: KernelFamily, device: DeviceDescription): Generator<Case> {
  for (const [dtype, widths] of Object.entries(WIDTHS) as [DType, readonly number[]][]) {
    for (const width of widths) {
      for (const orientation of ["NT", "NN"] as const) {
        const [n, k] = orientation === "NT" ? [44, width] : [width, 44];
        const sizes = { m: 12, n, k, k2: 20 };
        const shape = { orientation, ...sizes, k2: 0, weight: dtype };
        const [variant] = candidates(shape, { ...device, family }).filter((v) =>
          v.family === (family === "subgroup8" ? "subgroup8" : "tiled")
        );
        if (!variant) continue;
        yield { orientation, variant, terms: 1, weight: dtype, sizes: [sizes], places: READING };
      }
    }
  }
}

function sameTile(a: TiledVariant, b: TiledVariant): boolean {
  return name({ ...a, parts: 1 }) === name({ ...b, parts: 1 });
}

gpuTest(
  `a mistake in ${ALL ? "any" : "some"} kernel of products is noticed, wherever it is`,
  async (gpu, family) => {
    const hunters = new Hunters(PRODUCT_REASONS);
    const { name: called, subgroupSize } = gpu.description;
    const device = { ...DEFAULT_DEVICE, name: called, subgroupSize };
    let at = 0;
    const units = family === "tiled" && device.subgroupSize === 8
      ? { ...device, subgroupMatrices: UNITS }
      : device;
    const cases = [
      ...kernels(family, device),
      ...family === "tiled" ? roundedAndUnits(units) : [],
      ...storages(family, device),
    ];
    for (const c of cases) {
      if (!ALL && !isSome(c)) continue;
      await huntIn(hunters, gpu, { ...units, family }, c, ALL ? undefined : { of: SHARE, at: at++ });
    }
    hunters.end(ALL);
  },
);
