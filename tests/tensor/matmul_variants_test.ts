/** Every kernel that makes matrix products on hardware GPUs, run where there is none. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { assertWithin, hardwareTest, maxDifference, run } from "./harness.ts";
import { operand } from "./oracle.ts";
import { type Mistake, plantAny } from "./planted.ts";
import { writtenOut } from "./written_out.ts";
import { countAccesses } from "../../bench/counted.ts";
import type { FloatDtype } from "../../src/formats/dtype.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { matmul, type Orientation } from "../../src/tensor/ops/matmul.ts";
import {
  type MatmulShape,
  type MatmulVariant,
  type TiledVariant,
  tileOf,
} from "../../src/tensor/ops/matmul/shapes.ts";
import { productText } from "../../src/tensor/ops/matmul/kernels.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { matmulVariants } from "../../src/tensor/ops/matmul/variants.ts";

const { candidates, name, shapeClass, traffic, cost } = matmulVariants;

/** The least that WebGPU guarantees, with what the device at hand has of subgroups. */
function hardware(gpu: Gpu): DeviceDescription {
  const { name, subgroupSize } = gpu.description;
  return { ...DEFAULT_DEVICE, name, subgroupSize };
}

/** The device, with one kernel for one shape. */
function liking(device: DeviceDescription, shape: MatmulShape, variant: MatmulVariant): DeviceDescription {
  return { ...device, kernels: { [`matmul ${shapeClass(shape)}`]: name(variant) } };
}

/** What a thread makes of a tile. */
function eachOf(v: MatmulVariant): string {
  return v.family === "tiled" ? `${v.rowsEach}x${v.columnsEach} ${v.lanes}` : "";
}

interface Sizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

function operands(orientation: Orientation, { m, n, k }: Sizes, dtype: FloatDtype = "f32") {
  const x = operand(orientation === "TN" ? [k, m] : [m, k], m);
  const w = operand(
    orientation === "NT" ? [n, k] : [k, n],
    n + 1,
    dtype,
    dtype === "f32" ? "input" : "weight",
  );
  return [x, w] as const;
}

function product(orientation: Orientation, { m, n, k }: Sizes, x: Float32Array, w: Float32Array) {
  const [xm, xk] = orientation === "TN" ? [1, m] : [k, 1];
  const [wn, wk] = orientation === "NT" ? [k, 1] : [1, n];
  return Float64Array.from({ length: m * n }, (_, i) => {
    const [row, column] = [Math.floor(i / n) * xm, i % n * wn];
    let sum = 0;
    for (let l = 0; l < k; l++) sum += x[row + l * xk]! * w[column + l * wk]!;
    return sum;
  });
}

const tolerance = (k: number) => 1e-7 * (3 + k);

/** Every kernel in every orientation and storage, which takes many minutes, where it is asked for; else some of each. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";

hardwareTest(
  "each kernel of products matches f64, in each orientation, of two products onto an addend",
  async (gpu) => {
    if (!ALL) {
      console.log("skip: takes many minutes; LIMBECK_ALL_VARIANTS=1 runs it");
      return;
    }
    const device = hardware(gpu);
    // Edges in the second tile of the largest, a slice that is not full, and sizes that are no multiple of four; then few rows.
    for (const [m, n, k, k2] of [[133, 140, 1044, 8], [133, 141, 43, 5], [5, 37, 301, 3]] as const) {
      for (
        const [orientation, dtype] of [["NT", "f32"], ["NN", "bf16"], ["TN", "f32"], ["NT", "f16"]] as const
      ) {
        const [sizes, short] = [{ m, n, k }, { m, n, k: k2 }];
        const [x, w] = operands(orientation, sizes, dtype);
        const [x2, w2] = operands(orientation, short);
        const r = operand([m, n], 3);
        const second = product(orientation, short, x2.values, w2.values);
        const expected = product(orientation, sizes, x.values, w.values)
          .map((v, i) => v + 3 * second[i]! + r.values[i]!);
        const shape = { orientation, ...sizes, k2, weight: dtype } as const;
        for (const variant of candidates(shape, device)) {
          const { outputs } = await run(
            gpu,
            [x, w, x2, w2, r],
            (_, x, w, x2, w2, r) =>
              add(add(matmul(orientation, x!, w!), matmul(orientation, scale(x2!, 3), w2!)), r!),
            {},
            liking(device, shape, variant),
          );
          const title = `${orientation} ${m}x${n}x${k} ${dtype} ${name(variant)}`;
          console.log(title);
          assertWithin(outputs[0]!, expected, 3 * tolerance(k), title);
        }
      }
    }
  },
);

hardwareTest("each tile of products matches f64, in one of the orientations", async (gpu) => {
  const device = hardware(gpu);
  const tried = new Set<string>();
  // Edges in the second tile of each size, and a slice that is not full.
  const sizes = { m: 133, n: 140, k: 44 };
  const all = candidates({ orientation: "NN", ...sizes, k2: 0, weight: "f32" }, device);
  const tiles = Object.values(Object.groupBy(all, (v) => `${tileOf(v, 0)} ${eachOf(v)}`));
  for (const [i, variants] of tiles.entries()) {
    const orientation = (["NT", "NN", "TN"] as const)[i % 3]!;
    const variant = variants![i % variants!.length]!;
    const shape = { orientation, ...sizes, k2: 0, weight: "f32" } as const;
    const [x, w] = operands(orientation, sizes);
    const { outputs } = await run(
      gpu,
      [x, w],
      (_, x, w) => matmul(orientation, x!, w!),
      {},
      liking(device, shape, variant),
    );
    const expected = product(orientation, sizes, x.values, w.values);
    assertWithin(outputs[0]!, expected, tolerance(sizes.k), `${orientation} ${name(variant)}`);
    tried.add(name(variant));
  }
  assert(tried.size >= 12, [...tried].join("; "));
});

hardwareTest(
  "tiles of odd sizes, in blocks and in parts, of two products onto an addend match f64",
  async (gpu) => {
    const device = hardware(gpu);
    const cases = [["NT", 1101, 5, 1], ["NN", 1104, 8, 2], ["TN", 1101, 5, 1]] as const;
    for (const [orientation, k, k2, parts] of cases) {
      const sizes = { m: 9, n: 38, k };
      const short = { ...sizes, k: k2 };
      const [x, w] = operands(orientation, sizes, orientation === "TN" ? "f32" : "bf16");
      const [x2, w2] = operands(orientation, short);
      const r = operand([sizes.m, sizes.n], 3);
      const second = product(orientation, short, x2.values, w2.values);
      const expected = product(orientation, sizes, x.values, w.values)
        .map((v, i) => v + 3 * second[i]! + r.values[i]!);
      const shape = { orientation, ...sizes, k2, weight: w.dtype! } as const;
      const tile = candidates(shape, device).filter((v) => v.family === "tiled" && v.rows + v.columns === 64);
      const variant = tile.find((v) => v.family === "tiled" && v.panels === 2 && v.parts === parts)!;
      const { outputs } = await run(
        gpu,
        [x, w, x2, w2, r],
        (_, x, w, x2, w2, r) =>
          add(add(matmul(orientation, x!, w!), matmul(orientation, scale(x2!, 3), w2!)), r!),
        {},
        liking(device, shape, variant),
      );
      assertWithin(outputs[0]!, expected, 3 * tolerance(k), `${orientation} ${name(variant)}`);
    }
  },
);

hardwareTest("few rows with weights match f64, and forgotten lanes do not pass", async (gpu) => {
  const device = hardware(gpu);
  for (const [m, n, k, k2, dtype] of [[1, 70, 300, 8, "bf16"], [3, 70, 43, 5, "f32"]] as const) {
    const shape = { orientation: "NT", m, n, k, k2, weight: dtype } as const;
    const [x, w] = operands("NT", { m, n, k }, dtype);
    const [x2, w2] = operands("NT", { m, n, k: k2 });
    const r = operand([m, n], 3);
    const second = product("NT", { m, n, k: k2 }, x2.values, w2.values);
    const expected = product("NT", { m, n, k }, x.values, w.values)
      .map((v, i) => v + 3 * second[i]! + r.values[i]!);
    const { outputs } = await run(
      gpu,
      [x, w, x2, w2, r],
      (_, x, w, x2, w2, r) => add(add(matmul("NT", x!, w!), matmul("NT", scale(x2!, 3), w2!)), r!),
      {},
      liking(device, shape, candidates(shape, device)[0]!),
    );
    assertWithin(outputs[0]!, expected, 3 * tolerance(k), `${m} rows`);
  }

  const sizes = { m: 5, n: 30, k: 300 };
  const [x, w] = operands("NT", sizes);
  const expected = product("NT", sizes, x.values, w.values);
  const mistakes: Mistake[] = [
    ["reach > 0u", "reach > select(0u, 1u, WRONG)"],
    ["k < size.k;", "k < size.k - select(0u, 4u, WRONG);"],
  ];
  const off = async (mistake: number) => {
    const build = (_: unknown, x?: Tensor, w?: Tensor) => plantAny(matmul("NT", x!, w!), mistakes);
    return maxDifference(
      (await run(gpu, [x, w], build, { mistake }, device)).outputs[0]!,
      expected,
    );
  };
  assert(await off(0) < tolerance(sizes.k));
  for (const mistake of [1, 2]) assert(await off(mistake) > 0.1, `${mistake}`);
});

hardwareTest(
  "few rows, parts of a sum and products in f16 move the bytes that their plan says",
  async (gpu) => {
    const device = { ...hardware(gpu), shaderF16: true };
    const cases = [["NT", 3, 300, undefined], ["NN", 70, 1101, undefined], ["NT", 70, 100, "f16"]] as const;
    for (const [orientation, m, k, compute] of cases) {
      if (compute && !gpu.description.shaderF16) continue;
      const program = new Program();
      const graph = program.block("product");
      const w = graph.input("w", orientation === "NT" ? [52, k] : [k, 52], "f32");
      graph.output("y", matmul(orientation, graph.input("x", [m, k], "f32"), w, 1, compute));
      const counted = await countAccesses(gpu, plan(program, device), "product", () => {});
      const moved = counted.reduce((sum, { bytes }) => sum + bytes, 0);
      const said = counted.reduce((sum, { dispatch }) => sum + dispatch.traffic, 0);
      // Where a row's scale is read by all that need it, it is not counted: a share that becomes small as K grows.
      const most = compute ? 1.25 : 1;
      assert(
        moved >= said - 1 && moved <= most * said + 1,
        `${orientation} ${m}: ${moved} bytes, not ${said}`,
      );
    }
  },
);

hardwareTest("small matrices, written out, match f64 in every orientation, and in parts", async (gpu) => {
  if (gpu.description.subgroupSize !== 8) {
    console.log("skip: this device's subgroups do not have 8 lanes");
    return;
  }
  // Three sizes that differ, so that none can stand in for another.
  const matrices = [{ m: 16, n: 32, k: 8, componentType: "f32", resultComponentType: "f32" }];
  const device = { ...hardware(gpu), subgroupMatrices: matrices };
  for (const [orientation, k] of [["NT", 36], ["NN", 36], ["TN", 1100]] as const) {
    const sizes = { m: 70, n: 68, k };
    const shape = { orientation, ...sizes, k2: 0, weight: "f32" } as const;
    const [x, w] = operands(orientation, sizes);
    const variant = candidates(shape, device).find((v) => v.family === "subgroup-matrix")!;
    assertEquals("parts" in variant && variant.parts, k > 1024 ? 2 : 1);
    const { outputs } = await run(
      gpu,
      [x, w],
      (_, x, w) => {
        const y = matmul(orientation, x!, w!);
        const { op } = y.producer!;
        const lower: typeof op.lower = (context) =>
          op.lower({
            ...context,
            dispatch: (d) =>
              context.dispatch({ ...d, wgsl: /subgroupMatrix/.test(d.wgsl) ? writtenOut(d.wgsl) : d.wgsl }),
          });
        Object.assign(y.producer!, { op: { ...op, lower } });
        return y;
      },
      {},
      liking(device, shape, variant),
    );
    const expected = product(orientation, sizes, x.values, w.values);
    assertWithin(outputs[0]!, expected, tolerance(k), `${orientation} ${name(variant)}`);
  }
});

Deno.test("small matrices are for devices that say they have them, of the numbers that the product wants", () => {
  const shape = { orientation: "NN", m: 64, n: 64, k: 64, k2: 0, weight: "f32" } as const;
  const f16 = { m: 16, n: 16, k: 16, componentType: "f16", resultComponentType: "f32" };
  const f32 = { m: 8, n: 8, k: 8, componentType: "f32", resultComponentType: "f32" };
  const others = [{ ...f16, resultComponentType: "f16" }, { ...f32, m: 24 }, { ...f32, componentType: "i8" }];
  const names = (device: Partial<DeviceDescription>, compute?: "f16") =>
    candidates({ ...shape, ...(compute ? { compute } : {}) }, { ...DEFAULT_DEVICE, ...device })
      .map(name).filter((n) => n.startsWith("subgroup matrix"));
  const all = { subgroupMatrices: [f16, f32, ...others], subgroupSize: 32 };
  assertEquals(names(all), ["subgroup matrix 8x8x8 f32, 32 lanes"]);
  assertEquals(names(all, "f16"), ["subgroup matrix 16x16x16 f16, 32 lanes"]);
  assertEquals(names({ subgroupSize: 32 }), []);
  assertEquals(names({ ...all, subgroupSize: 0 }), []);
});

Deno.test("candidates keep to a device's limits, whatever they are", () => {
  let count = 0;
  for (const maxWorkgroupMemory of [16_384, 32_768]) {
    for (const maxInvocations of [128, 256]) {
      for (const subgroupSize of [0, 32, 64]) {
        const device = { ...DEFAULT_DEVICE, maxWorkgroupMemory, maxInvocations, subgroupSize };
        for (const orientation of ["NT", "NN", "TN"] as const) {
          for (const m of [3, 40, 2048]) {
            const [n, k] = [1000, 1500];
            const shape = { orientation, m, n, k, k2: 8, weight: "f32" } as const;
            for (const v of candidates(shape, device)) {
              const weight = { shape: orientation === "NT" ? [n, k] : [k, n], dtype: "f32" } as const;
              const text = productText(v, { ...shape, weight, outStride: n, depth: k });
              const threads = Number(/@workgroup_size\((\d+)\)/.exec(text)![1]);
              let bytes = 0;
              for (const [, type, size] of text.matchAll(/var<workgroup> \w+: array<(\S+), (\d+)>/g)) {
                bytes += Number(size) * (type === "f32" ? 4 : 16);
              }
              assert(bytes > 0 && bytes <= maxWorkgroupMemory, `${name(v)}: ${bytes} bytes`);
              assert(threads <= maxInvocations, `${name(v)}: ${threads} threads`);
              assertEquals(text.includes("subgroupBroadcast("), name(v).startsWith("subgroups"));
              count++;
            }
          }
        }
      }
    }
  }
  assert(count > 500);
});

Deno.test("where nothing was measured, tiles are as large as there are enough of them", () => {
  const first = (m: number, n: number, k: number, orientation: Orientation = "NT") =>
    name(candidates({ orientation, m, n, k, k2: 0, weight: "f32" }, DEFAULT_DEVICE)[0]!);
  assertEquals(first(1, 4864, 896), "few rows 64x8");
  assertEquals(first(2048, 4864, 896), "tiled 128x64 by 16, 8x4 each, one panel");
  assertEquals(first(2048, 896, 896), "tiled 64x64 by 16, 8x4 each");
  assertEquals(first(64, 64, 64), "tiled 32x32 by 16, 4x4 each");
  assertEquals(first(2048, 8, 896), "tiled 64x16 by 16, 4x4 each");
  assertEquals(first(8, 896, 2048, "TN"), "tiled 16x64 by 16, 4x4 each, in 4 parts");
  assertEquals(first(64, 896, 151_936, "NN"), "tiled 32x32 by 16, 4x4 each, in 3 parts");
});

Deno.test("the model of hardware puts large tiles first where there are many, and split ones where there are few", () => {
  const order = (shape: MatmulShape) =>
    candidates(shape, DEFAULT_DEVICE).toSorted((a, b) =>
      cost(shape, a, DEFAULT_DEVICE) - cost(shape, b, DEFAULT_DEVICE)
    );
  const large = order({ orientation: "NT", m: 2048, n: 4864, k: 896, k2: 8, weight: "bf16" });
  assert(/ (128x128|128x64|64x128) /.test(name(large[0]!)), name(large[0]!));
  const place = (wanted: string) => large.findIndex((v) => name(v).startsWith(`tiled ${wanted} `));
  assert(place("64x64") < place("32x32") && place("32x32") < place("16x64"));
  const deep = order({ orientation: "NN", m: 64, n: 896, k: 32_000, k2: 0, weight: "f32" });
  assert(/parts/.test(name(deep[0]!)), name(deep[0]!));
  assertEquals(
    order({ orientation: "NT", m: 1, n: 4864, k: 896, k2: 0, weight: "bf16" })[0]!.family,
    "few-rows",
  );
});

Deno.test("traffic is what tiles read, counted one by one", () => {
  const shape: MatmulShape = { orientation: "NN", m: 70, n: 130, k: 40, k2: 4, weight: "bf16" };
  for (const v of candidates(shape, { ...DEFAULT_DEVICE, subgroupSize: 32 })) {
    const [rows, columns] = tileOf(v, shape.m);
    let bytes = 0;
    for (let row = 0; row < shape.m; row += rows) {
      for (let column = 0; column < shape.n; column += columns) {
        const [m, n] = [Math.min(rows, shape.m - row), Math.min(columns, shape.n - column)];
        bytes += m * 4 * 44 + n * (40 * 2 + 4 * 4) + 4 * m * n;
      }
    }
    assertEquals(traffic(shape, v), bytes, name(v));
  }
  const few: MatmulShape = { ...shape, orientation: "NT", m: 3 };
  const v = candidates(few, DEFAULT_DEVICE)[0]!;
  // Rows are read for four columns at a time, by whole workgroups of eight.
  assertEquals(traffic(few, v), 34 * 3 * 4 * 44 + 130 * (40 * 2 + 4 * 4) + 4 * 3 * 130, name(v));
  const split = candidates({ ...shape, k: 2048 }, DEFAULT_DEVICE).find((v) =>
    v.family === "tiled" && v.parts > 1
  );
  const whole = { ...split!, parts: 1 } as MatmulVariant;
  const parts = (split as TiledVariant).parts;
  assertEquals(
    traffic({ ...shape, k: 2048 }, split!) - traffic({ ...shape, k: 2048 }, whole),
    70 * 130 * 4 * 2 * parts,
    "each part is written and read once",
  );
});
