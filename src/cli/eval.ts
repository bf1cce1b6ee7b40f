/**
 * `limbeck eval`
 *
 * @module
 */
import { LimbeckError } from "../errors.ts";
import type { Command, Invocation } from "./command.ts";
import { MODEL_FLAGS, modelPath } from "./model_argument.ts";

/** How a model is measured. */
export interface EvaluationRequest {
  model: string;
  /** JSON Lines file. */
  data: string;
  contextLength: number;
  limit?: number;
}

/** What a measurement gives. */
export interface EvaluationResult {
  /** Cross-entropy in nats a token. */
  loss: number;
  tokens: number;
  samples: number;
}

/** Measures a model. */
export const evaluate: Command = {
  name: "eval",
  usage: "(--model PATH | --run RUN) --data FILE",
  positional: [0, 0],
  flags: {
    ...MODEL_FLAGS,
    data: { value: "FILE", help: "JSON Lines file" },
    "context-length": { value: "TOKENS", kind: "count", help: "Longest sample in tokens (default 512)" },
    limit: { value: "COUNT", kind: "count", help: "Most samples used (default all)" },
  },
  examples: [
    "limbeck eval --run last --data heldout.jsonl",
    "limbeck eval --model ./teacher --data heldout.jsonl --json",
  ],
  async run(invocation: Invocation): Promise<number> {
    const path = await modelPath(invocation);
    throw new LimbeckError(`measuring ${path} is not linked into the command line yet`);
  },
};
