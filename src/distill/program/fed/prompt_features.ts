/**
 * What a sample was asked, as adapters that choose by the prompt see it: the mean of the token embeddings of what stands before the
 * first supervised token. It depends on nothing that is predicted, so no label leaks through it.
 *
 * @module
 */
import { InputError } from "../../../base/errors.ts";
import { modelWeight } from "../../../models/context.ts";
import type { Executable } from "../../../tensor/executable.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import { gatherRows, scatterRows } from "../../../tensor/ops/cache.ts";
import { embedding } from "../../../tensor/ops/embedding.ts";
import { rangeMean } from "../../../tensor/ops/range_mean.ts";
import type { EncodedSample } from "../../../text/encode.ts";
import { IGNORED_LABEL, type PackedBatch } from "../../../text/packing.ts";
import type { ModelAdapter } from "../../trained/model_adapter.ts";
import type { Model } from "../../inputs/models.ts";
import type { Recipe } from "../../recipe/recipe.ts";

/** Names of the inputs that say where the prompts of a packed stream lie. */
const INPUTS = { segments: "segments", start: "promptStart", end: "promptEnd" } as const;

/** Name of the state with the prompt of each sequence that is written, f32 [sequences, H]. */
const WRITTEN = "prompts.means";

/** Means of the embeddings of ranges of tokens, f32 [S, H]. */
function promptMeans(graph: Graph, model: Model, tokens: Tensor, start: Tensor, end: Tensor): Tensor {
  const { family, tensors } = model.architecture;
  const { embedding: name } = family.names;
  const table = modelWeight(graph, model.specs, name, tensors.get(name)!);
  return rangeMean(embedding(table, tokens), start, end);
}

/**
 * The prompt of each position of a packed stream, f32 [T, H].
 *
 * @param tokens i32 [T]
 */
export function streamPrompts(graph: Graph, model: Model, tokens: Tensor): Tensor {
  const input = (name: string) => graph.input(name, [tokens.dim(0)], "i32");
  // A sample has at least one token, so T rows hold the prompts of all samples; those beyond the last have empty ranges.
  const means = promptMeans(graph, model, tokens, input(INPUTS.start), input(INPUTS.end));
  return gatherRows(means, input(INPUTS.segments));
}

/** Writes where a batch's prompts lie, if the program asks. */
export function writePrompts(executable: Executable, batch: Pick<PackedBatch, "segment" | "label">): void {
  if (!executable.plan.storages.has(INPUTS.segments)) return;
  const { start, end } = promptRanges(batch);
  executable.write(INPUTS.segments, batch.segment);
  executable.write(INPUTS.start, start);
  executable.write(INPUTS.end, end);
}

/** The positions of each sample's prompt, by number of the sample: the last of them predicts the first target. */
export function promptRanges(
  { segment, label }: Pick<PackedBatch, "segment" | "label">,
): { start: Int32Array; end: Int32Array } {
  const [start, end] = [new Int32Array(segment.length), new Int32Array(segment.length)];
  segment.forEach((s, t) => {
    if (s < 0) return;
    if (t === 0 || segment[t - 1] !== s) start[s] = t;
    if (end[s] === 0 && label[t] !== IGNORED_LABEL) end[s] = t + 1;
  });
  return { start, end };
}

/**
 * For adapters that look at prompts, refuses samples whose second token is a target already: such a prompt is the first token alone, and the rest cannot be looked at,
 * as it is what is to be predicted.
 *
 * @throws {InputError} naming the first of them
 */
export function checkPrompts(
  samples: readonly EncodedSample[],
  ...adapters: readonly (ModelAdapter | undefined)[]
): void {
  const reader = adapters.find((a) => a?.plugin.readsPrompt);
  if (!reader) return;
  const bare = samples.filter(({ supervised }) => supervised[1] === 1);
  if (bare.length === 0) return;
  const { file, line } = bare[0]!.source;
  throw new InputError(
    `${bare.length} of ${samples.length} samples have no prompt, and the adapter "${reader.plugin.id}" chooses its experts by the prompt`,
    {
      where: `${file}:${line}`,
      hint:
        "Use rows of prompt and completion or of messages, with data.mask auto or completion and data.tooLong " +
        "other than split; or choose another adapter.",
    },
  );
}

/**
 * For adapters that look at prompts, refuses losses over the tokens of prompts: these would be predicted by a model that has seen them.
 *
 * @throws {InputError} naming the first of them
 */
export function checkPromptLosses(
  { objective }: Recipe,
  ...adapters: readonly (ModelAdapter | undefined)[]
): void {
  const reader = adapters.find((a) => a?.plugin.readsPrompt);
  const term = objective.findIndex(({ tokens }) => tokens === "all");
  if (!reader || term < 0) return;
  throw new InputError(
    `the loss counts the tokens of prompts too, which the adapter "${reader.plugin.id}" has seen when they are predicted`,
    { where: `recipe objective.${term}.tokens`, hint: "leave tokens out, or choose another adapter" },
  );
}

/** The prompt of each token that a generator takes in, f32 [T, H], from the sequence it belongs to. */
export function writtenPrompts(
  graph: Graph,
  block: string,
  tokens: number,
  { sequences, model }: { sequences: number; model: Model },
): Tensor {
  const means = graph.state(WRITTEN, [sequences, model.config.hiddenSize], "f32", "keys and values");
  return gatherRows(means, graph.input(`${block}.sequences`, [tokens], "i32"));
}

/** Traces the block that keeps the prompts of `sequences` sequences of up to `length` tokens for {@linkcode writtenPrompts}. */
export function keepPrompts(
  graph: Graph,
  model: Model,
  { sequences, length }: { sequences: number; length: number },
): void {
  const input = (name: string, count: number) => graph.input(`${graph.name}.${name}`, [count], "i32");
  const tokens = input("tokens", sequences * length);
  const means = promptMeans(graph, model, tokens, input("start", sequences), input("end", sequences));
  const state = graph.state(WRITTEN, [sequences, model.config.hiddenSize], "f32", "keys and values");
  scatterRows(state, means, input("slots", sequences));
}
