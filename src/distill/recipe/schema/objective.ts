/**
 * The losses that are minimised, and how they change from step to step.
 *
 * @module
 */
import { z } from "zod";
import { countOrNone, options, positive } from "./fields.ts";

export const course = z.strictObject({
  from: z.number().describe("Value up to the first of the steps"),
  to: z.number().describe("Value from the second of the steps on"),
  steps: z.tuple([countOrNone, countOrNone]).describe(
    "Steps done when it begins to change and when it has changed",
  ),
  shape: z.enum(["constant", "linear", "cosine"]).default("linear").describe(
    "How it goes from one to the other; constant: at once, at the second of the steps",
  ),
}).refine(({ steps: [first, last] }) => first <= last, {
  path: ["steps"],
  error: "must rise, such as [0, 100]",
});

export function isEverPositive(weight: z.output<typeof course> | undefined): boolean {
  return weight !== undefined && Math.max(weight.from, weight.to) > 0;
}

const balance = z.strictObject({
  max: positive.default(100).describe("Largest factor that balancing may give the loss"),
});

const objectiveTerm = z.strictObject({
  loss: z.string().min(1).describe(
    "Id of a loss, such as cross-entropy, forward-kl or a plugin's; `limbeck plugin list` names them",
  ),
  learner: z.enum(["student", "teacher"]).optional().describe(
    "The model that this loss trains, the other being its target; student when absent, teacher only with teacher.train",
  ),
  tokens: z.enum(["supervised", "all", "unshifted"]).optional().describe(
    "Tokens whose mean this loss is: supervised, as data.mask says, when absent; all: prompts too; unshifted: one later than supervised, a mistake of some papers' codes",
  ),
  source: z.string().min(1).optional().describe(
    "Counts only samples whose row has this `source`, such as teacher or student; all when absent",
  ),
  weight: z.number().min(0).default(1).describe("Factor of this loss in the sum"),
  balance: balance.optional().describe(
    "Gives this loss, times its weight, the size of all losses without `balance` together, anew in each micro-batch",
  ),
  temperature: positive.default(1).describe(
    "Divides the logits of both models; no temperature^2 factor is applied unless squareTemperature says so",
  ),
  squareTemperature: z.boolean().optional().describe(
    "Multiplies the weight by temperature^2, so that gradients keep their size",
  ),
  schedule: z.record(z.string(), course).optional().describe(
    "Course of weight, temperature or an option of the loss over the steps, by its name; held-out losses are measured at its end",
  ),
  options: options.describe("Options of the loss, checked by its own schema"),
});

export const objective = z.array(objectiveTerm).min(1);

/** The LLM-Neo objective (arXiv 2411.06839): half cross-entropy on the data, half forward KL to the teacher. */
export const defaultObjective: readonly { loss: string; weight: number }[] = [
  { loss: "cross-entropy", weight: 0.5 },
  { loss: "forward-kl", weight: 0.5 },
];
