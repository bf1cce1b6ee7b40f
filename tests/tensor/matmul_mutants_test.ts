/** Mistakes that are planted by rule in every kernel of matrix products, each of which has to be noticed. */
import { DEFAULT_DEVICE, type DeviceDescription, type KernelFamily } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Graph, StepScalar, Tensor } from "../../src/tensor/graph.ts";
import { matmulAccumulateOp, matmulOp, type Orientation } from "../../src/tensor/ops/matmul.ts";
import {
  type MatmulVariant,
  partsOf,
  type TiledVariant,
  tileOf,
} from "../../src/tensor/ops/matmul/shapes.ts";
import { matmulVariants } from "../../src/tensor/ops/matmul/variants.ts";
import { gpuTest, type Value } from "./harness.ts";
import { type Equivalent, type Hunt, Hunters, isWithin } from "./mutants.ts";
import { operand } from "./oracle.ts";

const { candidates, name, shapeClass } = matmulVariants;

/** Mistakes that change nothing that anybody could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [
  {
    mistake:
      /: (always|at the edge|one bound alone): [xw]2?_unit: |: term dropped: [xw]2?_unit: r \+ #u in if/,
    because: "what lies beyond an edge of one factor is never stored, or meets a 0 of the other",
  },
  {
    mistake: /^(?!.*\bodd\b).*: one more: ([xw]2?_unit: let i|main: let ([xw]_[kr]|column|k#|begin)) =/,
    because: "four neighbours are read and stored together, by the first of them",
  },
  {
    mistake: /^(?!.*\bodd\b).*: other size: (main: size.k#? in let end|[xw]2?_unit: size.[mn] |put: size.n )/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake: /: one more: main: let end#? = size.k/,
    because: "beyond a binding, 0 is read",
  },
  {
    mistake: /: (left out: main: x_base = size.x_column|term dropped: put: .*out_column in let at)/,
    because: "only a product that is cut along it begins elsewhere than at 0",
  },
  {
    mistake:
      /: (zero: main: let x_column =|term dropped: main: .*(x_column in var [xw]i#|out_column in var at) =)/,
    because: "only a product that is cut along it begins elsewhere than at 0",
  },
  {
    mistake: / TN.*: \w+( \w+)*: main: (let x_(stride|column) =|size.[\w#]+ in let x_(stride|column) =)/,
    because: "a product of this orientation reads x by the width of the output alone",
  },
  {
    mistake:
      /: one more: main: let x_column =|: other size: main: (size.k#? in let depth|size.n in if \(column)/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake: /^(?!.*\bodd\b).*few rows.*: other size: main: size.k#? in (for|let [ab])/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake: /few rows.*: (always|at the edge): main: lane < reach in if/,
    because: "what the other lanes add is read by nobody",
  },
  {
    mistake: /(NN|TN).*: one more: main: let depth =/,
    because: "beyond a binding, 0 is read",
  },
  {
    mistake:
      /subgroup8 32x.*: (zero: main: let own_k|term dropped: main: (.*own_k \* x_step in var xi|lane % #u in var xi|lane \/ #u in let own_k))/,
    because: "a load of all lanes brings 32 rows of one k",
  },
  {
    mistake:
      /: [^:]*: main: (let rows = min\(|.* in let rows = min\(|.*r \+ #u( < rows)? in if \(r \+ #u < rows\))/,
    because:
      "rows that a tile has too many lie beyond the binding, or are the next tile's, which a device that goes in order writes later",
  },
  {
    mistake:
      /: [^:]*: main: (size.has_addend.*|at) in (if|value \+=).*addend|: left out: main: value \+= addend/,
    because: "what memory holds is added to without another addend",
  },
  {
    mistake: /: at the edge: put: m >= size.m /,
    because: "a row beyond the last lies beyond the binding, where nothing is written",
  },
  {
    mistake: /: always: put: size.has_addend/,
    because: "where there is no addend, zeros are bound in its place",
  },
  {
    mistake: /: (never|at the edge): main: tile >= size.tiles /,
    because: "tiles beyond the last have columns beyond the edge",
  },
  {
    mistake:
      /: (one more: main: let slices#? =|term dropped: main: (\(end#? .*\) \/ #u|end - begin) in let slices#?)/,
    because: "slices beyond the last hold zeros",
  },
  {
    mistake: /: (always|at the edge): main: slice > #u /,
    because: "workgroup memory begins as zeros",
  },
  {
    mistake: /matmul (NN|TN).*: (zero|one more): main: let turn = /,
    because: "only what lies along K is spread over the banks of workgroup memory",
  },
  {
    mistake: /, 4x[48] each.*: term dropped: main: (r % #u|.* r \/ #u \* #u) in let m = /,
    because: "a thread has four rows side by side, and no others",
  },
  {
    mistake:
      / parts, .*: matmul (NN|NT|TN).*: put: (.*(addend|keep|accumulate)|value \+= out|at in value \+= out)/,
    because: "what parts give is added to what is there by the kernel that sums them",
  },
  {
    mistake: / parts, .*: main: (part \* size.part_depth|size.(part_depth|k) in if \(part \*)/,
    because: "parts beyond the last lie beyond the binding, where nothing is written",
  },
  {
    mistake: /(NN|TN).* parts, .*: first choice: main: min\(begin \+ size.part_depth, size.k\)/,
    because: "beyond a binding, 0 is read",
  },
  {
    mistake: / parts, .*: at the edge: main: part == #u in let end#/,
    because: "the second product is made by one of two parts either way",
  },
  {
    mistake: / of several: .*\b(x_begin|w_begin|out_begin|[xw]_base = size|out_base = size)/,
    because:
      "one product alone begins at 0; tests/tensor/together_test.ts plants these where several are made",
  },
  {
    mistake: /subgroup8 .* of several: left out: begin_product: size = sizes\[member\]/,
    because: "the kernel reads its sizes where it begins, and has no other function",
  },
  {
    mistake: / of several: .*(size.has_addend|addend\[at\])/,
    because: "no product that is made with others has an addend",
  },
  {
    mistake: /matmul parts: ((never|at the edge): (put: (m|n) >=|main: i >=)|one more: main: let first = i)/,
    because: "what comes after the last lies beyond the binding, where nothing is written",
  },
  {
    mistake: / parts, .*: term dropped: main: group.x \+ group.y \* groups.x in let launched/,
    because: "so few workgroups are never folded",
  },
  {
    mistake: /^(?!.*\bodd\b).* parts, .*: other size: main: size.part_depth in let end/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
];

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
): Value & { data: Float32Array } {
  const { shape, values } = operand(turned ? [depth, across] : [across, depth], seed);
  const data = values.map((v, i) => (turned ? i % across : Math.floor(i / depth)) === 1 ? NaN : v);
  return { shape, data };
}

/** A product of each size in one program; the kernels are the same. */
interface Case {
  readonly orientation: Orientation;
  readonly variant: MatmulVariant;
  readonly terms: 1 | 2;
  readonly sizes: readonly Sizes[];
}

/**
 * Sizes that meet every edge of a kernel's tile: one with more than two tiles along one side, more than one along the other, and a weight that is
 * larger than all else, so that it alone is cut into parts; and one that is not, with a slice along K that is not full.
 */
function sizesFor(variant: MatmulVariant, isOdd: boolean): Sizes[] {
  const [rows, columns] = tileOf(variant, 8);
  const odd = isOdd ? 1 : 0;
  const few = variant.family === "few-rows";
  const m = few ? 8 : rows + 4 + odd;
  const n = 4 * Math.ceil((few ? 74 : 2 * Math.max(rows, columns) + 10) / 4) + odd;
  const cut = { m, n, k: (few ? 276 : Math.max(84, 4 * Math.ceil((m + 20) / 4))) + odd, k2: 20 + odd };
  return [cut, { m: few ? 7 : 4 + odd, n: columns + 4 + odd, k: 44 + odd, k2: 20 + odd }];
}

/** The operands of a product, and what it has to be onto each of several addends. */
class Product {
  readonly values: readonly Value[];
  readonly expected: readonly Float64Array[];
  readonly #sizes: Sizes;
  readonly #case: Case;

  /** @param isFrozen Whether w is a frozen weight, whose product is made alone */
  constructor(c: Case, sizes: Sizes, isFrozen: boolean) {
    [this.#case, this.#sizes] = [c, sizes];
    const { orientation, terms } = c;
    const { m, n, k, k2 } = sizes;
    const [turnsX, turnsW] = [orientation === "TN", orientation !== "NT"];
    const [x, x2] = [factor(m, k, turnsX, 1), factor(m, k2, turnsX, 2)];
    const [w, w2] = [factor(n, k, turnsW, 3), factor(n, k2, turnsW, 4)];
    const first = product(orientation, m, n, k, x.data, w.data);
    const second = product(orientation, m, n, k2, x2.data, w2.data);
    const sum = first.map((v, i) => 2 * v + (terms === 2 ? 3 * second[i]! : 0));
    const [r, kept, added] = [5, 6, 7].map((seed) => operand([m, n], seed).values) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const states = [kept, added, new Float32Array(m * n).fill(NaN)];
    this.values = [
      ...[x, { ...w, kind: isFrozen ? "weight" : "input" } as const, x2, w2, { shape: [m, n], data: r }],
      ...states.map((data): Value => ({ shape: [m, n], kind: "state", data })),
    ];
    this.expected = [r, kept.map((v) => 0.75 * v), added, sum.map(() => 0)].map((onto) =>
      sum.map((v, i) => v + onto[i]!)
    );
  }

  /** The choice of the kernel. */
  get choice(): [shape: string, kernel: string] {
    const { k2, ...others } = this.#sizes;
    const { orientation, terms, variant } = this.#case;
    const shape = { ...others, orientation, k2: terms === 2 ? k2 : 0, weight: "f32" } as const;
    const isCut = variant.family === "subgroup8" && others.k > 512;
    return [`matmul ${shapeClass(shape)}`, name(isCut ? { ...variant, depth: 512 } : variant)];
  }

  /** The product onto an addend, and onto what memory holds: a part of it, all, or nothing. */
  build(graph: Graph, plant: (t: Tensor) => void, [x, w, x2, w2, r, kept, added, fresh]: readonly Tensor[]) {
    const { orientation, terms } = this.#case;
    const factors = terms === 2 ? [2, 3] : [2];
    const operands = terms === 2 ? [x!, w!, x2!, w2!] : [x!, w!];
    const onto = (state: Tensor, accumulate: StepScalar | 1) =>
      graph.add(matmulAccumulateOp, [...operands, state], {
        ...{ orientation, factors, addend: false },
        accumulate,
      })[0]!;
    const made = graph.add(matmulOp, [...operands, r!], { orientation, factors, addend: true })[0]!;
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
    return results.every((found, i) => isWithin(found, this.expected[i]!, 4e-7 * (3 + this.#sizes.k)));
  }

  /** Bytes of w, and of the largest of the others. */
  get bytes(): [weight: number, others: number] {
    const { m, n, k } = this.#sizes;
    return [4 * n * k, 4 * m * Math.max(n, k)];
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
  const alone = c.terms === 2 || Math.min(c.sizes[0]!.m, c.sizes[0]!.n) > 128;
  const products = (alone ? [true] : [true, false]).flatMap((isFrozen) =>
    c.sizes.map((sizes) => new Product(c, sizes, isFrozen))
  );
  const { m, n, k } = c.sizes[0]!;
  const [weight, others] = products[0]!.bytes;
  const each = products[0]!.values.length;
  const [rows, columns] = tileOf(c.variant, m);
  const tiles = Math.ceil(m / rows) * Math.ceil(n / columns) * partsOf(c.variant);
  const groups = Math.max(tiles, partsOf(c.variant) > 1 ? Math.ceil(m * n / 64) : 0);
  return hunters.hunt(
    `${c.orientation}${c.terms === 2 ? " x2" : ""} ${name(c.variant)}, ${m}x${n}x${k}${
      k % 4 === 0 ? "" : ", odd"
    }`,
    {
      gpu,
      ...(share ? { share } : {}),
      // Where a weight is cut along K, the parts but the first have one term, and add to what is there.
      kernels: (kernel) => kernel === "matmul parts" || kernel.includes(" x2 ") === (c.terms === 2),
      values: products.flatMap(({ values }) => values),
      scalars: { a: 0.1, b: 0.2, c: 0.3, keep: 0.75, nothing: 0 },
      device: {
        ...device,
        maxBindingSize: Math.max(c.sizes.length > 1 ? weight - 4 : weight, others),
        // Grids are folded.
        maxWorkgroupsPerDimension: Math.ceil(Math.sqrt(groups)),
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

/** Every kernel in every orientation takes many minutes, and runs where it is asked for; else one of each kind. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";

/** Of the kernels that compile soonest, one of each kind. */
const SOME =
  /^NT (tiled 32x32 by 16, 4x4 each|few rows 16x16)$|^NN subgroup8 8x32$|^TN subgroups.* 32x32 .*each$/;

/** Of their mistakes one in so many. */
const SHARE = 4;

/** Kernels to hunt in, those of each kind first. */
function* kernels(family: KernelFamily, device: DeviceDescription): Generator<Case> {
  const shape = { m: 200, n: 200, k: 200, k2: 8, weight: "f32" } as const;
  for (const [turn, orientation] of (["NT", "NN", "TN"] as const).entries()) {
    const tiles = candidates({ ...shape, orientation }, { ...device, family })
      .filter((v) => (v.family === "subgroup8") === (family === "subgroup8"));
    for (const [i, variant] of tiles.entries()) {
      const terms = (i + turn) % 2 === 0 ? 1 : 2;
      const sizes = sizesFor(variant, false);
      yield { orientation, variant, terms, sizes };
      if (family === "subgroup8" || i > 0) continue;
      yield { orientation, variant, terms: 2, sizes: sizesFor(variant, true) };
    }
    for (const [i, variant] of tiles.entries()) {
      // So deep that workgroups share the sums along K, and that they are made of blocks; each in one of the orientations.
      if (i % 3 !== turn) continue;
      const [rows, columns] = tileOf(variant, 5);
      const sizes = [{ m: rows + 4, n: columns + 4, k: 1044, k2: 20 }];
      if (variant.family === "subgroup8") yield { orientation, variant, terms: 1, sizes };
      if (variant.family !== "tiled") continue;
      const deep = candidates({ orientation, ...sizes[0]!, weight: "f32" }, device);
      const parted = deep.find((v) => v.family === "tiled" && v.parts > 1 && sameTile(v, variant));
      if (parted) yield { orientation, variant: parted, terms: 2, sizes };
    }
  }
  if (family === "subgroup8") return;
  const few = candidates({ ...shape, orientation: "NT", m: 8 }, device).filter((v) =>
    v.family === "few-rows"
  );
  for (const [i, variant] of few.entries()) {
    for (const isOdd of [false, true]) {
      const terms = i % 2 === 0 ? 2 : 1;
      yield { orientation: "NT", variant, terms, sizes: sizesFor(variant, isOdd) };
    }
  }
}

function sameTile(a: TiledVariant, b: TiledVariant): boolean {
  return name({ ...a, parts: 1 }) === name({ ...b, parts: 1 });
}

gpuTest(
  `a mistake in ${ALL ? "any" : "some"} kernel of products is noticed, wherever it is`,
  async (gpu, family) => {
    const hunters = new Hunters(EQUIVALENT);
    const { name: called, subgroupSize } = gpu.description;
    const device = { ...DEFAULT_DEVICE, name: called, subgroupSize };
    let at = 0;
    for (const c of kernels(family, device)) {
      const what = `${c.orientation} ${name(c.variant)}`;
      if (!ALL && !SOME.test(what)) continue;
      await huntIn(hunters, gpu, { ...device, family }, c, ALL ? undefined : { of: SHARE, at: at++ });
    }
    hunters.end(ALL);
  },
);
