/**
 * What one model came to on one task: its figures, and what each item gave, so that models can be compared item by item.
 *
 * @module
 */
import { type Calibration, calibration } from "../scores/calibration.ts";
import {
  CHOICE_SCORES,
  type ChoiceScore,
  choiceScore,
  pick,
  pickConfidence,
  type ScoredChoice,
} from "../scores/choices.ts";
import { rougeL } from "../scores/rouge.ts";
import { comparedAnswer } from "../tasks/items.ts";
import type { ExactMatchTask, MultipleChoiceTask, RougeTask } from "../tasks/task.ts";

/** One figure of a measurement. */
export interface Figure {
  /** Stable, for machines. */
  readonly key: string;
  /** For people. */
  readonly title: string;
  readonly better: "lower" | "higher";
  /** Null where it is not finite. */
  readonly value: number | null;
  /** What each item gave: the figure is sum of values / sum of sizes, sizes being 1 when absent. Absent where it is no such mean. */
  readonly values?: readonly number[];
  readonly sizes?: readonly number[];
}

/** What one model came to on one task. */
export interface Measurement {
  /** The first one decides. */
  readonly figures: readonly Figure[];
  /** What an item is, in the plural. */
  readonly unit: string;
  readonly items: number;
  /** What happened on the way, by name, such as `ties`; zeros are left out. */
  readonly counts: Readonly<Record<string, number>>;
  readonly calibration?: Calibration;
  /** Some of the texts that the model wrote. */
  readonly texts?: readonly {
    readonly prompt: string;
    readonly text: string;
    readonly reference: string;
    readonly score: number;
  }[];
}

/** What is kept of texts that a model wrote. */
const SHOWN_TEXTS = 5;

/** The mean of what items gave. */
function mean(
  key: string,
  title: string,
  better: Figure["better"],
  values: readonly number[],
  sizes?: readonly number[],
): Figure {
  const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
  const value = sum(values) / (sizes ? sum(sizes) : values.length);
  return { key, title, better, value: finite(value), values, ...(sizes ? { sizes } : {}) };
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

function counted(counts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

/** What was found of one text, or of one window of it. */
export interface ScoredText {
  /** Sum of -log p over its counted tokens, nats. */
  readonly loss: number;
  readonly tokens: number;
  /** UTF-8 bytes of what was predicted; 0 where that is not known of a part. */
  readonly bytes: number;
}

/** What texts are predicted with, token by token. */
export interface PredictedTokens {
  readonly confidence: readonly number[];
  /** 1 where the likeliest token is the right one, else 0. */
  readonly correct: readonly number[];
}

/** How well texts are predicted. @param texts At least one; items are these */
export function textMeasurement(
  texts: readonly ScoredText[],
  { confidence, correct }: PredictedTokens,
  { unit, counts = {} }: { unit: string; counts?: Readonly<Record<string, number>> },
): Measurement {
  const losses = texts.map(({ loss }) => loss);
  const loss = mean("loss", "loss, nats a token", "lower", losses, texts.map(({ tokens }) => tokens));
  const bits = losses.map((loss) => loss / Math.LN2);
  const calibrated = calibration(confidence, correct);
  return {
    figures: [
      loss,
      {
        key: "perplexity",
        title: "perplexity",
        better: "lower",
        value: loss.value === null ? null : finite(Math.exp(loss.value)),
      },
      mean("bits-per-byte", "bits a byte", "lower", bits, texts.map(({ bytes }) => bytes)),
      {
        key: "top-1-accuracy",
        title: "next token right",
        better: "higher",
        value: finite(calibrated.accuracy),
      },
      calibrationFigure(calibrated),
    ],
    ...{ unit, items: texts.length, counts: counted(counts), calibration: calibrated },
  };
}

function calibrationFigure({ expectedError }: Calibration): Figure {
  return {
    ...{ key: "expected-calibration-error", title: "calibration error", better: "lower" },
    value: finite(expectedError),
  };
}

/** How near a model is to its teacher on one text: sums over its counted tokens. */
export interface ComparedText {
  readonly tokens: number;
  readonly sums: Readonly<Record<string, number>>;
}

/** What is compared, in the order in which it is shown. */
const COMPARED: readonly (readonly [key: string, title: string, better: Figure["better"]])[] = [
  ["forward-kl", "KL(teacher ‖ model)", "lower"],
  ["reverse-kl", "KL(model ‖ teacher)", "lower"],
  ["jensen-shannon", "Jensen-Shannon", "lower"],
  ["top-1-agreement", "same likeliest token", "higher"],
];

/** How near a model is to its teacher. */
export function agreementMeasurement(
  texts: readonly ComparedText[],
  topK: number,
  { unit, counts = {} }: { unit: string; counts?: Readonly<Record<string, number>> },
): Measurement {
  const sizes = texts.map(({ tokens }) => tokens);
  const shown: typeof COMPARED = [
    ...COMPARED,
    [`top-${topK}-overlap`, `overlap of top ${topK}`, "higher"],
    [`teacher-first-in-top-${topK}`, `teacher's first in top ${topK}`, "higher"],
  ];
  return {
    figures: shown.map(([key, title, better]) =>
      mean(key, title, better, texts.map(({ sums }) => sums[key]!), sizes)
    ),
    ...{ unit, items: texts.length, counts: counted(counts) },
  };
}

/** The choices of one question, as a model finds them. */
export interface ScoredQuestion {
  readonly choices: readonly ScoredChoice[];
  readonly answer: number;
}

const SCORED_BY: Readonly<Record<ChoiceScore, string>> = {
  sum: "by sum",
  "per-token": "by token",
  "per-byte": "by byte",
};

/** How many questions are answered rightly, by each way of scoring; the task's own first. */
export function choiceMeasurement(
  questions: readonly ScoredQuestion[],
  { score }: Pick<MultipleChoiceTask, "score">,
  counts: Readonly<Record<string, number>> = {},
): Measurement {
  const ways = [score, ...CHOICE_SCORES.filter((way) => way !== score)];
  const picks = (way: ChoiceScore) =>
    questions.map(({ choices, answer }) => {
      const scores = choices.map((choice) => choiceScore(choice, way));
      const { choice, tied } = pick(scores);
      return {
        right: Number(choice === answer),
        tied,
        confidence: pickConfidence(scores),
        undecided: choice < 0,
      };
    });
  const own = picks(score);
  const decided = own.filter(({ undecided }) => !undecided);
  const calibrated = calibration(
    decided.map(({ confidence }) => confidence),
    decided.map(({ right }) => right),
  );
  return {
    figures: [
      ...ways.map((way) =>
        mean(
          way === score ? "accuracy" : `accuracy-${way}`,
          way === score ? `accuracy, ${SCORED_BY[way]}` : SCORED_BY[way],
          "higher",
          way === score ? own.map(({ right }) => right) : picks(way).map(({ right }) => right),
        )
      ),
      calibrationFigure(calibrated),
    ],
    ...{ unit: "questions", items: questions.length },
    counts: counted({
      ...counts,
      ties: own.filter(({ tied }) => tied).length,
      undecided: own.filter(({ undecided }) => undecided).length,
    }),
    calibration: calibrated,
  };
}

/** What a model wrote. */
export interface WrittenAnswer {
  readonly prompt: string;
  readonly text: string;
  readonly reference: string;
  readonly tokens: number;
  /** Whether the model ended it itself, rather than the limit. */
  readonly finished: boolean;
}

/** How good what a model wrote is. */
export function writtenMeasurement(
  answers: readonly WrittenAnswer[],
  task: ExactMatchTask | RougeTask,
): Measurement {
  const scored = answers.map((answer) => {
    if (task.kind === "rouge") {
      return { answer, score: rougeL(answer.reference, answer.text, { stemmed: task.stemmed }), given: true };
    }
    const compared = comparedAnswer(answer.text, task.extract);
    return { answer, score: Number(compared === answer.reference), given: compared !== null };
  });
  const values = scored.map(({ score }) => (typeof score === "number" ? score : score.f));
  const rougeFigure = (way: "precision" | "recall") =>
    mean(
      `rouge-l-${way}`,
      way,
      "higher",
      scored.map(({ score }) => (typeof score === "number" ? score : score[way])),
    );
  return {
    figures: task.kind === "rouge"
      ? [
        mean("rouge-l", "ROUGE-L, F", "higher", values),
        rougeFigure("precision"),
        rougeFigure("recall"),
        lengths(answers),
      ]
      : [mean("exact-match", "exact match", "higher", values), lengths(answers)],
    ...{ unit: "answers", items: answers.length },
    counts: counted({
      ...(task.kind === "exact-match" && task.extract === "number"
        ? { "without a number": scored.filter(({ given }) => !given).length }
        : {}),
      "empty": answers.filter(({ text }) => text.trim() === "").length,
      "cut at the limit": answers.filter(({ finished }) => !finished).length,
    }),
    texts: scored.slice(0, SHOWN_TEXTS).map(({ answer: { prompt, text, reference } }, i) => ({
      ...{ prompt, text, reference, score: values[i]! },
    })),
  };
}

function lengths(answers: readonly WrittenAnswer[]): Figure {
  const { values: _, ...figure } = mean(
    "tokens",
    "tokens an answer",
    "lower",
    answers.map(({ tokens }) => tokens),
  );
  return figure;
}
