/**
 * A decoder of the Llama family with LoRA on its linear layers, and one step of distilling into it, in f64: plain loops with a tape, for
 * tests at sizes that no golden file holds. Equations: arXiv 2302.13971 (decoder), 2106.09685 (LoRA), 1711.05101 (AdamW).
 *
 * @module
 */
import type { DecoderConfig } from "../../src/models/config.ts";
import type { PackedBatch } from "../../src/text/packing.ts";

/** [rows, columns] with the gradient of the loss. */
interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
  readonly gradient: Float64Array;
}

function matrix(rows: number, columns: number, data?: Float64Array): Matrix {
  const size = rows * columns;
  return { rows, columns, data: data ?? new Float64Array(size), gradient: new Float64Array(size) };
}

/** A weight [out, in] that is not trained. */
type Frozen = ArrayLike<number>;

/** The backward passes of what was computed, to be run from the last to the first. */
class Tape {
  readonly #steps: (() => void)[] = [];

  back(): void {
    for (const step of this.#steps.reverse()) step();
  }

  /** y = factor * x W^T. */
  linear(x: Matrix, w: Frozen | Matrix, out: number, factor = 1): Matrix {
    const [y, depth] = [matrix(x.rows, out), x.columns];
    const values = "data" in w ? w.data : w;
    // Four rows of x at a time, as a single sum waits for itself.
    for (let t = 0; t < x.rows; t += 4) {
      const some = Math.min(4, x.rows - t);
      // What is beyond the last row is that row again.
      const [a, b, c, d] = [0, 1, 2, 3].map((i) => (t + Math.min(i, some - 1)) * depth) as [
        ...[number, number, number, number],
      ];
      for (let n = 0; n < out; n++) {
        let [sa, sb, sc, sd] = [0, 0, 0, 0];
        for (let k = 0, at = n * depth; k < depth; k++, at++) {
          const w = values[at]!;
          sa += x.data[a + k]! * w;
          sb += x.data[b + k]! * w;
          sc += x.data[c + k]! * w;
          sd += x.data[d + k]! * w;
        }
        const sums = [sa, sb, sc, sd];
        for (let i = 0; i < some; i++) y.data[(t + i) * out + n] = factor * sums[i]!;
      }
    }
    this.#steps.push(() => {
      for (let t = 0; t < x.rows; t++) {
        for (let n = 0; n < out; n++) {
          const above = factor * y.gradient[t * out + n]!;
          if (above === 0) continue;
          for (let k = 0; k < depth; k++) x.gradient[t * depth + k]! += above * values[n * depth + k]!;
          if (!("data" in w)) continue;
          for (let k = 0; k < depth; k++) w.gradient[n * depth + k]! += above * x.data[t * depth + k]!;
        }
      }
    });
    return y;
  }

  /** Elementwise, with the slopes by each operand. */
  map(
    operands: readonly Matrix[],
    f: (...v: number[]) => readonly [value: number, ...slopes: number[]],
  ): Matrix {
    const y = matrix(operands[0]!.rows, operands[0]!.columns);
    const at = (i: number) => f(...operands.map((m) => m.data[i]!));
    y.data.forEach((_, i) => y.data[i] = at(i)[0]);
    this.#steps.push(() =>
      y.gradient.forEach((above, i) => {
        const [, ...slopes] = at(i);
        operands.forEach((m, o) => m.gradient[i]! += above * slopes[o]!);
      })
    );
    return y;
  }

  add(a: Matrix, b: Matrix): Matrix {
    return this.map([a, b], (a, b) => [a! + b!, 1, 1]);
  }

  rmsNorm(x: Matrix, w: Frozen, epsilon: number): Matrix {
    const [y, width] = [matrix(x.rows, x.columns), x.columns];
    for (let t = 0; t < x.rows; t++) {
      const row = x.data.subarray(t * width, (t + 1) * width);
      const scale = (row.reduce((s, v) => s + v * v, 0) / width + epsilon) ** -0.5;
      row.forEach((v, h) => y.data[t * width + h] = w[h]! * v * scale);
      this.#steps.push(() => {
        let along = 0;
        row.forEach((v, h) => along += y.gradient[t * width + h]! * w[h]! * v);
        row.forEach((v, h) =>
          x.gradient[t * width + h]! += scale * y.gradient[t * width + h]! * w[h]! -
            scale ** 3 * along / width * v
        );
      });
    }
    return y;
  }

  /** Rotates pairs (i, i + headDim / 2) by the position times the inverse frequency. */
  rope(x: Matrix, positions: Int32Array, { headDim, inverseFrequencies }: DecoderConfig): Matrix {
    const [y, half] = [matrix(x.rows, x.columns), headDim / 2];
    const turn = (from: Float64Array, to: Float64Array, sign: number) => {
      for (let i = 0; i < from.length; i++) {
        const [t, d] = [Math.floor(i / x.columns), i % headDim];
        const angle = sign * positions[t]! * inverseFrequencies[d % half]!;
        const other = d < half ? -from[i + half]! : from[i - half]!;
        to[i]! += from[i]! * Math.cos(angle) + other * Math.sin(angle);
      }
    };
    turn(x.data, y.data, 1);
    this.#steps.push(() => turn(y.gradient, x.gradient, -1));
    return y;
  }

  /** Attention of each query over the keys of its range; as many heads of keys as of queries. */
  attention(q: Matrix, k: Matrix, v: Matrix, batch: PackedBatch, headDim: number): Matrix {
    const [y, width, scale] = [matrix(q.rows, q.columns), q.columns, headDim ** -0.5];
    const dot = (a: Float64Array, i: number, b: Float64Array, j: number) => {
      let sum = 0;
      for (let d = 0; d < headDim; d++) sum += a[i + d]! * b[j + d]!;
      return sum;
    };
    for (let i = 0; i < q.data.length; i += headDim) {
      const [t, head] = [Math.floor(i / width), i % width];
      const keys: number[] = [];
      for (let j = batch.kvStart[t]!; j < batch.kvEnd[t]!; j++) keys.push(j * width + head);
      const weights = softmax(keys.map((j) => scale * dot(q.data, i, k.data, j)));
      keys.forEach((j, n) => {
        for (let d = 0; d < headDim; d++) y.data[i + d]! += weights[n]! * v.data[j + d]!;
      });
      this.#steps.push(() => {
        const mean = dot(y.gradient, i, y.data, i);
        keys.forEach((j, n) => {
          const slope = scale * weights[n]! * (dot(y.gradient, i, v.data, j) - mean);
          for (let d = 0; d < headDim; d++) {
            q.gradient[i + d]! += slope * k.data[j + d]!;
            k.gradient[j + d]! += slope * q.data[i + d]!;
            v.gradient[j + d]! += weights[n]! * y.gradient[i + d]!;
          }
        });
      });
    }
    return y;
  }
}

function softmax(z: ArrayLike<number>): Float64Array {
  let [top, sum] = [-Infinity, 0];
  for (let i = 0; i < z.length; i++) top = Math.max(top, z[i]!);
  const e = Float64Array.from(z, (v) => Math.exp(v - top));
  for (const v of e) sum += v;
  return e.map((v) => v / sum);
}

/** A model's weights by their names, and the LoRA parameters that it trains, if any. */
export interface ReferenceModel {
  readonly config: DecoderConfig;
  readonly weights: ReadonlyMap<string, Frozen>;
  readonly lora?: { readonly scale: number; readonly parameters: ReadonlyMap<string, Float64Array> };
}

/** Logits of a batch, and the parameters of the model with room for their gradients. */
function forward({ config, weights, lora }: ReferenceModel, batch: PackedBatch, tape: Tape) {
  const { hiddenSize, headDim, attentionHeads, intermediateSize, vocabularySize, normEpsilon } = config;
  const trained = new Map<string, Matrix>();
  const linear = (name: string, x: Matrix, out: number): Matrix => {
    const y = tape.linear(x, weights.get(`${name}.weight`)!, out);
    const [a, b] = ["A", "B"].map((side) => lora?.parameters.get(`${name}.lora_${side}.weight`));
    if (!lora || !a || !b) return y;
    const rank = a.length / x.columns;
    const [ma, mb] = [matrix(rank, x.columns, a), matrix(out, rank, b)];
    trained.set(`${name}.lora_A.weight`, ma).set(`${name}.lora_B.weight`, mb);
    return tape.add(y, tape.linear(tape.linear(x, ma, rank), mb, out, lora.scale));
  };
  const norm = (name: string, x: Matrix) => tape.rmsNorm(x, weights.get(`${name}.weight`)!, normEpsilon);
  const embeddings = weights.get("model.embed_tokens.weight")!;
  let x = matrix(batch.tokens.length, hiddenSize);
  x.data.forEach((_, i) =>
    x.data[i] = embeddings[batch.tokens[Math.floor(i / hiddenSize)]! * hiddenSize + i % hiddenSize]!
  );
  for (let i = 0; i < config.layers; i++) {
    const at = `model.layers.${i}`;
    const h = norm(`${at}.input_layernorm`, x);
    const [q, k, v] = ["q", "k", "v"].map((p) =>
      linear(`${at}.self_attn.${p}_proj`, h, attentionHeads * headDim)
    );
    const rotated = [q!, k!].map((m) => tape.rope(m, batch.position, config));
    const attended = tape.attention(rotated[0]!, rotated[1]!, v!, batch, headDim);
    x = tape.add(x, linear(`${at}.self_attn.o_proj`, attended, hiddenSize));
    const m = norm(`${at}.post_attention_layernorm`, x);
    const [gate, up] = ["gate", "up"].map((p) => linear(`${at}.mlp.${p}_proj`, m, intermediateSize));
    const gated = tape.map([gate!, up!], (g, u) => {
      const s = 1 / (1 + Math.exp(-g!));
      return [g! * s * u!, u! * s * (1 + g! * (1 - s)), g! * s];
    });
    x = tape.add(x, linear(`${at}.mlp.down_proj`, gated, hiddenSize));
  }
  return { logits: tape.linear(norm("model.norm", x), embeddings, vocabularySize), trained };
}

/** What a step gives. */
export interface ReferenceStep {
  readonly crossEntropy: number;
  readonly forwardKl: number;
  readonly gradients: ReadonlyMap<string, Float64Array>;
}

/** Mean over the supervised positions of half the cross-entropy and half KL(teacher || student), and its gradients. */
export function referenceStep(
  teacher: ReferenceModel,
  student: ReferenceModel,
  batch: PackedBatch,
): ReferenceStep {
  const target = forward(teacher, batch, new Tape()).logits;
  const tape = new Tape();
  const { logits, trained } = forward(student, batch, tape);
  let [crossEntropy, forwardKl] = [0, 0];
  const { columns } = logits;
  batch.label.forEach((label, t) => {
    if (label < 0) return;
    const p = softmax(target.data.subarray(t * columns, (t + 1) * columns));
    const q = softmax(logits.data.subarray(t * columns, (t + 1) * columns));
    crossEntropy -= Math.log(q[label]!) / batch.supervised;
    for (let v = 0; v < columns; v++) {
      if (p[v]! > 0) forwardKl += p[v]! * Math.log(p[v]! / q[v]!) / batch.supervised;
      logits.gradient[t * columns + v] = (q[v]! - 0.5 * p[v]! - 0.5 * Number(v === label)) / batch.supervised;
    }
  });
  tape.back();
  return { crossEntropy, forwardKl, gradients: new Map([...trained].map(([n, m]) => [n, m.gradient])) };
}

/** The AdamW optimiser over parameters by name, with its moments. */
export class ReferenceAdamw {
  readonly #moments = new Map<string, [Float64Array, Float64Array]>();
  #step = 0;

  /** Changes the parameters in place, after clipping all gradients to a norm of `clip`; returns the norm before. */
  update(
    parameters: ReadonlyMap<string, Float64Array>,
    gradients: ReadonlyMap<string, Float64Array>,
    { learningRate, weightDecay, clip, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 }: {
      learningRate: number;
      weightDecay: number;
      clip: number;
      beta1?: number;
      beta2?: number;
      epsilon?: number;
    },
  ): number {
    const norm = Math.sqrt([...gradients.values()].reduce((s, g) => g.reduce((s, v) => s + v * v, s), 0));
    const factor = Math.min(1, clip / (norm + 1e-6));
    this.#step++;
    for (const [name, p] of parameters) {
      if (!this.#moments.has(name)) {
        this.#moments.set(name, [new Float64Array(p.length), new Float64Array(p.length)]);
      }
      const [m, v] = this.#moments.get(name)!;
      gradients.get(name)!.forEach((raw, i) => {
        const g = raw * factor;
        m[i] = beta1 * m[i]! + (1 - beta1) * g;
        v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
        const step = m[i]! / (1 - beta1 ** this.#step) /
          (Math.sqrt(v[i]! / (1 - beta2 ** this.#step)) + epsilon);
        p[i] = p[i]! * (1 - learningRate * weightDecay) - learningRate * step;
      });
    }
    return norm;
  }
}
