/**
 * Shape-gated LoRA: y = W x + s (sum_e g_e B_e) (sum_e g_e A_e) x with experts A_e, B_e in every layer and gates g that one router
 * computes from the shape of the network: which layers of the source it keeps and how wide they are (AmoebaLLM's shape-aware mixture of
 * LoRAs, Fu et al., arXiv 2411.10606). Factors are mixed separately, so the update holds products of different experts, and one shape is one
 * LoRA.
 *
 * The router is g = top-k softmax(W2 W1 v + e * softplus(W3 v)) with e ~ N(0, 1) and v = [mask of kept layers, one-hot of the width]: a
 * constant 1 where there is one width. Ours: noise while training alone (the authors' code draws it in evaluation too).
 *
 * @module
 */
import { z } from "zod";
import {
  type AdapterInputs,
  CONTRACT_VERSION,
  defineAdapter,
  logAddExp,
} from "../../src/registry/contract.ts";
import {
  add,
  linear,
  matmul,
  pointwise,
  reshape,
  scale,
  topKSoftmax,
} from "../../src/registry/tensor_ops.ts";
import { addLowRank, loraScale } from "./lora.ts";
import { product } from "./low_rank.ts";

const options = z.strictObject({
  experts: z.int().min(1).default(5).describe("LoRAs in each layer"),
  topK: z.int().min(1).default(2).describe("How many of them a shape mixes"),
  hidden: z.int().min(1).default(16).describe("Width of the router"),
  noise: z.boolean().default(true).describe("Noise on the router's logits while training"),
}).refine(({ experts, topK }) => topK <= experts, { path: ["topK"], message: "must be at most experts" });

type Options = z.output<typeof options>;

export default defineAdapter({
  id: "shape-gated-lora",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "a mixture of LoRAs whose gates depend on which layers the student keeps",
  source: "Fu et al., arXiv 2411.10606",
  options,
  settings: ["alpha", "dropout", "rslora", "loraPlusRatio"],
  suffixes: [
    "shape_gated_A.weight",
    "shape_gated_B.weight",
    "shape_router_1.weight",
    "shape_router_2.weight",
    "shape_router_noise.weight",
    "shape_router_shape",
  ],
  parameters: ({ rank, inFeatures, outFeatures }, _, { experts }) => [
    // The factors of an expert are a row, so that a product with the gates mixes them.
    {
      name: "A",
      suffix: "shape_gated_A.weight",
      shape: [experts, rank * inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
      group: "A",
    },
    {
      name: "B",
      suffix: "shape_gated_B.weight",
      shape: [experts, outFeatures * rank],
      initialisation: { kind: "constant", value: 0 },
      group: "B",
    },
  ],
  shared: (_layers, _settings, { experts, hidden, noise }, model) => {
    const { sourceLayers, keptLayers, widths = 1, width: own = 0 } = model;
    const width = sourceLayers + widths;
    const weight = (name: string, suffix: string, rows: number, columns: number) => ({
      name,
      suffix,
      shape: [rows, columns],
      // As PyTorch begins a linear layer.
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(columns) } as const,
    });
    return [
      weight("router 1", "shape_router_1.weight", hidden, width),
      weight("router 2", "shape_router_2.weight", experts, hidden),
      ...(noise ? [weight("router noise", "shape_router_noise.weight", experts, width)] : []),
      {
        name: "shape",
        suffix: "shape_router_shape",
        shape: [1, width],
        initialisation: {
          kind: "given",
          values: () =>
            Float32Array.from(
              { length: width },
              (_, i) => Number(i === sourceLayers + own || keptLayers.includes(i)),
            ),
        },
        trainable: false,
      },
    ];
  },
  groups: ({ loraPlusRatio }) => ({ B: { learningRateRatio: loraPlusRatio } }),
  forward: (inputs) => {
    const { x, base, parameter, dropout, layer, settings } = inputs;
    const { rank, inFeatures, outFeatures } = layer;
    const gates = inputs.once("gates", () => traceGates(inputs)); // [1, E]
    const a = reshape(matmul("NN", gates, parameter("A")), [rank, inFeatures]);
    const b = reshape(matmul("NN", gates, parameter("B")), [outFeatures, rank]);
    return add(base(), linear(scale(linear(dropout(x), a), loraScale(layer, settings)), b));
  },
  merge: (weight, { parameter, shared, layer, settings, options }) => {
    const { a, b } = mixed(parameter, shared, options);
    return addLowRank(weight, a, b, loraScale(layer, settings), layer);
  },
  plainLora: ({ parameter, shared, layer, settings, options }) => ({
    rank: layer.rank,
    scale: loraScale(layer, settings),
    ...mixed(parameter, shared, options),
  }),
});

function traceGates({ shared, noise, options }: AdapterInputs<Options>) {
  const shape = shared("shape");
  const logits = linear(linear(shape, shared("router 1")), shared("router 2"));
  if (!options.noise) return topKSoftmax(logits, options.topK);
  const deviation = pointwise([linear(shape, shared("router noise"))], (z) => logAddExp(z!, 0)); // softplus
  return topKSoftmax(noise(logits, deviation), options.topK);
}

/** The factors of the one LoRA that the experts are for this shape, without noise. */
function mixed(
  parameter: (name: string) => Float32Array,
  shared: (name: string) => Float32Array,
  { experts, topK, hidden }: Options,
) {
  const shape = shared("shape");
  const inner = product(shared("router 1"), shape, hidden, shape.length, 1);
  const gates = chooseAndNormalise(product(shared("router 2"), inner, experts, hidden, 1), topK);
  const mix = (factors: Float32Array) => product(gates, factors, 1, experts, factors.length / experts);
  return { a: mix(parameter("A")), b: mix(parameter("B")) };
}

/** What `topKSoftmax` gives for one row: of equal logits the first counts as the larger. */
function chooseAndNormalise(logits: Float32Array, topK: number): Float32Array {
  const order = Array.from(logits, (_, i) => i).sort((i, j) => logits[j]! - logits[i]! || i - j);
  const chosen = new Set(order.slice(0, topK));
  const terms = Array.from(logits, (v, i) => (chosen.has(i) ? Math.exp(v - logits[order[0]!]!) : 0));
  const sum = terms.reduce((a, b) => a + b);
  return Float32Array.from(terms, (term) => term / sum);
}
