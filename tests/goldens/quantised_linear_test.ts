/** A linear layer over quantised weights with LoRA beside it, and its gradients, against an independent implementation in f64. */
import type { KernelFamily } from "../../src/gpu/description.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { assertWithin, FAMILIES, run, testGpu, type Value } from "../tensor/harness.ts";
import { ggufValue, nf4DoubleValue, nf4Value, type QuantisedValue } from "../tensor/quantised.ts";
import { type GoldenArray, goldenArrays } from "./arrays.ts";
import { sharedPath, sharedTest } from "../shared.ts";

const FOLDER = "goldens/quantised/";

interface Layer {
  readonly name: string;
  readonly out: number;
  readonly in: number;
  readonly r: number;
  readonly tokens: number;
  readonly scaling: number;
  readonly formats: readonly ("nf4" | "nf4_dq" | "q8_0" | "q4_0")[];
  readonly absmax: Readonly<Record<string, number>>;
}

/** The weight of a layer as the files store it. */
function storedWeight(
  format: Layer["formats"][number],
  shape: readonly number[],
  of: (part: string) => GoldenArray,
): QuantisedValue {
  const bytes = (part: string) => of(part) as Uint8Array<ArrayBuffer>;
  const floats = (part: string) => of(part) as Float32Array<ArrayBuffer>;
  switch (format) {
    case "nf4":
      return nf4Value(shape, { packed: bytes("nf4.packed"), magnitudes: floats("nf4.absmax") });
    case "nf4_dq":
      return nf4DoubleValue(shape, bytes("nf4.packed"), {
        codes: bytes("nf4_dq.absmax_codes"),
        factors: floats("nf4_dq.absmax2"),
        offset: of("nf4_dq.offset")[0]!,
      });
    default:
      return ggufValue(format, shape, bytes(`${format}.raw`));
  }
}

/**
 * What of a layer is computed: with one kernel family each format at two sizes, with the other each once and the odd sizes once. Its kernels
 * are texts of their own for every size, and are held to f64 in tests/tensor.
 */
function computed({ name, formats }: Layer, family: KernelFamily): Layer["formats"] {
  if (name === "a") return formats;
  const subgroup = family === "subgroup8";
  if (name === "b") return formats.filter((format) => subgroup || format === "nf4_dq");
  return formats.filter((format) => subgroup && !format.startsWith("nf4"));
}

for (const family of FAMILIES) {
  sharedTest(`y, dx, dA and dB of quantised layers are those of the reference [${family}]`, async () => {
    const gpu = await testGpu(family);
    const layers: Record<string, Layer> = JSON.parse(
      await Deno.readTextFile(sharedPath(`${FOLDER}linear.json`)),
    );
    const golden = await goldenArrays(`${FOLDER}linear.safetensors`);
    for (const layer of Object.values(layers)) {
      const of = (part: string) => golden.get(`${layer.name}.${part}`)!;
      const value = (part: string, shape: number[]): Value => ({ shape, data: of(part) as Float32Array });
      const inputs = [
        value("x", [layer.tokens, layer.in]),
        value("A", [layer.r, layer.in]),
        value("B", [layer.out, layer.r]),
        value("G", [layer.tokens, layer.out]),
      ];
      for (const format of computed(layer, family)) {
        const weight = storedWeight(format, [layer.out, layer.in], of);
        const { outputs } = await run(gpu, [weight, ...inputs], (g, w, x, a, b, dy) => {
          const y = add(linear(x!, w!), scale(linear(linear(x!, a!), b!), layer.scaling));
          return [y, ...gradients(g, [[y, dy!]], [x!, a!, b!]) as Tensor[]];
        });
        ["y", "dx", "dA", "dB"].forEach((what, i) => {
          const key = `${format}.${what}`;
          assertWithin(outputs[i]!, of(key), 5e-6 * layer.absmax[key]!, `${layer.name} ${key}`);
        });
      }
    }
  });
}
