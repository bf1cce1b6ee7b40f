// @ts-types="../../types/std_assert.d.ts"
import { assertMatch, assertThrows } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { chunkedLoss, headTarget } from "../../src/distill/objective/chunked_loss.ts";
import { lossSums } from "../../src/distill/objective/loss_sums.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import { initialScalars } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import { Registry } from "../../src/registry/registry.ts";
import type { DeviceDescription } from "../../src/gpu/description.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { type Tensor } from "../../src/tensor/graph.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, randomArray, run, testGpu } from "../tensor/harness.ts";

const [T, H, V, ROWS] = [128, 20, 37, 64];

const TERMS = [
  { loss: "cross-entropy", weight: 0.7, temperature: 1, options: {} },
  { loss: "forward-kl", weight: 0.5, temperature: 2, options: {} },
  { loss: "reverse-kl", weight: 0.2, temperature: 1, options: {} },
];
const registry = new Registry().addAll(builtins);
const OBJECTIVE = Objective.of(registry, TERMS, V);
/** The same, each over tokens of its own. */
const MASKED = Objective.of(
  registry,
  TERMS.map((t, i) => (i === 0 ? t : { ...t, source: ["teacher", "student"][i - 1]! })),
  V,
);

/** A loss that needs memory of its own, which the bindings of a small adapter hold for a few rows only. */
const SORTED = Objective.of(
  registry,
  [TERMS[0]!, { loss: "universal-logit", weight: 0.5, temperature: 2, options: {} }],
  V,
);

const hidden = randomArray(T * H, 1);
const weight = randomArray(V * H, 2);
const targetHidden = randomArray(T * H, 3);
const targetWeight = randomArray(V * H, 4);
const above = randomArray(T, 5);
const labels = Int32Array.from({ length: T }, (_, t) => (t % 5 === 3 ? -100 : (t * 7) % V));
/** Every combination of the three masks, where there is a label. */
const masks = Int32Array.from({ length: T }, (_, t) => (labels[t] === -100 ? 0 : Math.floor(t / 5) % 8));

/** x W^T of row t in f64. */
function logits(x: Float32Array, w: Float32Array, t: number): Float64Array {
  return Float64Array.from({ length: V }, (_, v) => {
    let sum = 0;
    for (let h = 0; h < H; h++) sum += x[t * H + h]! * w[v * H + h]!;
    return sum;
  });
}

/** Row losses, their weighted sum, and the gradient of sum_t above[t] * weighted[t] with respect to the hidden states, in f64. */
function reference(objective: Objective) {
  const { terms } = objective.passes[0]!;
  const values: number[][] = terms.map(() => []);
  const weighted: number[] = [];
  const gradient = new Float64Array(T * H);
  for (let t = 0; t < T; t++) {
    const row = referenceRow(
      terms,
      logits(hidden, weight, t),
      logits(targetHidden, targetWeight, t),
      labels[t]!,
      objective === MASKED ? masks[t]! : undefined,
    );
    row.values.forEach((value, k) => values[k]!.push(value));
    weighted.push(row.values.reduce((sum, value, k) => sum + terms[k]!.weight * value, 0));
    row.gradient.forEach((g, v) => {
      for (let h = 0; h < H; h++) gradient[t * H + h]! += above[t]! * g * weight[v * H + h]!;
    });
  }
  return { values, weighted, gradient };
}

const CASES: readonly [string, Objective, Partial<DeviceDescription>?][] = [
  ["", OBJECTIVE],
  [", each loss over its own tokens", MASKED],
  [", a few rows at a time where losses need memory", SORTED, { maxBindingSize: 4 * T * H }],
];
for (const [what, objective, describe] of CASES) {
  gpuTest(
    `chunkedLoss() gives row losses, their weighted sum and its gradient for any gradient from above${what}`,
    async (shared, family) => {
      const gpu = describe ? await testGpu(family, describe) : shared;
      const count = objective.passes[0]!.terms.length;
      const f32 = (shape: number[], data: Float32Array) => ({ shape, data });
      const inputs = [
        f32([T, H], hidden),
        f32([V, H], weight),
        f32([T, H], targetHidden),
        f32([V, H], targetWeight),
        f32([T], above),
        { shape: [T], dtype: "i32" as const, data: labels },
        { shape: [T], dtype: "i32" as const, data: masks },
        { shape: [count], kind: "state" as const, data: new Float32Array(count).fill(NaN) },
      ];
      const { outputs } = await run(gpu, inputs, (graph, x, w, tx, tw, dy, label, mask, sums) => {
        const losses = objective.rowLosses(objective.passes[0]!, graph);
        const target = { hidden: tx!, weight: tw! };
        const { values, weighted } = chunkedLoss(graph, {
          learner: { hidden: x!, weight: w! },
          labels: label!,
          ...(losses.tokenMasks ? { masks: mask! } : {}),
          ...{ target: headTarget(target), losses, chunkRows: ROWS, gradient: true },
        });
        lossSums(values, sums!, graph.scalar("keep"));
        const [gradient] = gradients(graph, [[weighted!, dy!]], [x!]);
        return [values, weighted!, gradient!, sums!];
      }, { keep: 0, ...Object.fromEntries(initialScalars(objective.passes[0]!.terms)) });
      const [values, weighted, gradient, sums] = outputs;
      const expected = reference(objective);
      // Each chunk holds its rows loss by loss.
      const byChunk = [0, ROWS].flatMap((first) =>
        expected.values.flatMap((v) => v.slice(first, first + ROWS))
      );
      assertWithin(values!, byChunk, 2e-5, "row losses");
      assertWithin(weighted!, expected.weighted, 2e-5, "weighted row losses");
      assertWithin(gradient!, expected.gradient, 2e-5, "gradient");
      assertWithin(sums!, expected.values.map((v) => v.reduce((a, b) => a + b, 0)), 1e-3, "sums");
    },
  );
}

Deno.test("chunkedLoss() refuses chunks that do not divide the rows", () => {
  const program = new Program();
  const graph = program.block("head");
  const side = (name: string): { hidden: Tensor; weight: Tensor } => ({
    hidden: graph.input(`${name} hidden`, [T, H], "f32"),
    weight: graph.weight(`${name} head`, [V, H], "f32"),
  });
  const losses = OBJECTIVE.rowLosses(OBJECTIVE.passes[0]!, graph);
  const labels = graph.input("labels", [T], "i32");
  for (const rows of [48, 96]) {
    const error = assertThrows(() =>
      chunkedLoss(graph, {
        ...{
          learner: side("a"),
          target: headTarget(side("b")),
          labels,
          losses,
          chunkRows: rows,
          gradient: true,
        },
      })
    );
    assertMatch((error as Error).message, /chunks of \d+ rows must divide T and be a multiple of 64/);
  }
});
