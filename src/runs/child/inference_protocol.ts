/**
 * What a service and the process that writes text for it say to each other: a line of JSON each.
 *
 * @module
 */
import type { Recipe } from "../../distill/recipe/recipe.ts";
import type { ChatMessage } from "../../text/dataset.ts";
import type { ToldError } from "./told_error.ts";

/** Whose text it is: a model's by its path, or that of a run's student with its adapter. */
export type InferenceModel = { readonly path: string } | { readonly folder: string; readonly recipe: Recipe };

/** What is to be written. */
export interface InferenceRequest {
  /** A text to continue, or a conversation. */
  readonly prompt: string | readonly ChatMessage[];
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  /** Texts before which it ends. */
  readonly stop: readonly string[];
}

/** What comes of a request. */
export type InferenceEvent =
  | { readonly type: "text"; readonly text: string }
  | {
    readonly type: "end";
    readonly finishReason: "stop" | "length" | "cancelled";
    readonly promptTokens: number;
    readonly completionTokens: number;
  };

/** The first line that the process is sent, then any of the others. */
export type InferenceOrder =
  | { readonly start: InferenceModel }
  | { readonly id: number; readonly request: InferenceRequest }
  | { readonly cancel: number };

/** A line that the process writes. */
export type InferenceMessage =
  | { readonly ready: { readonly contextLength: number } }
  | { readonly alive: true }
  | { readonly id: number; readonly event: InferenceEvent }
  | { readonly id: number | null; readonly error: ToldError };
