/**
 * What a description says, computed in f64 with plain loops: logits of one sequence, for families and sizes that no golden file holds.
 *
 * @module
 */
import type {
  AttentionDescription,
  DescribedConfig,
  LayerDescription,
  MlpDescription,
  NormDescription,
} from "../../src/models/decoder/description.ts";
import type { FamilyNames } from "../../src/models/family.ts";

/** A tensor by its Hugging Face name. */
export type Weights = (name: string) => ArrayLike<number>;

/** Rows of numbers. */
type Rows = Float64Array[];

const ACTIVATIONS: Readonly<Record<string, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => x * (1 + errorFunction(x / Math.SQRT2)) / 2,
  gelu_tanh: (x) => x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))) / 2,
};

/** The series of erf, which converges everywhere (Abramowitz and Stegun 7.1.5); exact enough below 6. */
function errorFunction(x: number): number {
  let [term, sum] = [x, x];
  for (let n = 1; n < 200; n++) {
    term *= -x * x / n;
    sum += term / (2 * n + 1);
  }
  return Math.abs(x) > 5 ? Math.sign(x) : 2 / Math.sqrt(Math.PI) * sum;
}

/** Logits [T, V] of a sequence. */
export function referenceLogits(
  config: DescribedConfig,
  names: FamilyNames,
  weights: Weights,
  tokens: readonly number[],
): Rows {
  const { hiddenSize, vocabularySize, description } = config;
  const row = (name: string, i: number) =>
    Float64Array.from({ length: hiddenSize }, (_, h) => weights(name)[i * hiddenSize + h]!);
  let x: Rows = tokens.map((token, t) => {
    const embedded = row(names.embedding, token).map((v) => v * (description.embeddingScale ?? 1));
    const learned = description.positions && row(description.positions.name, t);
    return learned ? embedded.map((v, h) => v + learned[h]!) : embedded;
  });
  description.layers.forEach((layer, i) => x = layerOf(config, layer, `${names.layers}.${i}`, weights, x));
  const hidden = normed(description.finalNorm, "", weights, x);
  const head = weights(config.tiedHead ? names.embedding : `${names.head}.weight`);
  const cap = description.logitSoftCap;
  return product(hidden, head, vocabularySize).map((logits) =>
    logits.map((z) => z * (description.logitScale ?? 1)).map((z) => cap ? cap * Math.tanh(z / cap) : z)
  );
}

function layerOf(
  config: DescribedConfig,
  { attention, mlp, norms, residualScale = 1, parallel }: LayerDescription,
  at: string,
  weights: Weights,
  x: Rows,
): Rows {
  const norm = (description: NormDescription | undefined, x: Rows) =>
    description ? normed(description, `${at}.`, weights, x) : x;
  const plus = (x: Rows, y: Rows) => x.map((row, t) => row.map((v, h) => v + residualScale * y[t]![h]!));
  const attended = attend(config, attention, at, weights, norm(norms.beforeAttention, x));
  const after = plus(x, norm(norms.afterAttention, attended));
  const made = feedForward(config, mlp, at, weights, norm(norms.beforeMlp, parallel ? x : after));
  return plus(after, norm(norms.afterMlp, made));
}

function normed({ kind, name, epsilon }: NormDescription, before: string, weights: Weights, x: Rows): Rows {
  const weight = weights(`${before}${name}.weight`);
  return x.map((row) => {
    const mean = kind === "layer" ? row.reduce((a, b) => a + b, 0) / row.length : 0;
    const square = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / row.length;
    const bias = kind === "layer" ? weights(`${before}${name}.bias`) : undefined;
    return row.map((v, h) =>
      (v - mean) / Math.sqrt(square + epsilon) * (weight[h]! + Number(kind === "rms + 1")) + (bias?.[h] ?? 0)
    );
  });
}

function product(x: Rows, weight: ArrayLike<number>, out: number): Rows {
  return x.map((row) =>
    Float64Array.from(
      { length: out },
      (_, n) => row.reduce((sum, v, k) => sum + v * weight[n * row.length + k]!, 0),
    )
  );
}

function linear(
  { name, bias }: { name: string; bias: boolean },
  at: string,
  weights: Weights,
  x: Rows,
  out: number,
): Rows {
  const y = product(x, weights(`${at}.${name}.weight`), out);
  return bias ? y.map((row) => row.map((v, n) => v + weights(`${at}.${name}.bias`)[n]!)) : y;
}

/** Heads of a row: [T, heads, headDim]. */
function headsOf(x: Rows, headDim: number): Float64Array[][] {
  return x.map((row) =>
    Array.from({ length: row.length / headDim }, (_, h) => row.slice(h * headDim, (h + 1) * headDim))
  );
}

function attend(
  { attentionHeads, keyValueHeads, headDim, hiddenSize }: DescribedConfig,
  described: AttentionDescription,
  at: string,
  weights: Weights,
  x: Rows,
): Rows {
  const { projections, window = Infinity, softCap, scale } = described;
  const [qWidth, kWidth] = [attentionHeads * headDim, keyValueHeads * headDim];
  let [q, k, v]: Rows[] = [];
  if ("fused" in projections) {
    const all = linear(projections.fused, at, weights, x, qWidth + 2 * kWidth);
    const heads = headsOf(all, headDim);
    const take = (part: number) => (row: Float64Array[]) =>
      Float64Array.from(row.filter((_, h) => h % 3 === part).flatMap((head) => [...head]));
    [q, k, v] = projections.order === "heads"
      ? [0, 1, 2].map((part) => heads.map(take(part)))
      : [[0, qWidth], [qWidth, qWidth + kWidth], [qWidth + kWidth, qWidth + 2 * kWidth]].map(([from, to]) =>
        all.map((row) => row.slice(from, to))
      );
  } else {
    q = linear(projections.queries, at, weights, x, qWidth);
    k = linear(projections.keys, at, weights, x, kWidth);
    v = linear(projections.values, at, weights, x, kWidth);
  }
  const turned = (x: Rows, norm: NormDescription | undefined) => {
    const whole = norm && described.normsOver === "row" ? normed(norm, `${at}.`, weights, x) : x;
    return headsOf(whole, headDim).map((heads, t) => {
      const each = norm && described.normsOver === "head" ? normed(norm, `${at}.`, weights, heads) : heads;
      return each.map((head) => rotated(head, t, x.length, described));
    });
  };
  const [queries, keys, values] = [
    turned(q!, described.queryNorm),
    turned(k!, described.keyNorm),
    headsOf(v!, headDim),
  ];
  const attended = queries.map((heads, t) =>
    Float64Array.from(heads.flatMap((query, h) => {
      const own = Math.floor(h / (attentionHeads / keyValueHeads));
      const seen = keys.map((_, s) => s).filter((s) => s <= t && s > t - window);
      const scores = seen.map((s) => scale * query.reduce((sum, v, d) => sum + v * keys[s]![own]![d]!, 0))
        .map((score) => softCap ? softCap * Math.tanh(score / softCap) : score);
      const weight = softmax(scores);
      return Array.from(query, (_, d) =>
        seen.reduce((sum, s, n) => sum + weight[n]! * values[s]![own]![d]!, 0));
    }))
  );
  return linear(described.output, at, weights, attended, hiddenSize);
}

function softmax(z: readonly number[]): number[] {
  const top = Math.max(...z);
  const e = z.map((v) => Math.exp(v - top));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / sum);
}

function rotated(
  head: Float64Array,
  position: number,
  length: number,
  { rotary }: AttentionDescription,
): Float64Array {
  if (!rotary) return head;
  const { width, long, attentionScaling } = rotary.rotary;
  const { inverseFrequencies } = long && length > long.beyond ? long : rotary.rotary;
  const y = head.slice();
  for (let i = 0; i < width / 2; i++) {
    const angle = position * inverseFrequencies[i]!;
    const [cosine, sine] = [Math.cos(angle) * attentionScaling, Math.sin(angle) * attentionScaling];
    const [a, b] = [head[i]!, head[i + width / 2]!];
    [y[i], y[i + width / 2]] = [a * cosine - b * sine, b * cosine + a * sine];
  }
  return y;
}

function feedForward(
  { hiddenSize }: DescribedConfig,
  mlp: MlpDescription,
  at: string,
  weights: Weights,
  x: Rows,
): Rows {
  const { width } = mlp;
  const activation = ACTIVATIONS[mlp.activation]!;
  const gated = (gate: Rows, up: Rows) => gate.map((row, t) => row.map((g, c) => activation(g) * up[t]![c]!));
  switch (mlp.kind) {
    case "gated": {
      const [gate, up] = [mlp.gate, mlp.up].map((layer) => linear(layer, at, weights, x, width));
      return linear(mlp.down, at, weights, gated(gate!, up!), hiddenSize);
    }
    case "fused": {
      const both = linear(mlp.gateUp, at, weights, x, 2 * width);
      const [gate, up] = [0, width].map((from) => both.map((row) => row.slice(from, from + width)));
      return linear(mlp.down, at, weights, gated(gate!, up!), hiddenSize);
    }
    case "plain":
      return linear(
        mlp.down,
        at,
        weights,
        linear(mlp.up, at, weights, x, width).map((row) => row.map(activation)),
        hiddenSize,
      );
    case "experts":
      return x.map((row) => {
        const share = softmax([...product([row], weights(`${at}.${mlp.router}.weight`), mlp.count)[0]!]);
        const chosen = share.map((_, e) => e).sort((a, b) => share[b]! - share[a]!).slice(0, mlp.perToken);
        const sum = mlp.normalised ? chosen.reduce((sum, e) => sum + share[e]!, 0) : 1;
        const y = new Float64Array(hiddenSize);
        for (const e of chosen) {
          const of = (name: string) => weights(`${at}.${mlp.experts}.${e}.${name}.weight`);
          const [gate, up] = [product([row], of(mlp.gate), width), product([row], of(mlp.up), width)];
          product(gated(gate, up), of(mlp.down), hiddenSize)[0]!.forEach((v, h) =>
            y[h]! += share[e]! / sum * v
          );
        }
        return y;
      });
  }
}
