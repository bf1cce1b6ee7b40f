/**
 * Training and held-out samples.
 *
 * @module
 */
import { z } from "zod";
import { SET_NAME, SET_NAME_FORM, setName as nameOfPath } from "../data_sets.ts";
import { count, path } from "./fields.ts";

const setPath = path.describe("JSON Lines file");
const setName = z.string().regex(SET_NAME, `must be ${SET_NAME_FORM}`).optional().describe(
  "How reports call the set; the file's name without its ending when absent",
);
const MOST_SETS = 64;

const trainingSet = z.strictObject({
  path: setPath,
  name: setName,
  weight: z.number().min(0).max(1e9).default(1).describe(
    "Share of what is drawn, against the weights of the other sets; 0: nothing is drawn of it",
  ),
});

/** Sets of a list have names of their own. */
function checkNames(
  sets: readonly { path: string; name?: string | undefined }[],
  { addIssue }: { addIssue(issue: { code: "custom"; path: PropertyKey[]; message: string }): void },
): void {
  const first = new Map<string, number>();
  for (const [i, { path, name = nameOfPath(path) }] of sets.entries()) {
    const other = first.get(name);
    if (other === undefined) first.set(name, i);
    else {
      addIssue({
        code: "custom",
        path: [i, "name"],
        message: `is ${JSON.stringify(name)}, as that of entry ${other}; give each a name of its own`,
      });
    }
  }
}

const trainingSets = z.array(trainingSet).min(1).max(MOST_SETS).superRefine(checkNames).refine(
  (sets) => sets.length === 0 || sets.some(({ weight }) => weight > 0),
  "at least one weight must be above 0",
);
const heldOutSets = z.array(z.strictObject({ path: setPath, name: setName })).min(1).max(MOST_SETS)
  .superRefine(checkNames);

export const data = z.strictObject({
  train: z.union([path, trainingSets]).describe(
    "JSON Lines file of training samples: text, prompt and completion, or messages. Or a list of such files that are mixed, " +
      "such as [{path: a.jsonl, weight: 3}, {path: b.jsonl, weight: 1}]",
  ),
  mix: z.enum(["rows", "tokens"]).optional().describe(
    "What the weights of mixed files are shares of; rows when absent",
  ),
  heldOut: z.union([path, heldOutSets]).optional().describe(
    "JSON Lines file the loss is measured on, or a list such as [{path: a.jsonl, name: a}, {path: b.jsonl}] of files measured one " +
      "by one, the first of which decides what is best; 5 % of the rows of each training file, chosen by their hash, when absent",
  ),
  contextLength: z.number().int().min(2).default(512).describe("Longest sample, in tokens"),
  mask: z.enum(["auto", "completion", "all"]).default("auto").describe(
    "Which tokens are learnt: completions and assistant turns only, or all; auto: completions where rows have them, else all",
  ),
  tooLong: z.enum(["cut", "drop", "refuse", "split"]).default("cut").describe(
    "What happens to a sample longer than contextLength: its beginning is kept, it is left out, it is an error, or it becomes several",
  ),
  endToken: z.union([z.enum(["auto", "eos", "bos", "none"]), z.number().int().min(0)]).default("auto")
    .describe(
      "Token put after a text or a completion: one of the tokenizer's, an id, or none; auto: eos",
    ),
  template: z.boolean().default(false).describe(
    "Puts prompt/completion rows through the chat template as a user's and an assistant's turn; rows of messages always are",
  ),
  limit: count.optional().describe("Most rows used of each training file; all when absent"),
});
