/**
 * What a run writes beside the student, and its bounds.
 *
 * @module
 */
import { z } from "zod";
import { count, countOrNone, path, positive, seed } from "./fields.ts";

export const samples = z.strictObject({
  prompts: z.array(z.string()).max(16).default([]).describe(
    "Prompts continued by teacher and student before and after; empty: the start of a held-out sample",
  ),
  tokens: z.number().int().min(0).default(64).describe("Most tokens of a sample; 0: no samples"),
  temperature: z.number().min(0).default(0).describe("Sampling temperature; 0: always the likeliest token"),
  topK: countOrNone.default(0).describe("Choose among this many likeliest tokens; 0: all"),
  topP: z.number().gt(0).max(1).default(1).describe(
    "Choose among the likeliest tokens of this total probability",
  ),
  seed: seed.default(1).describe("Seed of sampling"),
});

export const output = z.strictObject({
  folder: path.optional().describe("Folder of this run; runs/<id> when absent"),
  merged: z.boolean().default(true).describe("Whether the student with the adapter merged in is written too"),
});

export const limits = z.strictObject({
  gpuBytes: count.optional().describe("Most bytes on the GPU; what the device allows when absent"),
  watchdogSeconds: positive.default(120).describe(
    "Seconds without a sign of life after which the run is ended",
  ),
});
