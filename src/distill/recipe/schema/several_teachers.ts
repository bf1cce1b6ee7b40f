/**
 * Rules of teachers that are several, and of students that teach themselves.
 *
 * @module
 */
import { isMoving, keepsPart, SERVED, weightAt } from "../teachers.ts";
import type { Combine, SelfRecipe, TeacherCacheRecipe, TeacherMemberRecipe } from "../recipe.ts";
import { NO_SERVER, servedCacheProblem } from "./server.ts";

/** What the rules look at. */
interface Teachers {
  readonly model: string;
  readonly self?: SelfRecipe | undefined;
  readonly tokenizer?: string | undefined;
  readonly teachers?: readonly Readonly<Member>[] | undefined;
  readonly combine?: Combine | undefined;
  readonly quantize?: unknown;
  readonly stream?: boolean | undefined;
  readonly train: boolean;
  readonly align?: unknown;
  readonly cache?: TeacherCacheRecipe | undefined;
}

type Member = { [K in keyof TeacherMemberRecipe]: TeacherMemberRecipe[K] | undefined };

/** Steps between which weights only rise or only fall. */
function turningPoints(teachers: readonly Readonly<Member>[]): number[] {
  const own = teachers.flatMap(({ schedule }) => {
    const { steps: [first, last] = [0, 0] as const } = schedule?.weight ?? {};
    return [first, Math.max(first, last - 1), last];
  });
  return [0, ...own];
}

interface Context {
  addIssue(issue: { code: "custom"; path: PropertyKey[]; message: string }): void;
}

/** What a student that is its own teacher cannot have. */
export function checkSelf(
  { model, self, tokenizer, quantize, stream, train, align, cache, teachers }: Teachers,
  context: Context,
) {
  const wrong = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
  if (teachers) return;
  if (model !== "student") {
    if (self) wrong(["self"], "says what of the student teaches it, but teacher.model is not `student`");
    return;
  }
  if (tokenizer !== undefined) {
    wrong(["tokenizer"], "is the student's, where the student teaches itself; leave it out");
  }
  if (quantize) {
    wrong(["quantize"], "is student.quantize, where the student teaches itself; leave it out here");
  }
  if (stream) {
    wrong(["stream"], "cannot be had where the student teaches itself: its layers are on the GPU anyway");
  }
  if (train) {
    wrong(
      ["train"],
      "cannot be had where the student teaches itself; self: {kind: mean, decay: 0.999} follows it",
    );
  }
  if (align) wrong(["align"], "is for another tokenizer, and the student's own is the same; leave it out");
  if (cache && isMoving(self)) {
    wrong(
      ["cache"],
      `cannot keep what changes as the student learns; leave it out, or self.kind: ${self!.kind}`,
    );
  }
}

/** What several teachers must and cannot have. */
export function checkTeachers(
  { model, self, tokenizer, teachers, combine, quantize, stream, train, align, cache }: Teachers,
  context: Context,
): void {
  const wrong = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
  if (!teachers) {
    if (combine) wrong(["combine"], "says what several teachers are together, but teachers names none");
    return;
  }
  if (!combine) {
    wrong(["combine"], "is missing: mixture, product, best or tag, what the teachers are together");
  }
  if (teachers[0] && model !== teachers[0].model) {
    wrong(["model"], "is another than that of the first of teachers; leave it out");
  }
  if (self) wrong(["self"], "belongs to the one of teachers whose model is `student`");
  if (quantize) wrong(["quantize"], "belongs to each of teachers");
  if (tokenizer !== undefined) wrong(["tokenizer"], "belongs to each of teachers");
  if (align) {
    wrong(
      ["align"],
      "cannot be had with several teachers, which need one vocabulary: leave it out, or name one teacher",
    );
  }
  if (train) wrong(["train"], "cannot be had with several teachers: leave it out, or name one teacher");
  if (stream) {
    wrong(
      ["stream"],
      "cannot be had with several teachers; with teacher.cache each of them is streamed where that is needed",
    );
  }
  const weighs = combine === "mixture" || combine === "product";
  checkStored(teachers, combine, cache, wrong);
  const names = new Map<string, number>();
  for (
    const [i, { model, name, weight, schedule, layers, quantize, self, tokenizer }] of teachers.entries()
  ) {
    const at = (field: string, message: string) => wrong(["teachers", i, field], message);
    if (!weighs && weight !== undefined) {
      at("weight", `has no meaning with combine: ${combine}; leave it out`);
    }
    if (!weighs && schedule) at("schedule", `has no meaning with combine: ${combine}; leave it out`);
    if (schedule && Math.min(schedule.weight.from, schedule.weight.to) < 0) {
      at("schedule", "must not fall below 0");
    }
    if (model !== "student" && self) {
      at("self", "says what of the student teaches it, but model is not `student`");
    }
    if (model === "student" && tokenizer !== undefined) {
      at("tokenizer", "is the student's, where the student teaches itself");
    }
    if (model === "student" && layers) at("layers", "are student.layers, where the student teaches itself");
    if (model === "student" && quantize) {
      at("quantize", "is student.quantize, where the student teaches itself");
    }
    if (isMoving(self) && combine === "best") {
      at(
        "self",
        "changes as the student learns, but which teacher is best for a sample is found once, before training",
      );
    }
    if (name === undefined) continue;
    const other = names.get(name);
    if (other === undefined) names.set(name, i);
    else at("name", `is ${JSON.stringify(name)}, as that of entry ${other}; give each a name of its own`);
  }
  if (teachers.filter(({ self }) => isMoving(self)).length > 1) {
    wrong(["teachers"], "has more than one that follows the student; one copy of it is kept");
  }
  const empty = weighs
    ? turningPoints(teachers).find((step) => teachers.every((t) => weightAt(t, step) <= 0))
    : undefined;
  if (empty !== undefined) {
    const when = teachers.some((t) => t.schedule) ? ` after ${empty} steps` : "";
    wrong(["teachers"], `have no weight above 0${when}; at least one must have one`);
  }
}

/** What can be stored of several teachers, and what has to be of those behind servers. */
function checkStored(
  teachers: readonly Readonly<Member>[],
  combine: Combine | undefined,
  ofAll: TeacherCacheRecipe | undefined,
  wrong: (path: PropertyKey[], message: string) => void,
): void {
  const weighs = combine === "mixture" || combine === "product";
  const caches = teachers.map(({ cache }) => cache ?? ofAll);
  const first = caches.findIndex(keepsPart);
  const places = new Set<string>();
  for (const [i, { model, server, layers, quantize, self, cache: own }] of teachers.entries()) {
    const at = (field: string, message: string) => wrong(["teachers", i, field], message);
    const cache = caches[i];
    // What is said for all of them is told of once.
    const ofCache = (message: string, field?: string) => {
      const path = [...(own ? ["teachers", i, "cache"] : ["cache"]), ...(field === undefined ? [] : [field])];
      if (places.has(path.join())) return;
      places.add(path.join());
      wrong(path, message);
    };
    if (isMoving(self) && cache) {
      at(
        "self",
        "changes as the student learns, so no cache can keep it" +
          (own ? "" : "; say what is kept with each of the others, not in teacher.cache"),
      );
    } else if (isMoving(self) && first >= 0) {
      at(
        "self",
        "changes as the student learns, and cannot be measured beside a teacher of which a part of the distribution alone is kept; " +
          `take cache: {payload: hidden} in teachers.${first}, or leave self out`,
      );
    }
    if (weighs && keepsPart(cache)) {
      ofCache(
        `cannot be had with combine: ${combine}, which needs every logit of every teacher: what one cache keeps, another lacks; ` +
          `take cache: {payload: hidden}${
            model === SERVED ? " of another Limbeck" : ", leave it out"
          }, or combine: best or tag`,
      );
    } else if (
      keepsPart(cache) && (cache!.topK !== caches[first]!.topK || cache!.samples !== caches[first]!.samples)
    ) {
      ofCache(
        `keeps another part of the distribution than that of teachers.${first}, and one kernel reads the rows of all: give all that keep ` +
          "such a part the same topK, or samples; hidden states may stand beside",
      );
    }
    if (model !== SERVED) {
      if (server) at("server", `says where it is served, but model is not \`${SERVED}\``);
      continue;
    }
    if (!server) at("server", NO_SERVER);
    const elsewhere = "cannot be had of a teacher behind a server, whose weights are not here; leave it out";
    if (layers) at("layers", elsewhere);
    if (quantize) at("quantize", elsewhere);
    const problem = servedCacheProblem(cache);
    if (!problem) continue;
    if (cache) ofCache(problem.message, problem.field);
    else at("cache", weighs ? NO_HIDDEN : problem.message);
  }
}

/** What is missing where a teacher behind a server is mixed with others, or multiplied. */
const NO_HIDDEN =
  "is missing: a mixture or product needs every logit, so {payload: hidden, folder: caches} of another Limbeck";

/** What a student cannot be where it teaches itself, or has several teachers. */
export function checkOwnTeacher(
  { model, teachers, combine }: Pick<Teachers, "model" | "teachers" | "combine">,
  { student, train }: {
    readonly student: { readonly model: string; readonly shapes?: unknown };
    readonly train: { readonly onPolicy?: unknown };
  },
  wrong: (path: PropertyKey[], message: string) => void,
): void {
  if (model === "student" && student.model === "teacher") {
    const other = teachers
      ? "; name the model, or put another first in teacher.teachers"
      : "; name the model in one of the two";
    wrong(["student", "model"], `is the teacher's, which is the student's${other}`);
  }
  if (train.onPolicy && (combine === "best" || combine === "tag")) {
    wrong(
      ["train", "onPolicy"],
      `cannot be had with teacher.combine: ${combine}, since nobody has said which teacher the student's own texts have; ` +
        "take mixture or product",
    );
  }
  if (student.shapes && (teachers || model === "student")) {
    wrong(
      ["student", "shapes"],
      "learn from the whole model or from one teacher: name one model in teacher.model",
    );
  }
}
