/**
 * MiSS: y = W x + M^T z, where z [r] is the sum of the blocks of r neighbours of x and M [r, out] begins at zero (Kang and Yin,
 * arXiv 2409.15371, the efficient form). The last block is filled up with zeros where r does not divide the width of x.
 *
 * @module
 */
import { z } from "zod";
import { CONTRACT_VERSION, defineAdapter } from "../../src/registry/contract.ts";
import { add, matmul, rows } from "../../src/registry/tensor_ops.ts";
import { transpose } from "./low_rank.ts";

/** T [in, r] with T[i, i mod r] = 1: z = x T. */
function tiles(inFeatures: number, rank: number): Float32Array {
  return Float32Array.from(
    { length: inFeatures * rank },
    (_, k) => Number(Math.floor(k / rank) % rank === k % rank),
  );
}

export default defineAdapter({
  id: "miss",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "one matrix a layer, applied to the sum of the input's blocks",
  source: "Kang and Yin, arXiv 2409.15371",
  options: z.strictObject({}),
  settings: ["dropout"],
  suffixes: ["miss_block", "miss_tiles"],
  parameters: ({ rank, outFeatures }) => [
    {
      name: "M",
      suffix: "miss_block",
      shape: [rank, outFeatures],
      initialisation: { kind: "constant", value: 0 },
    },
  ],
  // Rows of T repeat, so the first rows of a longer T are a shorter one: one serves all layers of a rank.
  shared: (layers) => {
    const inFeatures = Math.max(...layers.map((l) => l.inFeatures));
    return [...new Set(layers.map((l) => l.rank))].map((rank) => ({
      name: `tiles ${rank}`,
      suffix: `miss_tiles.${rank}`,
      shape: [inFeatures, rank],
      initialisation: { kind: "given", values: () => tiles(inFeatures, rank) } as const,
      trainable: false,
    }));
  },
  forward: ({ x, base, parameter, shared, dropout, layer }) => {
    const sums = matmul("NN", dropout(x), rows(shared(`tiles ${layer.rank}`), 0, layer.inFeatures));
    return add(base(), matmul("NN", sums, parameter("M")));
  },
  merge: (weight, { parameter, layer: { rank, inFeatures, outFeatures } }) => {
    const m = parameter("M");
    return weight.map((value, k) => {
      const [o, i] = [Math.floor(k / inFeatures), k % inFeatures];
      return value + m[(i % rank) * outFeatures + o]!;
    });
  },
  peft: ({ rank, dropout }) => ({
    peftType: "MISS",
    config: {
      r: rank,
      bias: "none",
      exclude_modules: null,
      miss_dropout: dropout,
      mini_r: 1,
      init_weights: true,
    },
  }),
  plainLora: ({ parameter, layer: { rank, inFeatures, outFeatures } }) => ({
    rank,
    scale: 1,
    a: transpose(tiles(inFeatures, rank), inFeatures, rank),
    b: transpose(parameter("M"), rank, outFeatures),
  }),
});
