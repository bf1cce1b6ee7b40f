/**
 * The layouts of known data sets: what their fields are called, and how their questions are asked by custom.
 *
 * @module
 */
import { isObject } from "../../base/json.ts";
import { FILE_FIELD } from "./rows.ts";
import type { TaskRow } from "./template.ts";

/** A known data set. */
interface Layout {
  /** The fields of a task that it fills in. */
  readonly task: Readonly<Record<string, unknown>>;
  /** Further fields of a row, where templates alone cannot say them. */
  readonly fields?: (row: TaskRow) => TaskRow;
}

/** Of Alpaca (Taori et al., 2023): what Dolly's, Self-Instruct's and Vicuna's instructions are asked with by MiniLLM and those after it. */
const INSTRUCTION =
  "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n" +
  "### Instruction:\n{instruction}\n\n### Response:\n";
const WITH_INPUT =
  "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that " +
  "appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n";

/** Of MMLU's files, which have no line with the names of columns. */
const MMLU = ["question", "A", "B", "C", "D", "answer"];
const LETTERS = ["A", "B", "C", "D"];

const choiceTask = { kind: "multiple-choice", context: "Question: {question}\nAnswer:" };

/** By name. */
export const LAYOUTS = {
  /** Hendrycks et al., arXiv 2009.03300: the letters of the choices, as its own harness asks them, without examples. */
  mmlu: {
    task: {
      kind: "multiple-choice",
      columns: MMLU,
      context:
        "The following are multiple choice questions (with answers) about {$subject}.\n\n{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:",
      choices: LETTERS,
      labels: LETTERS,
      answer: "{answer}",
      score: "sum",
    },
    fields: (row) => ({
      $subject: String(row[FILE_FIELD]).replace(/_(val|test|dev)$/, "").replaceAll("_", " "),
    }),
  },
  /** The same questions by the texts of their choices. */
  "mmlu-text": {
    task: {
      ...{ ...choiceTask, columns: MMLU, labels: LETTERS, answer: "{answer}" },
      choices: LETTERS.map((letter) => `{${letter}}`),
    },
  },
  /** Clark et al., arXiv 1803.05457: AI2's own lines, or those of its copy with lists of texts and labels. */
  arc: {
    task: {
      ...choiceTask,
      context: "Question: {$stem}\nAnswer:",
      choices: "{$texts}",
      labels: "{$labels}",
      answer: "{answerKey}",
    },
    fields(row) {
      const { question } = row;
      const inner = isObject(question) ? question : row;
      const choices = inner.choices;
      const of = (name: string) =>
        Array.isArray(choices)
          ? choices.map((choice) => (isObject(choice) ? choice[name] : undefined))
          : isObject(choices)
          ? choices[name]
          : undefined;
      return {
        ...given("$stem", isObject(question) ? question.stem : question),
        ...{ ...given("$texts", of("text")), ...given("$labels", of("label")) },
      };
    },
  },
  /** Bisk et al., arXiv 1911.11641. */
  piqa: {
    task: {
      ...{ ...choiceTask, context: "Question: {goal}\nAnswer:", choices: ["{sol1}", "{sol2}"] },
      ...{ labels: ["0", "1"], answer: "{label}" },
    },
  },
  /** Cobbe et al., arXiv 2110.14168, without examples. */
  gsm8k: {
    task: {
      kind: "exact-match",
      prompt: "Question: {question}\nAnswer:",
      answer: "{answer}",
      extract: "number",
      stop: ["\nQuestion:"],
    },
  },
  /** Rows of instructions with answers, Dolly's fields among them (Conover et al., 2023). */
  dolly: {
    task: {
      kind: "rouge",
      prompt: ["{$asked}", WITH_INPUT, INSTRUCTION],
      reference: "{$reference}",
      stop: ["\n### "],
    },
    fields: (row) => ({
      // What is a prompt already is asked as it stands.
      ...(row.instruction === undefined ? given("$asked", row.prompt) : {}),
      ...given("input", row.input ?? row.context ?? ""),
      ...given("$reference", row.response ?? row.output ?? row.answer),
    }),
  },
  /** Wang et al., arXiv 2212.10560: the 252 user-oriented instructions; the first instance of each. */
  "self-instruct": {
    task: {
      kind: "rouge",
      prompt: [WITH_INPUT, INSTRUCTION],
      reference: "{instances.0.output}",
      stop: ["\n### "],
    },
    fields: (row) => {
      const [first] = Array.isArray(row.instances) ? row.instances : [];
      return given("input", isObject(first) ? first.input : "");
    },
  },
  /** Chiang et al., 2023: 80 questions without answers, so that what the teacher writes is the reference. */
  vicuna: {
    task: { kind: "rouge", prompt: INSTRUCTION, reference: "{$teacher}", stop: ["\n### "] },
    fields: (row) => given("instruction", Array.isArray(row.turns) ? row.turns[0] : row.text),
  },
} as const satisfies Readonly<Record<string, Layout>>;

/** Names of the layouts. */
export const LAYOUT_NAMES = Object.keys(LAYOUTS) as [keyof typeof LAYOUTS, ...(keyof typeof LAYOUTS)[]];

/** A row with what its layout adds. */
export function withLayout(row: TaskRow, layout: keyof typeof LAYOUTS | undefined): TaskRow {
  const { fields }: Layout = layout === undefined ? { task: {} } : LAYOUTS[layout];
  return fields ? { ...row, ...fields(row) } : row;
}

function given(name: string, value: unknown): TaskRow {
  return value === undefined ? {} : { [name]: value };
}
