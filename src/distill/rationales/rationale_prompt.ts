/**
 * What a teacher is asked: a request, solved examples, then a question with its true answer, and the place where its rationale is to go.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { filled, templateFields, templateProblem } from "../../evaluation/tasks/template.ts";
import type { Question, SolvedExample } from "./questions.ts";

/** How a question is asked. */
export interface RationaleTemplate {
  /** Said once, before everything; may be empty. */
  readonly request: string;
  /** One question, up to its rationale; with `{question}` and `{answer}`. */
  readonly before: string;
  /** What follows a rationale, and ends one where a text is continued. */
  readonly after: string;
}

/** Used where nothing else is given. */
export const USUAL_TEMPLATE = `Each answer below is right. Explain in a few sentences how to get to it.
---
Question: {question}
Answer: {answer}
Why: {rationale}
`;

const RATIONALE = /(?<!\{)\{rationale\}/;
/** A line that parts the request from the question. */
const RULE = /^---[ \t]*$/m;

/**
 * Reads a template: a question as it stands with `{question}`, `{answer}` and, behind both, `{rationale}`; before it, if there is one, a
 * request and a line of `---`. Where nothing but space follows the rationale, a blank line does.
 *
 * @throws {InputError} a field is missing, unknown, there twice or in the wrong order
 */
export function parseRationaleTemplate(text: string, where: string): RationaleTemplate {
  const refuse = (what: string): never => {
    throw new InputError(what, {
      where,
      hint: "A template is such as:\n" + USUAL_TEMPLATE.trimEnd().replace(/^/gm, "  "),
    });
  };
  const lines = text.replaceAll("\r\n", "\n").replace(/^\ufeff/, "");
  const rule = RULE.exec(lines);
  const request = rule ? lines.slice(0, rule.index).trim() : "";
  const one = rule ? lines.slice(rule.index + rule[0].length).replace(/^\n/, "") : lines;
  const problem = templateProblem(request) ?? templateProblem(one);
  if (problem !== undefined) refuse(problem);
  if (templateFields(request).length > 0) {
    refuse(`has {${templateFields(request)[0]}} before the line of ---, where nothing is filled in`);
  }
  const fields = templateFields(one);
  for (const field of ["question", "answer", "rationale"]) {
    if (!fields.includes(field)) refuse(`has no {${field}}`);
  }
  const unknown = fields.find((field) => !["question", "answer", "rationale"].includes(field));
  if (unknown !== undefined) {
    refuse(`has {${unknown}}; only {question}, {answer} and {rationale} are filled in`);
  }
  if (fields.at(-1) !== "rationale" || fields.filter((field) => field === "rationale").length > 1) {
    refuse("must have {rationale} once, behind all others: what comes before it is what the teacher sees");
  }
  const at = RATIONALE.exec(one)!;
  const after = filled(one.slice(at.index + at[0].length), {});
  return {
    request: filled(request, {}),
    before: one.slice(0, at.index),
    after: after.trim() === "" ? "\n\n" : after.trimEnd() + "\n",
  };
}

/**
 * The prompt of a question. It ends without a space, since tokenizers put that before the word that follows.
 *
 * @param examples put before it in their order; the question itself is left out of them
 */
export function rationalePrompt(
  { request, before, after }: RationaleTemplate,
  question: Question,
  examples: readonly SolvedExample[],
): string {
  const asked = (row: Question) => filled(before, { question: row.question, answer: row.answer });
  const solved = examples.filter((example) => example.question !== question.question)
    .map((example) => asked(example) + example.rationale + after);
  return (request === "" ? "" : request + "\n\n") + solved.join("") + asked(question).trimEnd();
}

/**
 * Refuses examples whose rationale holds what ends one: a teacher would learn from them to write on, and be cut.
 *
 * @throws {InputError} naming the first
 */
export function checkExamples({ after }: RationaleTemplate, examples: readonly SolvedExample[]): void {
  const cut = examples.find(({ rationale }) => rationale.includes(after));
  if (cut === undefined) return;
  throw new InputError(`its rationale holds ${JSON.stringify(after)}, which ends a rationale`, {
    where: cut.where,
    hint: "Write it without, or give a template in which something else follows {rationale}.",
  });
}
