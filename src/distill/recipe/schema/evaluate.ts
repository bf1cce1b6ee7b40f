/**
 * What is measured of teacher and student at the end of a run.
 *
 * @module
 */
import { z } from "zod";
import { InputError } from "../../../base/errors.ts";
import { type EvaluationTask, parseEvaluationTask } from "../../../evaluation/tasks/task.ts";

const MOST_TASKS = 32;

/** A task as it is written: tasks have schemas of their own, by kind. */
const task = z.union([
  z.string().min(1).describe("Path of a task's file"),
  z.looseObject({
    kind: z.string().optional().describe("perplexity, agreement, multiple-choice, exact-match or rouge"),
    layout: z.string().optional().describe("A known data set's fields: mmlu, arc, piqa, gsm8k, dolly, ..."),
    data: z.union([z.string(), z.array(z.string())]).optional().describe("Files of rows"),
  }),
]).transform((written, context): EvaluationTask => {
  const wrong = (message: string) => {
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  };
  if (typeof written === "string") {
    return wrong("names a file, which only a recipe in a file of its own can; write the task itself");
  }
  try {
    return parseEvaluationTask(written);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return wrong(error.message);
  }
});

/** Tasks with names of their own. */
export const evaluationTasks = z.array(task).min(1).max(MOST_TASKS).superRefine((tasks, { addIssue }) => {
  tasks.forEach(({ name }, i) => {
    const other = tasks.findIndex((task) => task.name === name);
    if (other === i) return;
    const message = `is ${JSON.stringify(name)}, as that of task ${other}; give each a name of its own`;
    addIssue({ code: "custom", path: [i, "name"], message });
  });
}).describe("Tasks, or paths of their files: what models are asked, and how their answers count");

export const evaluate = z.strictObject({ tasks: evaluationTasks });
