/**
 * Tasks as tokens, and what becomes of the scores of these.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import {
  agreementMeasurement,
  choiceMeasurement,
  type Measurement,
  textMeasurement,
} from "../../evaluation/results/measurement.ts";
import type { ChoiceItem, TaskItems, TextItem } from "../../evaluation/tasks/items.ts";
import type {
  AgreementTask,
  EvaluationTask,
  MultipleChoiceTask,
  PerplexityTask,
} from "../../evaluation/tasks/task.ts";
import { encodeChoices, encodeText } from "./encode_items.ts";
import type { OpenedModel } from "./measured_model.ts";
import { ALONE } from "./scoring_program.ts";
import type { ScoredStretch, Stretch } from "./token_scorer.ts";

/** A task with what it asks. */
export interface OpenedTask {
  readonly task: EvaluationTask;
  readonly items: TaskItems;
}

/** A task's items as stretches, and what becomes of their scores. */
export interface EncodedTask {
  readonly task: EvaluationTask;
  readonly stretches: readonly Stretch[];
  measurement(scores: readonly ScoredStretch[]): Measurement;
}

/** Encodes a task for a model. @param contextLength Most tokens that it takes */
export function encodeTask(
  { task, items }: OpenedTask,
  model: OpenedModel,
  contextLength: number,
): EncodedTask {
  if (items.kind === "choice") {
    return encodeQuestions(task as MultipleChoiceTask, items.items, model, contextLength);
  }
  return encodeTexts(task as PerplexityTask | AgreementTask, items.items as TextItem[], model, contextLength);
}

function encodeQuestions(
  task: MultipleChoiceTask,
  items: readonly ChoiceItem[],
  { tokenizer }: OpenedModel,
  contextLength: number,
): EncodedTask {
  const questions = items.map((item) => encodeChoices(item, task, tokenizer, contextLength));
  return {
    task,
    stretches: questions.flatMap(({ choices }) => choices.map(({ stretch }) => stretch)),
    measurement(scores) {
      const left = scores.values();
      const scored = questions.map(({ choices, answer }) => ({
        answer,
        choices: choices.map(({ bytes }) => {
          const losses = left.next().value![ALONE.loss]!;
          return { logLikelihood: -sum(losses), tokens: losses.length, bytes };
        }),
      }));
      return choiceMeasurement(scored, task, {
        "cut at the beginning": questions.filter(({ cut }) => cut).length,
      });
    },
  };
}

function encodeTexts(
  task: PerplexityTask | AgreementTask,
  items: readonly TextItem[],
  { tokenizer, model }: OpenedModel,
  contextLength: number,
): EncodedTask {
  const { length } = task.window;
  if (length !== undefined && length > model.config.contextLength) {
    throw new InputError(
      `has windows of ${length} tokens; the model was trained for ${model.config.contextLength}`,
      {
        where: `task "${task.name}"`,
        hint: "Give a smaller window.length, or leave it out.",
      },
    );
  }
  const all = items.map((item) => encodeText(item, task, tokenizer, contextLength));
  const texts = all.filter(({ stretches }) => stretches.length > 0);
  if (texts.length === 0) {
    throw new InputError("has no text with a token to predict", { where: `task "${task.name}"` });
  }
  // Of one long text the windows are what can be compared one by one; their bytes are by their share of the tokens.
  const [only, ...others] = texts as [typeof texts[number], ...typeof texts];
  const single = others.length === 0 && only.stretches.length > 1;
  const tokens = only.stretches.reduce((sum, { ids, from }) => sum + ids.length - from, 0);
  const units = single
    ? only.stretches.map((stretch) => ({
      stretches: [stretch],
      bytes: only.bytes * (stretch.ids.length - stretch.from) / tokens,
    }))
    : texts;
  const about = {
    unit: single ? "windows" : "texts",
    counts: { "without a token to predict": all.length - texts.length },
  };
  return {
    task,
    stretches: units.flatMap(({ stretches }) => stretches),
    measurement(scores) {
      const left = scores.values();
      const scored = units.map(({ stretches, bytes }) => ({
        bytes,
        scores: stretches.map(() => left.next().value!),
      }));
      if (task.kind === "agreement") return agreementMeasurement(scored.map(sumsOf), task.topK, about);
      const flat = (measure: string) => scores.flatMap((score) => Array.from(score[measure]!));
      return textMeasurement(
        scored.map((unit) => {
          const { tokens, sums } = sumsOf(unit);
          return { loss: sums[ALONE.loss]!, tokens, bytes: unit.bytes };
        }),
        {
          confidence: flat(ALONE.confidence).map((value) => Math.min(1, value)),
          correct: flat(ALONE.correct),
        },
        about,
      );
    },
  };
}

function sumsOf({ scores }: { readonly scores: readonly ScoredStretch[] }) {
  const measures = Object.keys(scores[0]!);
  return {
    tokens: scores.reduce((total, score) => total + score[ALONE.loss]!.length, 0),
    sums: Object.fromEntries(measures.map((name) => [
      name,
      scores.reduce((total, score) => total + sum(score[name]!), 0),
    ])),
  };
}

/** In f64: each value is f32 on the GPU. */
function sum(values: Float32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
