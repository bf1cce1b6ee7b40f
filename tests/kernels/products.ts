/**
 * The WGSL of matrix products: every variant in every orientation, with the device's limits out of the way, and for one of each family what
 * sizes and storages make of its template.
 *
 * @module
 */
import { DEFAULT_DEVICE, type KernelText, type SubgroupMatrix } from "../../src/gpu/description.ts";
import { partSumsText, productText } from "../../src/tensor/ops/matmul/kernels.ts";
import { holdsPairs, type RotationText } from "../../src/tensor/ops/matmul/rotation.ts";
import type { MatmulVariant } from "../../src/tensor/ops/matmul/shapes.ts";
import { matmulVariants } from "../../src/tensor/ops/matmul/variants.ts";
import type { DType } from "../../src/tensor/weight_storage.ts";

const ORIENTATIONS = ["NT", "NN", "TN"] as const;

interface Product {
  readonly m?: number;
  readonly n?: number;
  readonly k?: number;
  readonly k2?: number;
  readonly weight?: DType;
  readonly depth?: number;
  readonly split?: boolean;
  readonly compute?: "f16";
  readonly together?: boolean;
  readonly rope?: RotationText;
}

function* variantsOf(orientation: typeof ORIENTATIONS[number], m: number): Generator<MatmulVariant> {
  const shape = { orientation, m, n: 1000, k: 4096, k2: 0, weight: "f32" } as const;
  const names = new Set<string>();
  for (const subgroupSize of [0, 32, 64]) {
    for (const v of matmulVariants.candidates(shape, { ...DEFAULT_DEVICE, subgroupSize })) {
      const alone = v.family === "tiled" ? { ...v, parts: 1 } : v;
      const name = matmulVariants.name(alone);
      if (!names.has(name)) yield alone;
      names.add(name);
    }
  }
}

/** Products of small matrices that devices are known to have. */
const MATRICES: readonly SubgroupMatrix[] = [
  { m: 8, n: 8, k: 8, componentType: "f32", resultComponentType: "f32" },
  { m: 8, n: 16, k: 16, componentType: "f16", resultComponentType: "f32" },
  { m: 16, n: 16, k: 16, componentType: "f16", resultComponentType: "f32" },
];

/** The one template that only Tint knows the language of. */
export function matrixTexts(): KernelText[] {
  return ORIENTATIONS.flatMap((orientation) =>
    (["f32", "f16"] as const).filter((type) => type === "f32" || orientation !== "TN").flatMap((type) => {
      const compute = type === "f16" ? { compute: type } : {};
      const [m, n, k, k2] = [132, 140, 2048, type === "f16" ? 0 : 8];
      const shape = { orientation, m, n, k, k2, weight: "bf16", ...compute } as const;
      const device = { ...DEFAULT_DEVICE, subgroupSize: 32, subgroupMatrices: MATRICES };
      return matmulVariants.candidates(shape, device).flatMap((v) =>
        v.family !== "subgroup-matrix"
          ? []
          : ([[true, k2], [false, k2], [false, 0]] as const).map(([split, k2]) => ({
            label: `matmul ${orientation} ${matmulVariants.name(v)}${split ? ", split" : ""}${
              k2 > 0 ? ", two products" : ""
            }`,
            family: "subgroup8" as const,
            wgsl: productText(v, {
              ...{ orientation, m, n, k, k2, outStride: n, depth: 1024, split, ...compute },
              weight: { shape: orientation === "NT" ? [n, k] : [k, n], dtype: "bf16" },
            }),
          }))
      );
    })
  );
}

/** Whole heads and parts of them, and a row of each storage that is added: not every pair of them. */
const ROTATIONS: readonly RotationText[] = [
  { rest: false },
  { rest: true, bias: { shape: [140], dtype: "f32" } },
  { rest: false, bias: { shape: [140], dtype: "f16" } },
  { rest: true, bias: { shape: [140], dtype: "bf16" } },
];

function labelOf({ rest, bias }: RotationText): string {
  return `, turned${rest ? " in part" : ""}${bias ? ` with ${bias.dtype}` : ""}`;
}

/** Texts that use subgroups count as those of the family that may. */
export function productTexts(): KernelText[] {
  const texts: KernelText[] = [];
  for (const orientation of ORIENTATIONS) {
    const add = (v: MatmulVariant, what: string, product: Product = {}) => {
      const { m = 132, n = 140, k = 44, k2 = 0, weight = "f32" } = product;
      const wgsl = productText(v, {
        ...{ orientation, m, n, k, k2, outStride: n, depth: product.depth ?? k },
        ...{ weight: { shape: orientation === "NT" ? [n, k] : [k, n], dtype: weight } },
        split: product.split ?? false,
        ...(product.compute ? { compute: product.compute } : {}),
        together: product.together ?? false,
        ...(product.rope ? { rope: product.rope } : {}),
      });
      const label = `matmul ${orientation} ${matmulVariants.name(v)}${what}`;
      texts.push({ label, family: wgsl.includes("subgroupBroadcast(") ? "subgroup8" : "tiled", wgsl });
    };
    const met = new Set<string>();
    for (const m of [132, 5]) {
      for (const v of variantsOf(orientation, m)) {
        if (m < 8 && v.family !== "few-rows") continue;
        const kind = v.family === "tiled" ? `tiled ${v.lanes}` : v.family;
        add(v, "", { m });
        if (met.has(kind)) continue;
        met.add(kind);
        add(v, ", two products", { m, k2: 8 });
        add(v, ", odd sizes", { m: 5, n: 139, k: 43, k2: 3, weight: "bf16" });
        add(v, ", deep", { m, k: 2048, k2: 8 });
        if (v.family === "tiled") add(v, ", split", { m, k: 2048, depth: 512, k2: 8, split: true });
        if (kind !== "few-rows") add(v, ", several together", { m, together: true });
        if (v.family === "tiled") {
          add(v, ", several together, split", { m, k: 2048, depth: 512, split: true, together: true });
        }
        if (orientation === "NT" && holdsPairs(v, false)) {
          ROTATIONS.forEach((rope, i) => add(v, labelOf(rope), { m, rope, k2: i % 3 === 0 ? 0 : 8 }));
          if (kind === "tiled 0") add(v, ", in f16, turned", { m, compute: "f16", rope: { rest: false } });
        }
        if (kind === "tiled 0" && orientation !== "TN") add(v, ", in f16", { m, compute: "f16" });
      }
    }
  }
  for (const rope of ROTATIONS) {
    texts.push({ label: `parts${labelOf(rope)}`, family: "tiled", wgsl: partSumsText(1, false, rope) });
  }
  for (const values of [1, 4] as const) {
    texts.push({
      label: `parts of several products, ${values}`,
      family: "tiled",
      wgsl: partSumsText(values, true),
    });
  }
  return texts;
}
