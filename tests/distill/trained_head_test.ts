/** Gradients of what is trained of the head: its weight, or an adapter on it. */
// @ts-types="../../types/std_assert.d.ts"
import { assertGreater } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { chunkedLoss, type HeadInput, headTarget } from "../../src/distill/objective/chunked_loss.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import { initialScalars } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import { Registry } from "../../src/registry/registry.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { assertWithin, maxDifference, modelTest, randomArray, run } from "../tensor/harness.ts";

const [H, V, R, ROWS] = [20, 37, 3, 64];
const FACTOR = 0.5;

const OBJECTIVE = Objective.of(new Registry().addAll(builtins), [
  { loss: "cross-entropy", weight: 0.7, temperature: 1, options: {} },
  { loss: "forward-kl", weight: 0.5, temperature: 2, options: {} },
], V);

/** Row-major matrices in f64. */
type Matrix = { readonly rows: number; readonly columns: number; readonly data: ArrayLike<number> };

function matrix(rows: number, columns: number, seed: number): Matrix & { readonly data: Float32Array } {
  return { rows, columns, data: randomArray(rows * columns, seed) };
}

/** a b, with either transposed first. */
function product(a: Matrix, b: Matrix, { ta = false, tb = false } = {}): Matrix & { data: Float64Array } {
  const at = (m: Matrix, t: boolean, i: number, j: number) =>
    t ? m.data[j * m.columns + i]! : m.data[i * m.columns + j]!;
  const [rows, inner, columns] = [
    ta ? a.columns : a.rows,
    ta ? a.rows : a.columns,
    tb ? b.rows : b.columns,
  ];
  const data = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let k = 0; k < inner; k++) data[i * columns + j]! += at(a, ta, i, k) * at(b, tb, k, j);
    }
  }
  return { rows, columns, data };
}

function sum(a: Matrix, b: Matrix, factor: number): Matrix & { data: Float64Array } {
  return { ...a, data: Float64Array.from(a.data, (v, i) => v + factor * b.data[i]!) };
}

/** The numbers of one test: T rows of two models, gradients from above. */
function numbers(T: number) {
  return {
    hidden: matrix(T, H, 1),
    weight: matrix(V, H, 2),
    target: matrix(T, H, 3),
    targetWeight: matrix(V, H, 4),
    above: randomArray(T, 5),
    labels: Int32Array.from({ length: T }, (_, t) => (t % 5 === 3 ? -100 : (t * 7) % V)),
    a: matrix(R, H, 6),
    b: matrix(V, R, 7),
  };
}

/** Gradients of sum_t above[t] loss[t] with respect to the learner's logits, in f64. */
function logitGradients(n: ReturnType<typeof numbers>, logits: Matrix, scaled: boolean): Matrix {
  const targets = product(n.target, n.targetWeight, { tb: true });
  const row = (m: Matrix & { data: Float64Array }, t: number) => m.data.subarray(t * V, (t + 1) * V);
  const data = new Float64Array(logits.rows * V);
  for (let t = 0; t < logits.rows; t++) {
    const { gradient } = referenceRow(
      OBJECTIVE.passes[0]!.terms,
      row(logits as Matrix & { data: Float64Array }, t),
      row(targets, t),
      n.labels[t]!,
    );
    gradient.forEach((g, v) => data[t * V + v] = g * (scaled ? n.above[t]! : 1));
  }
  return { ...logits, data };
}

interface Found {
  readonly hidden: Float32Array;
  readonly trained: readonly Float32Array[];
}

/**
 * Traces the head as training does, with the gradients of what is trained added up in states that hold NaN before.
 *
 * @param side What is trained of tensors that stand for weight, A and B
 * @param shares What each of several passes gets of the gradients from above
 */
async function trace(
  gpu: Parameters<Parameters<typeof modelTest>[1]>[0],
  n: ReturnType<typeof numbers>,
  side: (w: Tensor, a: Tensor, b: Tensor) => { adapted?: HeadInput["adapted"]; tensors: readonly Tensor[] },
  shares: readonly number[] = [1],
): Promise<Found> {
  const T = n.hidden.rows;
  const value = ({ rows, columns, data }: Matrix) => ({
    shape: [rows, columns],
    data: data as Float32Array,
  });
  let states: Tensor[] = [];
  const { outputs } = await run(
    gpu,
    [
      ...[n.hidden, n.weight, n.target, n.targetWeight, n.a, n.b].map(value),
      { shape: [T], data: n.above },
      { shape: [T], dtype: "i32" as const, data: n.labels },
    ],
    (graph: Graph, x, w, tx, tw, a, b, above, labels) => {
      const { adapted, tensors } = side(w!, a!, b!);
      states = tensors.map((t, i) => graph.state(`gradient ${i}`, t.shape, "f32"));
      const begun = new Set<number>();
      const trained = tensors.map((tensor, i) => ({
        tensor,
        addGradient(gradient: Tensor) {
          accumulate(states[i]!, gradient, begun.has(i) ? 1 : graph.scalar("keep"));
          begun.add(i);
        },
      }));
      const losses = OBJECTIVE.rowLosses(OBJECTIVE.passes[0]!, graph);
      const learner = { hidden: x!, weight: w!, ...(adapted ? { adapted } : {}), trained };
      const target = { hidden: tx!, weight: tw! };
      const seeds = shares.map((share): [Tensor, Tensor] => [
        chunkedLoss(graph, {
          ...{
            learner,
            target: headTarget(target),
            labels: labels!,
            losses,
            chunkRows: ROWS,
            gradient: true,
          },
        }).weighted!,
        scale(above!, share),
      ]);
      const [hidden] = gradients(graph, seeds, [x!, ...tensors]);
      return [hidden!, ...states];
    },
    { keep: 0, ...Object.fromEntries(initialScalars(OBJECTIVE.passes[0]!.terms)) },
  );
  return { hidden: outputs[0]!, trained: outputs.slice(1) };
}

for (const chunks of [1, 3]) {
  modelTest(
    `a trained head gets its gradient, for any gradient from above, in ${chunks} chunks`,
    async (gpu) => {
      const n = numbers(chunks * ROWS);
      const found = await trace(gpu, n, (w) => ({ tensors: [w] }));
      const logits = product(n.hidden, n.weight, { tb: true });
      const d = logitGradients(n, logits, true);
      assertWithin(found.trained[0]!, product(d, n.hidden, { ta: true }).data, 5e-5, "weight");
      assertWithin(found.hidden, product(d, n.weight).data, 2e-5, "hidden states");
      // Without the factors from above it would be another one.
      const unscaled = product(logitGradients(n, logits, false), n.hidden, { ta: true }).data;
      assertGreater(maxDifference(found.trained[0]!, unscaled), 0.1);
    },
  );

  modelTest(`an adapter on the head gets its gradients in ${chunks} chunks`, async (gpu) => {
    const n = numbers(chunks * ROWS);
    const found = await trace(gpu, n, (w, a, b) => ({
      adapted: (x) => add(linear(x, w), scale(linear(linear(x, a), b), FACTOR)),
      tensors: [a, b],
    }));
    const inner = product(n.hidden, n.a, { tb: true });
    const logits = sum(
      product(n.hidden, n.weight, { tb: true }),
      product(inner, n.b, { tb: true }),
      FACTOR,
    );
    const d = logitGradients(n, logits, true);
    const half = (m: Matrix) => Array.from(m.data, (v) => FACTOR * v);
    const dInner = product(d, n.b);
    assertWithin(found.trained[0]!, half(product(dInner, n.hidden, { ta: true })), 1e-4, "A");
    assertWithin(found.trained[1]!, half(product(d, inner, { ta: true })), 1e-4, "B");
    assertWithin(found.hidden, sum(product(d, n.weight), product(dInner, n.a), FACTOR).data, 5e-5, "hidden");
    // The frozen part alone is not all.
    assertGreater(maxDifference(found.hidden, product(d, n.weight).data), 0.1);
  });
}
