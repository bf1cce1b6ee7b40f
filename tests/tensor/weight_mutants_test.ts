/** Mistakes that are planted by rule in what reads a weight in each storage, each of which has to be noticed. */
import type { Gpu } from "../../src/gpu/device.ts";
import { materialise } from "../../src/tensor/ops/materialise.ts";
import type { BlockDtype, DType } from "../../src/tensor/weight_storage.ts";
import { freeing, randomArray, testGpu, type Value } from "./harness.ts";
import { type Equivalent, type Hunt, Hunters, isWithin } from "./mutants.ts";
import { operand } from "./oracle.ts";
import { blockOf, nf4DoubleValue, quantisedValue } from "./quantised.ts";

/** Mistakes that change nothing that anybody could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [
  {
    mistake: /: at the edge: half: magnitude < 0x400u /,
    because: "the smallest number that is normal is the same as one that is not",
  },
  {
    mistake: /: (never|at the edge): main: index >= size.groups /,
    because: "what lies beyond the last workgroup lies beyond the last value",
  },
  {
    mistake: /: at the edge: boundary: #u \* i <= n /,
    because: "the middle is as far from one end as from the other",
  },
  {
    mistake: /: (first choice: dynamic: max\(size, #u\)|at the edge: dynamic: place < #) /,
    because: "zero is what it is, whatever is made of its sign and its power of ten",
  },
  {
    mistake:
      / (q4_k|q6_k|nf4|nf4-double): term dropped: (scale_of: part|weight: quarter|weight: place|weight: \(place \^ #u\)|magnitude_of: place) % #u in .*(shift = |<<|>>)/,
    because: "a word is shifted by the remainder of 32",
  },
];

type Weight = Value & { readonly values: Float32Array };

/** Weights of rows of so many values, which have all that a storage can hold. */
function weightsOf(dtype: DType, width: number): Weight[] {
  const shape = [43, width];
  if (dtype === "f16" || dtype === "bf16") return [operand(shape, 3, dtype, "weight")];
  const random = quantisedValue(dtype as BlockDtype, shape, 3);
  if (dtype !== "nf4-double") return [random];
  // Each code of a magnitude, and no offset to hide their last bits; codes of values from all to one.
  const rows = Math.ceil(64 * 256 / width) + 1;
  const blocks = Math.ceil(rows * width / 64);
  const codes = Uint8Array.from({ length: blocks }, (_, i) => i);
  const factors = Float32Array.from({ length: Math.ceil(blocks / 256) }, (_, i) => 2 ** i);
  const packed = Uint8Array.from(randomArray(rows * width / 2, 4), (r) => (r + 1) * 128);
  return [random, nf4DoubleValue([rows, width], packed, { codes, factors, offset: 0 })];
}

/** Rows whose values are read by fours, and, where their blocks may end within a row, one by one. */
function widthsOf(dtype: DType): number[] {
  const block = dtype === "f16" || dtype === "bf16" ? 1 : blockOf(dtype as BlockDtype);
  return block === 1 ? [172, 86] : [block === 32 ? 96 : block];
}

async function huntIn(hunters: Hunters, gpu: Gpu, dtype: DType, share?: Hunt["share"]): Promise<void> {
  for (const width of widthsOf(dtype)) {
    const weights = weightsOf(dtype, width);
    const groups = Math.max(...weights.map(({ values }) => values.length / (width % 4 === 0 ? 4 : 1) / 256));
    await hunters.hunt(`rows of ${width}`, {
      gpu,
      values: weights,
      ...(share ? { share } : {}),
      // The larger grid is folded.
      device: { ...gpu.description, maxWorkgroupsPerDimension: Math.ceil(Math.sqrt(groups)) },
      build: (_, plant, ...inputs) =>
        inputs.map((w) => {
          const made = materialise(w);
          plant(made);
          return made;
        }),
      // Of magnitudes that are quantised, a product and a sum may be one operation.
      isRight: (results) =>
        weights.every(({ values }, i) =>
          isWithin(results[i]!, values, dtype === "nf4-double" && i === 0 ? 2e-7 : 0)
        ),
    });
  }
}

/** Every storage where it is asked for; else one of each kind. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";
const STORAGES: readonly DType[] = ALL
  ? ["f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k", "nf4", "nf4-double"]
  : ["f16", "q4_0", "q6_k", "nf4"];

/** Of their mistakes one in so many. */
const SHARE = 4;

Deno.test({
  name: `a mistake in what reads ${ALL ? "any" : "some"} storage of weights is noticed, wherever it is`,
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    // The text is the same in both families.
    const gpu = await testGpu("tiled");
    const hunters = new Hunters(EQUIVALENT);
    await freeing(gpu, async () => {
      for (const [at, dtype] of STORAGES.entries()) {
        await huntIn(hunters, gpu, dtype, ALL ? undefined : { of: SHARE, at });
      }
    });
    hunters.end(ALL);
  },
});
