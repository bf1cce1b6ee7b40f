/**
 * Training and held-out samples.
 *
 * @module
 */
import { z } from "zod";
import { isTemplate, parseTemplate, ROW_PARTS, type RowPart } from "../../../text/read/columns.ts";
import { FORMATS } from "../../../text/read/format.ts";
import { SET_NAME, SET_NAME_FORM, setName as nameOfPath } from "../data_sets.ts";
import { count, haveNumbers, path } from "./fields.ts";

const setPath = path.describe(`File of ${FORMATS}`);
const setName = z.string().regex(SET_NAME, `must be ${SET_NAME_FORM}`).optional().describe(
  "How reports call the set; the file's name without its ending when absent",
);
const MOST_SETS = 64;

/** A column, or a template of columns. */
const column = z.string().min(1).superRefine((name, { addIssue }) => {
  try {
    if (isTemplate(name)) parseTemplate(name);
  } catch (error) {
    addIssue({ code: "custom", message: (error as Error).message });
  }
}).optional();
const PART_MEANS: Readonly<Record<RowPart, string>> = {
  text: "Column of texts that are learnt whole",
  prompt: "Column of what stands before a completion",
  completion: "Column of what is learnt to follow a prompt",
  chosen: "Column of what is preferred to follow a prompt",
  rejected: "Column of what is not, beside chosen",
  messages: "Column of conversations: lists of turns, or such lists as JSON",
  system: "Column of what the system says first; it makes a conversation of prompt and completion",
  tools: "Column of the tools that the chat template is told of",
  privileged: "Column of what the teacher alone reads, before the rest; see teacher.privileged",
  id: "Column of names of rows",
  source: "Column that says who wrote a row",
};
const columns = z.strictObject(
  Object.fromEntries(
    ROW_PARTS.map((part) => [part, column.describe(PART_MEANS[part])]),
  ) as Record<RowPart, typeof column>,
).refine(
  ({ text, prompt, completion, messages, chosen, rejected }) => {
    const has = (...parts: (string | undefined)[]) => parts.every((part) => part !== undefined);
    const shapes = [has(text), has(messages), has(prompt, completion), has(prompt, chosen, rejected)];
    const given = [text, prompt, completion, messages, chosen, rejected].filter((part) => part !== undefined);
    const needed = [1, 1, 2, 3];
    return shapes.some((isShape, i) => isShape && given.length === needed[i]);
  },
  "must say where text, prompt and completion, prompt, chosen and rejected, or messages are read from: one of them",
).refine(
  ({ system, completion, messages }) =>
    system === undefined || completion !== undefined || messages !== undefined,
  "a system's text goes before prompt and completion, or messages",
).optional();
const COLUMNS =
  "From which column of a file each part of a row is read, such as {prompt: question, completion: answer}; a name with " +
  'braces is a template of several: "{question}\\n{choices}"';

const setColumns = columns.describe(`${COLUMNS}; those of data.columns when absent`);

const trainingSet = z.strictObject({
  path: setPath,
  name: setName,
  columns: setColumns,
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
const heldOutSets = z.array(z.strictObject({ path: setPath, name: setName, columns: setColumns })).min(1).max(
  MOST_SETS,
)
  .superRefine(checkNames);

export const data = z.strictObject({
  train: z.union([path, trainingSets]).describe(
    "File of training samples: text, prompt and completion, or messages, as JSON Lines, JSON, CSV or Parquet, or packed with gzip or " +
      "zstd. Or a list of such files that are mixed, " +
      "such as [{path: a.jsonl, weight: 3}, {path: b.jsonl, weight: 1}]",
  ),
  mix: z.enum(["rows", "tokens"]).optional().describe(
    "What the weights of mixed files are shares of; rows when absent",
  ),
  heldOut: z.union([path, heldOutSets]).optional().describe(
    "File the loss is measured on, or a list such as [{path: a.jsonl, name: a}, {path: b.jsonl}] of files measured one " +
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
  columns: columns.describe(COLUMNS),
  deduplicate: z.boolean().optional().describe(
    "Leaves out rows that say the same as an earlier one, whichever training file that is in, and training rows that a held-out file " +
      "has too; no when absent",
  ),
  overlap: count.optional().describe(
    "Tokens that the pieces of a split sample have in common, as context of what follows; 1 when absent",
  ),
  turns: z.enum(["all", "last", "each"]).optional().describe(
    "Which of an assistant's turns in a conversation are learnt: all, the last, or each in a sample of its own that ends with it; all when " +
      "absent. Templates that leave the thinking out of earlier turns need last or each",
  ),
  streaming: z.boolean().optional().describe(
    "Whether training rows stay on the disk and are encoded when they are drawn, so that memory does not grow with the files; when " +
      "absent, where they are larger than 1 GiB together",
  ),
  specialTokens: z.enum(["text", "parse"]).optional().describe(
    "Whether special tokens that are written out in the data, such as </s>, stay text or become those tokens; text when absent. With " +
      "parse, whoever wrote the data can end a turn and begin another",
  ),
}).refine(({ overlap = 1, tooLong }) => overlap === 1 || tooLong === "split", {
  path: ["overlap"],
  error: "is for split samples; set tooLong: split, or leave it out",
}).refine(({ overlap = 1, contextLength }) => overlap < contextLength, {
  path: ["overlap"],
  error: "must be below contextLength, so that every piece has something new",
  when: ({ value }) => haveNumbers(value, "overlap", "contextLength"),
});
