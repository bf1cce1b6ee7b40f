/**
 * The step in jax-js: one `jit` from the batch to the new parameters, so that elementwise chains fuse with each other and with the
 * reductions before them. Arrays are owned: a function consumes its arguments, and `.ref` takes another share.
 *
 * @module
 */
import { defaultDevice, init, jit, lax, nn, numpy as np, tree, vjp } from "npm:@jax-js/jax@0.1.25";
import type { DecoderConfig } from "../../src/models/config.ts";
import { SETTINGS, type StepCase } from "./case.ts";
import type { AdapterValues, Peer } from "./peer.ts";
import { loadModel, rotaryAngles } from "./weights.ts";

const HEAD = "model.embed_tokens.weight";
const TRANSPOSED_HEAD = "transposed head";

type Arrays = { [name: string]: np.Array };

/**
 * The batch: tokens and labels [B T], weight [B T] = 1 / N where supervised, rotary tables [T, 1, 1, headDim / 2], and the causal
 * mask [T, T], 0 or a large negative number.
 */
type Batch = {
  tokens: np.Array;
  labels: np.Array;
  weight: np.Array;
  cos: np.Array;
  sin: np.Array;
  mask: np.Array;
};

/**
 * Parameters and Adam moments as one vector each, so that clipping and the optimiser are a handful of kernels rather than four for
 * each of 56 tensors.
 */
type TrainingState = { parameters: np.Array; m: np.Array; v: np.Array };

/** Adam's corrections for its start, 1 / (1 - beta ** step). */
type Corrections = { m: np.Array; v: np.Array };

/** The decoder's hidden states [B T, H] after the final norm. `layers[i]` is where layer i's weights are. */
function decoder(
  config: DecoderConfig,
  { segments, segmentLength }: StepCase,
  layers: readonly number[],
  weights: Arrays,
  adapter: Arrays | undefined,
  batch: Batch,
): np.Array {
  const { attentionHeads, keyValueHeads, headDim, normEpsilon } = config;
  const scale = SETTINGS.alpha / SETTINGS.rank;

  const norm = (name: string, x: np.Array) => {
    const meanSquare = np.mean(np.square(x.ref), -1, { keepdims: true });
    return x.mul(np.reciprocal(np.sqrt(meanSquare.add(normEpsilon)))).mul(weights[`${name}.weight`].ref);
  };
  const linear = (name: string, stored: string, x: np.Array) => {
    const w = weights[`${stored}.weight`].ref.transpose();
    if (!adapter) return np.matmul(x, w);
    const a = adapter[`${name}.lora_A.weight`].ref.transpose();
    const b = adapter[`${name}.lora_B.weight`].ref.transpose();
    return np.matmul(x.ref, w).add(np.matmul(np.matmul(x, a), b).mul(scale));
  };
  // The halves of a head as an axis of two: exchanging them is a view, so the rotation is one fused kernel.
  const sin = np.concatenate([batch.sin.ref.neg(), batch.sin.ref], 2);
  const rope = (x: np.Array, heads: number) => {
    const halves = x.reshape([segments, segmentLength, heads, 2, headDim / 2]);
    return halves.ref.mul(batch.cos.ref).add(np.flip(halves, 3).mul(sin.ref))
      .reshape([segments, segmentLength, heads, headDim]);
  };

  /**
   * Grouped-query attention of q [B, T, K, G, d] over k and v [B, T, K, d]. The sum of the exponentials divides the output instead
   * of the [T, T] weights, and the mask is added, because additions and multiplications fuse into the product before them.
   */
  const attend = (q: np.Array, k: np.Array, v: np.Array) => {
    const scores = np.einsum("btkgd,bskd->bkgts", q, k).mul(headDim ** -0.5).add(batch.mask.ref);
    const largest = lax.stopGradient(np.max(scores.ref, -1, { keepdims: true }));
    const e = np.exp(scores.sub(largest));
    const sum = np.moveaxis(e.ref.sum(-1, { keepdims: true }), 3, 1);
    return np.einsum("bkgts,bskd->btkgd", e, v).mul(np.reciprocal(sum));
  };

  let x = np.take(weights[HEAD].ref, batch.tokens.ref, 0);
  layers.forEach((from, i) => {
    const at = `model.layers.${i}`;
    const stored = `model.layers.${from}`;
    const h = norm(`${stored}.input_layernorm`, x.ref);
    const attention = (part: string, x: np.Array) =>
      linear(`${at}.self_attn.${part}`, `${stored}.self_attn.${part}`, x);
    const q = rope(attention("q_proj", h.ref), attentionHeads)
      .reshape([segments, segmentLength, keyValueHeads, attentionHeads / keyValueHeads, headDim]);
    const k = rope(attention("k_proj", h.ref), keyValueHeads);
    const v = attention("v_proj", h).reshape([segments, segmentLength, keyValueHeads, headDim]);
    x = x.add(
      attention("o_proj", attend(q, k, v).reshape([segments * segmentLength, attentionHeads * headDim])),
    );

    const m = norm(`${stored}.post_attention_layernorm`, x.ref);
    const mlp = (part: string, x: np.Array) => linear(`${at}.mlp.${part}`, `${stored}.mlp.${part}`, x);
    x = x.add(mlp("down_proj", nn.silu(mlp("gate_proj", m.ref)).mul(mlp("up_proj", m))));
  });
  sin.dispose();
  return norm("model.norm", x);
}

/** Makes the training program of a case. */
export async function createPeer(stepCase: StepCase): Promise<Peer> {
  if (!(await init("webgpu")).includes("webgpu")) throw new Error("jax-js found no WebGPU adapter");
  defaultDevice("webgpu");

  const { config, weights: loaded } = await loadModel(
    stepCase.modelFolder,
    (data, shape) => np.array(data, { shape }),
  );
  const weights: Arrays = Object.fromEntries(loaded);
  const transpose = jit((x: np.Array) => x.transpose());
  weights[TRANSPOSED_HEAD] = transpose(weights[HEAD].ref);
  const { tokens, label, supervised } = stepCase.batch;
  const length = stepCase.segmentLength;
  const angles = rotaryAngles(config, length);
  const table = [length, 1, 1, config.headDim / 2];
  const batch: Batch = {
    tokens: np.array(Int32Array.from(tokens)),
    labels: np.array(Int32Array.from(label)),
    weight: np.array(Float32Array.from(label, (id) => id >= 0 ? 1 / supervised : 0)),
    cos: np.array(angles.cos, { shape: table }),
    sin: np.array(angles.sin, { shape: table }),
    mask: np.array(
      Float32Array.from({ length: length ** 2 }, (_, i) => i % length > Math.floor(i / length) ? -1e9 : 0),
      { shape: [length, length] },
    ),
  };
  const teacherLayers = Array.from({ length: config.layers }, (_, i) => i);

  /**
   * With t = 0.5 onehot + 0.5 p the objective of a row is log sum exp z - t . z, plus the entropy term 0.5 p . log p, which does
   * not depend on the student. Its gradient with respect to z is softmax(z) - t. The head is frozen, so the gradient of the
   * hidden states is one product; written out it is a `dot`, which jax-js tiles, where its own derivative of the logits would
   * fuse the softmax into the reduction over the vocabulary and compute it anew for every column. The head is kept transposed
   * besides, so that this product too reads both its operands along the reduction: more than twice as fast.
   */
  const headLoss = (hidden: np.Array, teacherHidden: np.Array, weights: Arrays, batch: Batch) => {
    const { crossEntropyWeight, forwardKlWeight } = SETTINGS;
    const head = weights[HEAD];
    const logP = nn.logSoftmax(np.matmul(teacherHidden, head.ref.transpose()), -1);
    const p = np.exp(logP.ref);
    const entropy = p.ref.mul(logP).sum(-1).mul(forwardKlWeight);
    const ids = np.arange(config.vocabularySize, undefined, undefined, { dtype: np.int32 });
    const isLabel = batch.labels.ref.reshape([-1, 1]).equal(ids);
    const target = np.where(isLabel, crossEntropyWeight, 0).add(p.mul(forwardKlWeight));

    const z = np.matmul(hidden, head.ref.transpose());
    const logSum = nn.logsumexp(z.ref, -1, { keepdims: true });
    const dz = np.exp(z.ref.sub(logSum.ref)).sub(target.ref).mul(batch.weight.ref.reshape([-1, 1]));
    const rows = np.squeeze(logSum, -1).sub(z.mul(target).sum(-1)).add(entropy);
    return {
      loss: rows.mul(batch.weight.ref).sum(),
      gradient: np.matmul(dz, weights[TRANSPOSED_HEAD].ref.transpose()),
    };
  };

  /** The loss and the gradients of the adapter. */
  const lossAndGradients = (adapter: Arrays, weights: Arrays, batch: Batch): [np.Array, Arrays] => {
    const teacherHidden = decoder(config, stepCase, teacherLayers, weights, undefined, batch);
    const [hidden, backward] = vjp(
      (adapter: Arrays) => {
        const hidden = decoder(config, stepCase, stepCase.keptLayers, weights, adapter, batch);
        tree.dispose(adapter);
        return hidden;
      },
      [adapter],
    );
    const { loss, gradient } = headLoss(hidden, teacherHidden, weights, batch);
    const [gradients] = backward(gradient);
    backward.dispose();
    tree.dispose([weights, batch]);
    return [loss, gradients];
  };

  const layout = [...stepCase.adapter].map(([name, { shape }]) => ({ name, shape }));
  const sizes = layout.map(({ shape: [rows, columns] }) => rows * columns);
  // Slices of the vector are views: nothing is copied.
  const unflatten = (vector: np.Array): Arrays => {
    let end = 0;
    const tensors: Arrays = {};
    layout.forEach(({ name, shape }, i) => {
      const start = end;
      end += sizes[i];
      tensors[name] = vector.ref.slice([start, end]).reshape(shape);
    });
    vector.dispose();
    return tensors;
  };
  const flatten = (tensors: Arrays) => np.concatenate(layout.map(({ name }) => tensors[name].ravel()));

  const trainingStep = jit(
    (state: TrainingState, corrections: Corrections, weights: Arrays, batch: Batch) => {
      const { learningRate, beta1, beta2, epsilon, weightDecay, maxNorm } = SETTINGS;
      const [loss, gradients] = lossAndGradients(unflatten(state.parameters.ref), weights, batch);
      const all = flatten(gradients);
      const norm = np.sqrt(np.square(all.ref).sum());
      const g = all.mul(np.minimum(np.reciprocal(norm.add(1e-6)).mul(maxNorm), 1));
      const m = state.m.mul(beta1).add(g.ref.mul(1 - beta1));
      const v = state.v.mul(beta2).add(np.square(g).mul(1 - beta2));
      const direction = m.ref.mul(corrections.m).div(np.sqrt(v.ref.mul(corrections.v)).add(epsilon));
      const parameters = state.parameters.mul(1 - learningRate * weightDecay).sub(
        direction.mul(learningRate),
      );
      return { loss, next: { parameters, m, v } };
    },
  );

  let state: TrainingState = {
    parameters: np.concatenate([...stepCase.adapter.values()].map(({ data }) => np.array(data))),
    m: np.zeros([sizes.reduce((a, b) => a + b)]),
    v: np.zeros([sizes.reduce((a, b) => a + b)]),
  };
  let steps = 0;

  const gradientsOnly = jit(lossAndGradients);
  return {
    async step() {
      steps++;
      const correction = (beta: number) => np.array([1 / (1 - beta ** steps)]);
      const corrections = { m: correction(SETTINGS.beta1), v: correction(SETTINGS.beta2) };
      const { loss, next } = trainingStep(state, corrections, tree.ref(weights), tree.ref(batch));
      state = next;
      // A read submits the whole program, and the queue runs in order: when the loss is here, the update is done.
      return (await loss.data())[0];
    },
    async gradients() {
      const [loss, gradients] = gradientsOnly(
        unflatten(state.parameters.ref),
        tree.ref(weights),
        tree.ref(batch),
      );
      return { loss: (await loss.data())[0], gradients: await read(gradients) };
    },
    parameters: () => read(unflatten(state.parameters.ref)),
  };
}

async function read(arrays: Arrays): Promise<AdapterValues> {
  const values: AdapterValues = new Map();
  for (const [name, array] of Object.entries(arrays)) {
    values.set(name, await array.data() as Float32Array<ArrayBuffer>);
  }
  return values;
}
