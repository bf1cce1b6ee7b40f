/**
 * The rules and defaults of a recipe. The descriptions here become `recipe.schema.json`, the comments of `limbeck init` and the
 * "what would be right" of error messages, so each says what the field means and its unit.
 *
 * @module
 */
import { z } from "zod";
import { isObject } from "../../../base/json.ts";
import type { Recipe, RecipeInput } from "../recipe.ts";
import { adapter } from "./adapter.ts";
import { data } from "./data.ts";
import { evaluate } from "./evaluate.ts";
import { haveNumbers } from "./fields.ts";
import { defaultObjective, isEverPositive, objective } from "./objective.ts";
import { checkOnPolicy } from "./on_policy.ts";
import { limits, output, samples } from "./run.ts";
import { checkBesidePrivileged } from "./privileged.ts";
import { checkOwnTeacher } from "./several_teachers.ts";
import { checkBesideServed } from "./server.ts";
import { student } from "./student.ts";
import { teacher } from "./teacher.ts";
import { train } from "./train.ts";

/** Schema of a recipe. Use `parseRecipe`, which also derives defaults from other fields and explains problems. */
export const recipeSchema: z.ZodType<Recipe, RecipeInput> = z.strictObject({
  teacher: teacher.describe("The model that is imitated"),
  student: student.describe("The model that learns"),
  data: data.describe("Training and held-out samples"),
  objective: objective.default(defaultObjective.map((term) => ({ ...term, temperature: 1, options: {} })))
    .describe("Weighted sum of losses that is minimised; 0.5 cross-entropy + 0.5 forward-kl when absent"),
  adapter: z.union([adapter, z.literal("none")]).prefault({}).describe(
    "What is trained beside the student's weights; none: only what student.train names",
  ),
  train: train.prefault({}).describe("How it is trained"),
  samples: samples.prefault({}).describe("Sample texts for the before and after"),
  evaluate: evaluate.optional().describe(
    "Tasks that teacher, student before and student after are measured on at the end; none when absent",
  ),
  output: output.prefault({}).describe("What the run leaves"),
  limits: limits.prefault({}).describe("Bounds of the run"),
}).refine((recipe) => recipe.data.contextLength <= recipe.train.tokensPerMicroBatch, {
  path: ["train", "tokensPerMicroBatch"],
  error: "must be at least data.contextLength, so that the longest sample fits",
  when: ({ value }) =>
    isObject(value) && haveNumbers(value.data, "contextLength") &&
    haveNumbers(value.train, "tokensPerMicroBatch"),
}).refine(
  // A whole model that only teaches its shapes may have nothing to learn.
  ({ objective, train }) =>
    train.oneForAll?.target === "teacher" ||
    objective.some(({ weight, schedule }) => weight !== 0 || isEverPositive(schedule?.weight)),
  {
    path: ["objective"],
    error: "at least one loss must have a weight above 0",
    when: ({ value }) =>
      isObject(value) && isObject(value.train) && Array.isArray(value.objective) &&
      value.objective.every((term) => isObject(term) && typeof term.weight === "number"),
  },
).superRefine(({ teacher, student, data, objective, adapter, train }, context) => {
  const wrong = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
  checkOneForAll({ teacher, student, objective, adapter, train }, wrong);
  checkBesideServed({ teacher, student, train }, wrong);
  checkOnPolicy({ teacher, student, data, train }, wrong);
  checkOwnTeacher(teacher, { student, train }, wrong);
  checkBesidePrivileged(teacher, { student, data }, wrong);
  const trains = objective.findIndex(({ learner }) => learner === "teacher");
  if (trains >= 0 && !teacher.train) {
    context.addIssue({
      code: "custom",
      path: ["objective", trains, "learner"],
      message: "is the teacher, which only learns with teacher.train: true",
    });
  } else if (trains < 0 && teacher.train) {
    context.addIssue({
      code: "custom",
      path: ["teacher", "train"],
      message: "is true, but no loss has the teacher for its learner; add one, such as " +
        "{loss: cross-entropy, learner: teacher}",
    });
  }
  if (objective.every(({ learner }) => learner === "teacher")) {
    context.addIssue({
      code: "custom",
      path: ["objective"],
      message: "needs a loss whose learner is the student",
    });
  }
  const unequal = objective.findIndex((t) =>
    t.balance && (t.source || (t.tokens ?? "supervised") !== "supervised")
  );
  if (unequal >= 0) {
    context.addIssue({
      code: "custom",
      path: ["objective", unequal, "balance"],
      message: "only works over the supervised tokens of all samples: leave out tokens and source",
    });
  }
  if (teacher.align && train.onPolicy) {
    context.addIssue({
      code: "custom",
      path: ["train", "onPolicy"],
      message:
        "cannot be had with teacher.align: texts of the student are not encoded for a teacher with another tokenizer",
    });
  }
  if (teacher.align && student.model === "teacher") {
    context.addIssue({
      code: "custom",
      path: ["teacher", "align"],
      message: "has no use with student.model: teacher, which has the teacher's tokenizer; leave it out",
    });
  }
  if (student.shape !== undefined && student.layers) {
    context.addIssue({
      code: "custom",
      path: ["student", "shape"],
      message: "says which layers are kept, and so does student.layers; leave out one of the two",
    });
  }
  if (adapter === "none" && !student.train?.length) {
    context.addIssue({
      code: "custom",
      path: ["adapter"],
      message: "is none, and student.train names nothing, so nothing would be trained; " +
        "name tensors, such as student.train: [linear, norms]",
    });
  }
  if (adapter === "none" && teacher.train && !teacher.adapter) {
    context.addIssue({
      code: "custom",
      path: ["teacher", "adapter"],
      message:
        "is absent, and there is no adapter of the student that it could be like; give the teacher its own",
    });
  }
  for (const learner of ["student", "teacher"]) {
    const own = objective.filter((term) => (term.learner ?? "student") === learner);
    if (own.length > 0 && own.every((term) => term.balance)) {
      context.addIssue({
        code: "custom",
        path: ["objective", objective.indexOf(own[0]!), "balance"],
        message: `has nothing to be balanced with: at least one loss of the ${learner} must be without it`,
      });
    }
  }
});

/** What a run of several shapes cannot have. */
function checkOneForAll(
  { teacher, student, objective, adapter, train }: Pick<
    Recipe,
    "teacher" | "student" | "objective" | "adapter" | "train"
  >,
  wrong: (path: PropertyKey[], message: string) => void,
): void {
  if (!student.shapes) {
    if (train.oneForAll) {
      wrong(["train", "oneForAll"], "says how several shapes are trained, but student.shapes names none");
    }
    return;
  }
  const [first, ...others] = objective;
  const isPlain = others.length === 0 && !first?.tokens && !first?.source && first?.temperature === 1;
  const byTeacher = train.oneForAll?.target === "teacher";
  if (!isPlain || !(byTeacher || first.loss === "cross-entropy")) {
    wrong(
      ["objective"],
      `must be ${
        byTeacher ? "one loss of the supervised tokens, at temperature 1" : "cross-entropy alone"
      }, ` +
        "which the whole model learns by; train.oneForAll.loss is what the other shapes learn by",
    );
  }
  const beside: [unknown, string[], string][] = [
    [
      student.layers ?? student.shape,
      ["student", "shapes"],
      "are shapes of a whole model: leave out layers and shape",
    ],
    [
      student.train?.length,
      ["student", "train"],
      "cannot be combined with student.shapes: only an adapter can",
    ],
    [adapter === "none", ["adapter"], "is none, but the shapes of student.shapes share an adapter"],
    [teacher.train, ["teacher", "train"], "cannot be combined with student.shapes"],
    [teacher.align, ["teacher", "align"], "cannot be combined with student.shapes"],
    [
      teacher.cache,
      ["teacher", "cache"],
      "has no use with student.shapes: their target is the whole student, or a teacher that is there",
    ],
  ];
  for (const [given, path, message] of beside) if (given) wrong(path, message);
}
