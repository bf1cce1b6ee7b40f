/**
 * How it is trained.
 *
 * @module
 */
import { z } from "zod";
import { count, countOrNone, haveNumbers, positive, seed, share } from "./fields.ts";
import { onPolicy } from "./on_policy.ts";

const divergence = z.strictObject({
  maxLossFactor: z.union([z.literal(0), z.number().gt(1)]).default(3).describe(
    "Stops when the mean loss of a window is this many times the lowest so far; 0: never",
  ),
  window: count.default(20).describe("Steps in a window"),
});

const oneForAll = z.strictObject({
  random: countOrNone.default(2).describe(
    "Shapes that a step trains beside the whole model and the smallest, chosen at random",
  ),
  // Without a default, so that recipes of earlier runs keep their hash.
  target: z.enum(["whole", "teacher"]).optional().describe(
    "What the smaller shapes learn from: the whole student as it is in the step (whole, when absent), or the teacher, which stays as it is",
  ),
  loss: z.string().min(1).default("soft-cross-entropy").describe(
    "Id of the loss that compares a shape's logits with those of its target, such as soft-cross-entropy or forward-kl",
  ),
  lossWeight: z.number().min(0).max(1).default(1).describe(
    "Share of that loss; the rest is cross-entropy with the data",
  ),
  balance: z.strictObject({
    min: z.number().min(0).default(0).describe("Smallest factor"),
    max: positive.default(10).describe("Largest factor"),
  }).refine(({ min, max }) => min <= max, { path: ["max"], error: "must be at least min" })
    .prefault({}).describe(
      "Bounds of the factor that gives a shape's loss the size of the whole model's; 1 and 1: no balancing",
    ),
});

export const train = z.strictObject({
  steps: count.default(200).describe("Optimiser steps"),
  tokensPerMicroBatch: z.number().int().min(2).default(1024).describe(
    "Tokens in one forward pass; samples are packed into it. When absent 1024, or contextLength where that is more",
  ),
  accumulation: count.default(1).describe("Micro-batches whose gradients make one step"),
  learningRate: positive.default(2e-4).describe("Highest learning rate"),
  schedule: z.enum(["constant", "linear", "cosine"]).default("cosine").describe(
    "Course of the learning rate after the warm-up",
  ),
  warmup: countOrNone.default(10).describe(
    "Steps in which the learning rate rises from 0; 5 % of the steps when absent",
  ),
  minimumLearningRate: z.number().min(0).default(0).describe("Where the learning rate ends"),
  weightDecay: z.number().min(0).default(0.01).describe("Decoupled weight decay of AdamW"),
  beta1: share.default(0.9).describe("AdamW's decay of the mean of gradients"),
  beta2: share.default(0.999).describe("AdamW's decay of the mean of squared gradients"),
  epsilon: positive.default(1e-8).describe("AdamW's epsilon"),
  clip: z.number().min(0).default(1).describe("Largest global gradient norm; 0: no clipping"),
  checkpointEvery: countOrNone.default(50).describe(
    "Steps between checkpoints; 0: only where the run stops or ends",
  ),
  evaluateEvery: countOrNone.default(50).describe(
    "Steps between measurements of the held-out loss; 0: only before and after",
  ),
  keepCheckpoints: count.default(2).describe("Latest checkpoints kept; the best is kept too"),
  activationCheckpointing: z.enum(["auto", "on", "off"]).default("auto").describe(
    "Computes activations twice to save memory; auto: only where they would not fit",
  ),
  // Without a default, so that recipes of earlier runs keep their hash.
  compute: z.enum(["f32", "f16"]).optional().describe(
    "What the operands of frozen linear layers are rounded to, forward and backward; sums, the head, adapters and what is trained stay f32. " +
      "f16 needs a device with shader-f16. f32 when absent",
  ),
  headChunk: z.union([z.literal("auto"), count]).default("auto").describe(
    "Positions whose logits are in memory at once",
  ),
  seed: seed.default(1).describe("Seed of initialisation, order of samples and dropout"),
  divergence: divergence.prefault({}).describe("When a run that gets worse is stopped"),
  oneForAll: oneForAll.optional().describe(
    "How the shapes of student.shapes are trained: in each step the whole model by the objective, the others from the whole model",
  ),
  // Without a default, so that recipes of earlier runs keep their hash.
  onPolicy: onPolicy.optional().describe(
    "On-policy distillation (arXiv 2306.13649): the student answers prompts of the training data, and learns from the teacher on its own " +
      "answers; losses that look at no teacher, such as cross-entropy, count the data alone unless their source is on-policy",
  ),
}).refine((t) => t.warmup < t.steps, {
  path: ["warmup"],
  error: ({ input }) => {
    const { warmup, steps } = input as { warmup: number; steps: number };
    return `must be fewer than train.steps, but is ${warmup} of ${steps}: set it too, such as train.warmup=0`;
  },
  when: ({ value }) => haveNumbers(value, "warmup", "steps"),
}).refine((t) => t.learningRate <= 0 || t.minimumLearningRate <= t.learningRate, {
  path: ["minimumLearningRate"],
  error: "must not be above train.learningRate",
  when: ({ value }) => haveNumbers(value, "minimumLearningRate", "learningRate"),
});
