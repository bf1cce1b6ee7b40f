/**
 * The model that is imitated.
 *
 * @module
 */
import { z } from "zod";
import { adapter } from "./adapter.ts";
import { count, path, quantize, QUANTIZES, seed, share } from "./fields.ts";
import { checkPrivileged } from "./privileged.ts";
import { checkSelf, checkTeachers } from "./several_teachers.ts";
import { course } from "./objective.ts";
import { layers } from "./student.ts";
import { SET_NAME, SET_NAME_FORM } from "../data_sets.ts";
import { checkServed, server } from "./server.ts";

const cacheEntries = z.number().int().min(1).max(256);

const PRECISIONS = { logits: ["f16", "f32"], hidden: ["bf16", "int8", "f32"] };

const cache = z.strictObject({
  payload: z.enum(["hidden"]).optional().describe(
    "Instead of topK and samples: the hidden states that the teacher's head reads, of which every loss over logits is exact",
  ),
  topK: cacheEntries.optional().describe("Largest logits kept of the teacher at each position"),
  samples: cacheEntries.optional().describe(
    "Instead of topK: tokens drawn from the teacher's distribution at each position (RS-KD, arXiv 2503.16870)",
  ),
  seed: seed.default(1).describe("Seed of the draws"),
  precision: z.enum(["f16", "f32", "bf16", "int8"]).default("f16").describe(
    "f16 or f32 of the logits kept, as distances from the largest; of hidden states bf16 (when absent), int8 with a scale a row, or f32",
  ),
  folder: path.optional().describe("Folder of caches that runs share; one in the run's folder when absent"),
}).refine((c) => [c.payload, c.topK, c.samples].filter((kept) => kept !== undefined).length === 1, {
  error: "needs one of topK and samples, such as {topK: 64}, or payload: hidden",
}).refine((c) => PRECISIONS[c.payload ?? "logits"].includes(c.precision), {
  path: ["precision"],
  error: "must be f16 or f32 for logits, and bf16, int8 or f32 for payload: hidden",
});

const self = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("initial").describe("Without what is trained of it") }),
  z.strictObject({
    kind: z.literal("lagged").describe("With a copy of what was trained of it, some steps back"),
    every: count.describe("Optimiser steps after which it is copied anew"),
  }),
  z.strictObject({
    kind: z.literal("mean").describe("With an exponential mean of what was trained of it"),
    decay: share.describe(
      "What each step keeps of the mean, such as 0.999; the rest is the student after the step",
    ),
  }),
]).describe(
  "What of the student teaches it, where model is `student`: what it began as, when absent, or such as {kind: lagged, every: 100} or {kind: mean, decay: 0.999}",
);

const tokenizer = path.describe(
  "Folder with a tokenizer.json or tokenizer.model, or GGUF file, that the teacher's tokenizer is read from, where `model` has none; of a " +
    "teacher behind a server it is compared with the student's",
);

const member = z.strictObject({
  model: path.describe(
    "Hugging Face folder or GGUF file, hf:ORG/NAME@REVISION of the hub, `server` for a model behind a server, or `student` for the " +
      "student itself",
  ),
  server: server.optional().describe("Where it is served, where its model is `server`"),
  cache: cache.optional().describe(
    "What is kept of it, as teacher.cache, which holds for all that say nothing; without either it is there while the student learns",
  ),
  name: z.string().regex(SET_NAME, `must be ${SET_NAME_FORM}`).optional().describe(
    "How rows and reports call it; the file's name without its ending, or what the server calls it, when absent",
  ),
  weight: z.number().min(0).max(1e9).optional().describe(
    "Its share in a mixture or a product, against the weights of the others; 1 when absent",
  ),
  schedule: z.strictObject({ weight: course.describe("In the place of weight") }).optional().describe(
    "Course of its weight over the steps",
  ),
  layers: layers.optional().describe("Layers kept, counted from 0 and rising; all when absent"),
  quantize: quantize.optional().describe(`${QUANTIZES}As it is stored when absent`),
  self: self.optional(),
  tokenizer: tokenizer.optional(),
});

/** Teachers at once, at the most: a kernel binds a row of each. */
const MOST_TEACHERS = 6;

const align = z.strictObject({
  by: z.enum(["bytes", "edit-distance"]).default("bytes").describe(
    "What makes tokens of teacher and student one group: the bytes of the text that they stand for, or the least edit distance of their " +
      "texts, for rows that the two tokenizers do not spell alike",
  ),
  unlike: z.enum(["refuse", "skip"]).default("refuse").describe(
    "Rows whose bytes the two tokenizers do not spell alike, such as where one normalises to NFC: an error, or left out",
  ),
  vocabulary: z.enum(["same", "nearest"]).optional().describe(
    "Which tokens of the two vocabularies hybrid-logit-groups and mapped-logit-groups compare as equal: those of the same bytes (when " +
      "absent), or, for a token that the other has not, one that is a byte's edit away too, such as gets and get",
  ),
});

export const teacher = z.strictObject({
  model: path.describe(
    "Hugging Face folder or GGUF file of the teacher, hf:ORG/NAME@REVISION of the hub, `server` for a model behind a server, or `student` " +
      "for the student itself",
  ),
  server: server.optional().describe(
    "Where model is `server`: a server of the OpenAI API that gives log-probabilities of a prompt. It is asked once, before training, and " +
      "cache.topK of them are kept at each position",
  ),
  self: self.optional(),
  teachers: z.array(member).min(2).max(MOST_TEACHERS).optional().describe(
    "Several teachers in the place of one, such as [{model: ./a, weight: 0.3}, {model: ./b, weight: 0.7}]; see combine",
  ),
  combine: z.enum(["mixture", "product", "best", "tag"]).optional().describe(
    "What several teachers are together: the mean of their distributions, their product, for each sample the one with the least " +
      "cross-entropy on it, or the one that the row's `teacher` names",
  ),
  quantize: quantize.optional().describe(`${QUANTIZES}As it is stored when absent`),
  stream: z.boolean().optional().describe(
    "Reads its layers from disk, two at a time, each time they are needed, so that only embedding, head and two layers take memory on " +
      "the GPU; numbers stay the same, steps take longer. When absent, where the run does not fit otherwise; false: never",
  ),
  train: z.boolean().default(false).describe(
    "Trains an adapter on the teacher along with the student, by the losses whose learner is the teacher",
  ),
  adapter: adapter.optional().describe("The teacher's adapter; like the student's when absent"),
  cache: cache.optional().describe(
    "Runs the teacher once before training and keeps the top of its distribution; training then needs no teacher on the GPU",
  ),
  align: align.optional().describe(
    "For a teacher with another tokenizer than the student's: it reads the same texts in its own tokens, and losses over groups of tokens " +
      "compare the two, such as universal-logit-groups",
  ),
  tokenizer: tokenizer.optional(),
  privileged: z.boolean().optional().describe(
    "Whether the teacher is told more than the student: before what both read it has the `privileged` text of each row, such as a hint or " +
      "the answer; no when absent",
  ),
}).superRefine(checkServed).superRefine(checkSelf).superRefine(checkTeachers).superRefine(checkPrivileged)
  .refine(
    (t) => !(t.align && t.train),
    {
      path: ["align"],
      error:
        "cannot be had with teacher.train: a teacher that is trained along must have the student's tokenizer",
    },
  ).refine((t) => !(t.align && t.cache), {
    path: ["align"],
    error: "cannot be had with teacher.cache: what is kept of a teacher belongs to the student's tokens",
  }).refine((t) => !(t.align && t.stream), {
    path: ["align"],
    error: "cannot be had with teacher.stream: leave stream out",
  }).refine((t) => !(t.train && t.cache), {
    path: ["cache"],
    error: "cannot keep a teacher that is trained along; leave it out, or teacher.train",
  }).refine((t) => !(t.train && t.stream), {
    path: ["stream"],
    error: "cannot stream a teacher that is trained along; leave it out, or teacher.train",
  });
