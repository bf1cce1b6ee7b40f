/**
 * The step in TensorFlow.js on its WebGPU backend. There is no graph to compile; what it offers for speed is fused kernels
 * (softmax, matrix product), gradients of one's own (`customGrad`) and batching of dispatches, all used here.
 *
 * @module
 */
import * as tf from "npm:@tensorflow/tfjs@4.22.0";
import "npm:@tensorflow/tfjs-backend-webgpu@4.22.0";
import type { DecoderConfig } from "../../src/models/config.ts";
import { SETTINGS, type StepCase } from "./case.ts";
import type { AdapterValues, Peer } from "./peer.ts";
import { loadModel, rotaryAngles } from "./weights.ts";

const HEAD = "model.embed_tokens.weight";

/** Constant inputs: rotary tables [B T, 1, 1 or 2, headDim / 2], the causal mask [G T, T], and the loss's. */
type Inputs = {
  tokens: tf.Tensor1D;
  /** 0.5 onehot(label), or zero where not supervised, [B T, V]. */
  halfOneHot: tf.Tensor2D;
  /** 1 / N where supervised, [B T, 1]. */
  weight: tf.Tensor2D;
  cos: tf.Tensor;
  sin: tf.Tensor;
  mask: tf.Tensor;
};

/** Name of a linear layer's second copy, [in, out]. */
const transposed = (name: string) => `${name} transposed`;

// The matrix product's kernel is several times slower when it transposes its second operand than on one laid out as it reads it:
// frozen weights are therefore kept both ways, and small operands are transposed by a kernel of their own.

/** x W^T for a weight W [out, in] that gets no gradient, with its transpose [in, out]. */
function frozenProduct(x: tf.Tensor2D, weight: tf.Tensor, weightTransposed: tf.Tensor): tf.Tensor2D {
  return tf.customGrad((x) => ({
    value: tf.matMul(x as tf.Tensor2D, weightTransposed),
    gradFunc: (dy: tf.Tensor) => tf.matMul(dy, weight),
  }))(x) as tf.Tensor2D;
}

/** a b for batches of matrices [.., .., rows, columns]. */
function product(a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  return tf.customGrad((...args) => {
    const [a, b, save] = args as [tf.Tensor, tf.Tensor, tf.GradSaveFunc];
    save([a, b]);
    return {
      value: tf.matMul(a, b),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [a, b] = saved;
        return [tf.matMul(dy, b.transpose([0, 1, 3, 2])), tf.matMul(a, dy, true, false)];
      },
    };
  })(a, b);
}

/** The decoder's hidden states [B T, H] after the final norm. `layers[i]` is where layer i's weights are. */
function decoder(
  config: DecoderConfig,
  { segments, segmentLength }: StepCase,
  layers: readonly number[],
  weights: ReadonlyMap<string, tf.Tensor>,
  adapter: ReadonlyMap<string, tf.Tensor> | undefined,
  inputs: Inputs,
): tf.Tensor2D {
  const { attentionHeads, keyValueHeads, headDim, normEpsilon } = config;
  const scale = SETTINGS.alpha / SETTINGS.rank;
  const weight = (name: string) => weights.get(name)!;

  const norm = (name: string, x: tf.Tensor2D): tf.Tensor2D => {
    const inverse = tf.rsqrt(tf.mean(tf.square(x), -1, true).add(normEpsilon));
    return x.mul(inverse).mul(weight(`${name}.weight`));
  };
  const linear = (name: string, stored: string, x: tf.Tensor2D): tf.Tensor2D => {
    const base = frozenProduct(x, weight(`${stored}.weight`), weight(transposed(`${stored}.weight`)));
    if (!adapter) return base;
    const a = adapter.get(`${name}.lora_A.weight`)!;
    const b = adapter.get(`${name}.lora_B.weight`)!;
    return base.add(tf.matMul(tf.matMul(x, a, false, true).mul(scale), b, false, true));
  };
  const rope = (x: tf.Tensor, heads: number): tf.Tensor => {
    const halves = x.reshape([segments * segmentLength, heads, 2, headDim / 2]);
    return halves.mul(inputs.cos).add(halves.reverse(2).mul(inputs.sin));
  };
  // [B T, heads d] to [B, heads, T, d], the layout of the batched products.
  const byHead = (x: tf.Tensor, heads: number) =>
    x.reshape([segments, segmentLength, heads, headDim]).transpose([0, 2, 1, 3]);

  // The query heads that share a key head lie below each other, so that grouped keys need no copies.
  const attend = (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor): tf.Tensor2D => {
    const rows = attentionHeads / keyValueHeads * segmentLength;
    const grouped = q.mul(headDim ** -0.5).reshape([segments, keyValueHeads, rows, headDim]);
    const p = tf.softmax(product(grouped, k.transpose([0, 1, 3, 2])).add(inputs.mask));
    return product(p, v).reshape([segments, attentionHeads, segmentLength, headDim])
      .transpose([0, 2, 1, 3]).reshape([segments * segmentLength, attentionHeads * headDim]);
  };

  let x = tf.gather(weights.get(HEAD)!, inputs.tokens) as tf.Tensor2D;
  layers.forEach((from, i) => {
    const at = `model.layers.${i}`;
    const stored = `model.layers.${from}`;
    const h = norm(`${stored}.input_layernorm`, x);
    const attention = (part: string, x: tf.Tensor2D) =>
      linear(`${at}.self_attn.${part}`, `${stored}.self_attn.${part}`, x);
    const q = byHead(rope(attention("q_proj", h), attentionHeads), attentionHeads);
    const k = byHead(rope(attention("k_proj", h), keyValueHeads), keyValueHeads);
    const v = byHead(attention("v_proj", h), keyValueHeads);
    x = x.add(attention("o_proj", attend(q, k, v)));

    const m = norm(`${stored}.post_attention_layernorm`, x);
    const mlp = (part: string, x: tf.Tensor2D) => linear(`${at}.mlp.${part}`, `${stored}.mlp.${part}`, x);
    const gate = mlp("gate_proj", m);
    x = x.add(mlp("down_proj", gate.mul(tf.sigmoid(gate)).mul(mlp("up_proj", m))));
  });
  return norm("model.norm", x);
}

/** Makes the training program of a case. */
export async function createPeer(stepCase: StepCase): Promise<Peer> {
  if (!await tf.setBackend("webgpu")) throw new Error("TensorFlow.js found no WebGPU adapter");
  await tf.ready();

  const { config, weights: loaded } = await loadModel(
    stepCase.modelFolder,
    (data, shape) => tf.tensor(data, shape),
  );
  const weights = new Map<string, tf.Tensor>(loaded);
  for (const [name, tensor] of loaded) {
    if (tensor.rank === 2) weights.set(transposed(name), tf.transpose(tensor));
  }
  const { tokens, label, supervised } = stepCase.batch;
  const length = stepCase.segmentLength;
  const group = config.attentionHeads / config.keyValueHeads;
  const angles = rotaryAngles(config, length);
  const half = config.headDim / 2;
  const inputs = tf.tidy((): Inputs => {
    const table = (values: Float32Array) =>
      tf.tensor4d(values, [length, 1, 1, half]).tile([stepCase.segments, 1, 1, 1]);
    const sin = table(angles.sin);
    return {
      tokens: tf.tensor1d(tokens, "int32"),
      // Ids below zero give rows of zeros.
      halfOneHot: tf.oneHot(tf.tensor1d(label, "int32"), config.vocabularySize)
        .mul(tf.scalar(SETTINGS.crossEntropyWeight)) as tf.Tensor2D,
      weight: tf.tensor2d(Float32Array.from(label, (id) => id >= 0 ? 1 / supervised : 0), [label.length, 1]),
      cos: table(angles.cos),
      sin: tf.concat([sin.neg(), sin], 2),
      mask: tf.tensor2d(
        Float32Array.from({ length: length ** 2 }, (_, i) => i % length > Math.floor(i / length) ? -1e9 : 0),
        [length, length],
      ).tile([group, 1]),
    };
  });
  const head = weights.get(HEAD) as tf.Tensor2D;
  const headTransposed = weights.get(transposed(HEAD)) as tf.Tensor2D;
  const teacherLayers = Array.from({ length: config.layers }, (_, i) => i);

  /**
   * The objective of hidden states, its gradient computed with it: with t = 0.5 onehot + 0.5 p a row is log sum exp z - t . z + 0.5 p . log p,
   * and its gradient with respect to z is softmax(z) - t.
   */
  const headLoss = (teacherHidden: tf.Tensor2D) =>
    tf.customGrad((x, save) => {
      const hidden = x as tf.Tensor2D;
      const logP = tf.logSoftmax(tf.matMul(teacherHidden, headTransposed));
      const halfP = tf.exp(logP).mul(SETTINGS.forwardKlWeight);
      const target = inputs.halfOneHot.add(halfP);
      const logQ = tf.logSoftmax(tf.matMul(hidden, headTransposed));
      const terms = halfP.mul(logP).sub(target.mul(logQ));
      const value = terms.sum(-1, true).mul(inputs.weight).sum() as tf.Scalar;
      const dz = tf.exp(logQ).sub(target).mul(inputs.weight) as tf.Tensor2D;
      (save as tf.GradSaveFunc)([tf.matMul(dz, head)]);
      return { value, gradFunc: (dy, [gradient]) => gradient.mul(dy) };
    });

  const layout = [...stepCase.adapter].map(([name, { shape }]) => ({ name, shape }));
  const sizes = layout.map(({ shape: [rows, columns] }) => rows * columns);
  const total = sizes.reduce((a, b) => a + b);

  /** The loss and the gradients of the adapter's tensors, in the layout's order. */
  const lossAndGradients = (parameters: tf.Tensor1D): { value: tf.Scalar; grads: tf.Tensor[] } => {
    const tensors = tf.split(parameters, sizes).map((part, i) => part.reshape(layout[i].shape));
    const teacherHidden = decoder(config, stepCase, teacherLayers, weights, undefined, inputs);
    const loss = headLoss(teacherHidden);
    return tf.valueAndGrads((...tensors: tf.Tensor[]) => {
      const adapter = new Map(tensors.map((tensor, i) => [layout[i].name, tensor]));
      return loss(decoder(config, stepCase, stepCase.keptLayers, weights, adapter, inputs)) as tf.Scalar;
    })(tensors) as { value: tf.Scalar; grads: tf.Tensor[] };
  };

  // Parameters and moments as one vector each, so that clipping and the optimiser are a handful of kernels.
  let parameters = tf.concat([...stepCase.adapter.values()].map(({ data }) => tf.tensor1d(data)));
  let m = tf.zeros([total]) as tf.Tensor1D;
  let v = tf.zeros([total]) as tf.Tensor1D;
  let stepsDone = 0;

  return {
    async step() {
      const { learningRate, beta1, beta2, epsilon, weightDecay, maxNorm } = SETTINGS;
      stepsDone++;
      const next = tf.tidy(() => {
        const { value, grads } = lossAndGradients(parameters);
        const all = tf.concat(grads.map((gradient) => gradient.flatten())) as tf.Tensor1D;
        const norm = tf.sqrt(tf.square(all).sum());
        const g = all.mul(tf.minimum(tf.scalar(maxNorm).div(norm.add(1e-6)), 1));
        const nextM = m.mul(beta1).add(g.mul(1 - beta1)) as tf.Tensor1D;
        const nextV = v.mul(beta2).add(g.square().mul(1 - beta2)) as tf.Tensor1D;
        const deviation = nextV.div(1 - beta2 ** stepsDone).sqrt().add(epsilon);
        const direction = nextM.mul(learningRate / (1 - beta1 ** stepsDone)).div(deviation);
        const updated = parameters.mul(1 - learningRate * weightDecay).sub(direction) as tf.Tensor1D;
        return { loss: value, parameters: updated, m: nextM, v: nextV };
      });
      tf.dispose([parameters, m, v]);
      ({ parameters, m, v } = next);
      // A read submits all that is waiting, and the queue runs in order: when the loss is here, the update is done.
      const loss = (await next.loss.data())[0];
      next.loss.dispose();
      return loss;
    },
    async gradients() {
      const { value, grads } = tf.tidy(() => lossAndGradients(parameters));
      const gradients: AdapterValues = new Map();
      for (const [i, gradient] of grads.entries()) {
        gradients.set(layout[i].name, await gradient.data() as Float32Array<ArrayBuffer>);
      }
      const loss = (await value.data())[0];
      tf.dispose([value, ...grads]);
      return { loss, gradients };
    },
    async parameters() {
      const values = await parameters.data() as Float32Array;
      let end = 0;
      return new Map(layout.map(({ name }, i) => [name, values.slice(end, end += sizes[i])]));
    },
  };
}
