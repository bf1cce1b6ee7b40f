/**
 * The program of a feature loss where there are no models: traced for two of made-up sizes.
 *
 * @module
 */
import { ExpressionNode } from "../tensor/expr/mod.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import { Program } from "../tensor/plan.ts";
import type { FeatureLoss } from "./feature_contract.ts";
import type { ModelShape } from "./feature_contract.ts";

/** The models that a feature loss works on. */
export type FeatureModels = Readonly<Record<"student" | "teacher", ModelShape>>;

/** Two models that differ in every size. Widths of queries, keys and values have many divisors. */
export const EXAMPLE_MODELS: FeatureModels = {
  student: { layers: 3, hiddenSize: 12, vocabularySize: 40, queryWidth: 48, keyValueWidth: 24 },
  teacher: { layers: 5, hiddenSize: 20, vocabularySize: 40, queryWidth: 96, keyValueWidth: 48 },
};

/** The width of an inner value; see {@linkcode Taps}. */
export function tapWidth(tap: string, shape: ModelShape): number {
  const part = tap.split(".").at(-1)!;
  if (part === "queries" || part === "attention") return shape.queryWidth;
  return part === "keys" || part === "values" ? shape.keyValueWidth : shape.hiddenSize;
}

/** Inputs of the traced program that describe the stream, each i32 [T]. */
export type StreamInput = "segments" | "start" | "end" | "supervised" | "prompt";

/**
 * Traces a feature loss. The stream's inputs have the names of {@linkcode StreamInput}.
 *
 * @param input A tensor by name: `student TAP`, `teacher TAP`, or that of a parameter
 */
export function traceFeatureLoss(
  graph: Graph,
  loss: FeatureLoss,
  options: Readonly<Record<string, unknown>>,
  models: FeatureModels,
  tokens: number,
  input: (name: string) => Tensor,
): Tensor {
  const stream = (name: StreamInput) => graph.input(name, [tokens], "i32");
  return loss.program({
    student: (tap) => input(`student ${tap}`),
    teacher: (tap) => input(`teacher ${tap}`),
    parameter: input,
    segments: stream("segments"),
    sample: { start: stream("start"), end: stream("end") },
    supervised: stream("supervised"),
    prompt: stream("prompt"),
    models,
    options,
  });
}

/**
 * What a feature loss computes, as text: its taps, parameters and the operations of its program on the example models. Undefined where
 * it refuses these.
 */
export function featureProgramText(
  loss: FeatureLoss,
  options: Readonly<Record<string, unknown>>,
): string | undefined {
  try {
    const taps = loss.taps(EXAMPLE_MODELS, options);
    const parameters = loss.parameters?.(EXAMPLE_MODELS, options) ?? [];
    const graph = new Program().block("identity");
    traceFeatureLoss(graph, loss, options, EXAMPLE_MODELS, TOKENS, (name) => {
      const [model, tap] = name.split(" ") as ["student" | "teacher", string?];
      const shape = tap === undefined
        ? parameters.find((p) => p.name === name)!.shape
        : [TOKENS, tapWidth(tap, EXAMPLE_MODELS[model])];
      return graph.input(name, shape, "f32");
    });
    const nodes = graph.nodes.map(({ op, inputs, attributes }) => [
      op.name,
      inputs.map((t) => t.storage?.name ?? t.id),
      attributes,
    ]);
    return JSON.stringify(
      { taps, parameters, nodes },
      (_, value) => value instanceof ExpressionNode ? String(value) : value,
    );
  } catch {
    return undefined;
  }
}

const TOKENS = 4;
