/**
 * A teacher behind a server that speaks the OpenAI API.
 *
 * @module
 */
import { z } from "zod";
import { urlProblem } from "../../../served/server.ts";
import type { Recipe, TeacherCacheRecipe, TeacherRecipe } from "../recipe.ts";
import { SERVED } from "../teachers.ts";
import { count } from "./fields.ts";

export const server = z.strictObject({
  url: z.string().describe("What the server's paths begin with, such as https://host/v1"),
  model: z.string().min(1).describe("What the server calls the model"),
  keyVariable: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "must be the name of an environment variable")
    .optional()
    .describe(
      "Environment variable that holds the server's key; it is written nowhere. None is sent when absent",
    ),
  concurrency: z.number().int().min(1).max(256).default(4).describe("Requests that are under way at once"),
  requestsPerMinute: count.optional().describe("Most requests a minute; as fast as it answers when absent"),
  tokensPerMinute: count.optional().describe("Most tokens a minute, of prompts and answers together"),
  timeoutSeconds: z.number().gt(0).max(3600).default(300).describe(
    "Seconds within which an answer must be there",
  ),
  budget: z.strictObject({
    requests: count.optional().describe("Most requests in all"),
    tokens: count.optional().describe("Most tokens in all, of prompts and answers together"),
  }).optional().describe("What may be used for this cache in all, over restarts too"),
  allowHttp: z.boolean().optional().describe(
    "Allows http, which others on the way can read, to another machine than this one",
  ),
}).superRefine(({ url, allowHttp }, context) => {
  const problem = urlProblem(url, allowHttp);
  if (problem !== undefined) context.addIssue({ code: "custom", path: ["url"], message: problem });
});

type Teacher = Pick<
  TeacherRecipe,
  "model" | "server" | "quantize" | "stream" | "train" | "cache" | "teachers"
>;

/** What is missing where a teacher is behind a server and nobody says which. */
export const NO_SERVER =
  "is missing: where the teacher is served, such as {url: https://host/v1, model: NAME}";

/** What is wrong with what is kept of a teacher behind a server, if anything, with the field of the cache where that is in one. */
export function servedCacheProblem(
  cache: TeacherCacheRecipe | undefined,
): { field?: string; message: string } | undefined {
  if (cache?.payload === "hidden") {
    if (cache.folder !== undefined) return undefined;
    return { field: "folder", message: "is missing: where hidden states and the teacher's head are kept" };
  }
  if (cache?.topK !== undefined) return undefined;
  return {
    message:
      "must say how many log-probabilities are asked of the server at each position, such as {topK: 20}; of another Limbeck, " +
      "{payload: hidden, folder: caches} too",
  };
}

/** What a teacher behind a server must and cannot have. */
export function checkServed(
  { model, server, quantize, stream, train, cache, teachers }: Teacher,
  context: z.core.$RefinementCtx,
): void {
  const wrong = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
  // What each of several must and cannot have is looked at with them.
  if (teachers) {
    if (server) wrong(["server"], "belongs to the one of teachers that it serves");
    return;
  }
  if (model !== SERVED) {
    if (server) wrong(["server"], `says where the teacher is served, but teacher.model is not \`${SERVED}\``);
    return;
  }
  if (!server) {
    return wrong(["server"], NO_SERVER);
  }
  const elsewhere = "cannot be had with a teacher behind a server, whose weights are not here; leave it out";
  if (quantize) wrong(["quantize"], elsewhere);
  if (stream !== undefined) wrong(["stream"], elsewhere);
  if (train) wrong(["train"], elsewhere);
  const problem = servedCacheProblem(cache);
  if (problem) wrong(["cache", ...(problem.field === undefined ? [] : [problem.field])], problem.message);
}

/** What a student of a teacher behind a server cannot be. */
export function checkBesideServed(
  { teacher, student, train }: Pick<Recipe, "teacher" | "student" | "train">,
  wrong: (path: PropertyKey[], message: string) => void,
): void {
  if (teacher.model !== SERVED) return;
  if (student.model === "teacher") {
    wrong(
      ["student", "model"],
      "is the teacher's, whose weights are behind a server: name a model that is here",
    );
  }
  if (train.oneForAll?.target === "teacher") {
    wrong(["train", "oneForAll", "target"], "must run the teacher, which is behind a server: leave it out");
  }
}
