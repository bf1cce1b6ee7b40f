/** Tasks and their data: what fits, and what is said of what does not. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { encodeChoices, encodeText, startOf } from "../../src/distill/evaluate/encode_items.ts";
import { choiceMeasurement, writtenMeasurement } from "../../src/evaluation/results/measurement.ts";
import {
  type ChoiceItem,
  readItems,
  type TextItem,
  type WrittenItem,
} from "../../src/evaluation/tasks/items.ts";
import {
  type ExactMatchTask,
  loadTask,
  type MultipleChoiceTask,
  namedTask,
  parseEvaluationTask,
  type PerplexityTask,
} from "../../src/evaluation/tasks/task.ts";
import { filled, firstFilled, TaskRowError, templateProblem } from "../../src/evaluation/tasks/template.ts";
import { TextTokenizer } from "../../src/text/tokenizer.ts";
import { tinyTokenizerJson } from "../distill/tiny_model.ts";

async function withFiles(
  files: Record<string, string>,
  fn: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
  try {
    for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${folder}/${name}`, text);
    await fn(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const lines = (...rows: unknown[]) => rows.map((row) => JSON.stringify(row) + "\n").join("");

Deno.test("templates reach into rows, and a missing field is told with what there is", () => {
  const row = { q: "2+2", n: 4, choices: [{ text: "a" }, { text: "b" }], empty: "" };
  assertEquals(filled("{{x}} {q} = {n}, {choices.1.text}", row), "{x} 2+2 = 4, b");
  assertEquals(firstFilled(["{q} {empty}", "{q}"], row), "2+2");
  const error = assertThrows(() => filled("{qu}", row), TaskRowError);
  assertStringIncludes(
    error.message,
    'has no field {qu}; did you mean "q"?; its fields are: q, n, choices, empty',
  );
  assertStringIncludes(
    assertThrows(() => filled("{choices.7.text}", row), TaskRowError).message,
    "nothing at",
  );
  assertStringIncludes(
    assertThrows(() => filled("{choices}", row), TaskRowError).message,
    "a list at {choices}",
  );
  assertStringIncludes(templateProblem("a { b")!, "single {");
  assertEquals(templateProblem("{a} {{}}"), undefined);
});

Deno.test("a task says what is wrong with it, all at once", () => {
  const said = (task: unknown) => assertThrows(() => parseEvaluationTask(task, "t.yaml"), InputError).message;
  assertStringIncludes(said({ kind: "perplexty", data: "x" }), 'did you mean "perplexity"?');
  assertStringIncludes(said({ data: "x" }), "kind: is missing; it must be one of perplexity");
  const both = said({ kind: "multiple-choice", data: "x", context: "{q", choices: "{c}", scores: "sum" });
  for (const part of ["t.yaml", "context: ", "single {", "scores", "answer"]) {
    assertStringIncludes(both, part);
  }
  const task = parseEvaluationTask(
    { layout: "piqa", data: "p.jsonl", score: "sum" },
    "t",
  ) as MultipleChoiceTask;
  assertEquals([task.name, task.kind, task.score, task.data], ["piqa", "multiple-choice", "sum", [
    "p.jsonl",
  ]]);
  // What is stored is read again as it is.
  assertEquals(parseEvaluationTask(JSON.parse(JSON.stringify(task)), "t"), task);
});

Deno.test("known layouts give their questions", () =>
  withFiles({
    "high_school_maths_val.csv": '"What is ""2+2""?\r\nSay.",3,4,5,6,B\n',
    "arc.jsonl": lines(
      { question: "Why?", choices: { text: ["a", "b", "c"], label: ["1", "2", "3"] }, answerKey: "3" },
      {
        question: { stem: "How?", choices: [{ text: "x", label: "A" }, { text: "y", label: "B" }] },
        answerKey: "A",
      },
    ),
    "piqa.jsonl": lines({ goal: "Open it", sol1: "push", sol2: "pull", label: 1 }),
    "si.jsonl": lines(
      { instruction: "Say hi", instances: [{ input: "", output: "hi" }] },
      { instruction: "Echo", instances: [{ input: "x", output: "x" }] },
    ),
    "dolly.jsonl": lines(
      { prompt: "As it stands:", answer: "hi" },
      { instruction: "Echo", context: "y", response: "x" },
    ),
    "gsm.jsonl": lines({ question: "2+2?", answer: "2+2=<<2+2=4>>4\n#### 4" }),
  }, async (folder) => {
    const items = async <T>(layout: string, file: string) =>
      (await readItems(parseEvaluationTask({ layout, data: `${folder}/${file}` }, "t")))
        .items as unknown as T[];
    const [mmlu] = await items<ChoiceItem>("mmlu", "high_school_maths_val.csv");
    assertEquals(
      mmlu!.context,
      'The following are multiple choice questions (with answers) about high school maths.\n\nWhat is "2+2"?\r\nSay.\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:',
    );
    assertEquals([mmlu!.choices, mmlu!.answer], [["A", "B", "C", "D"], 1]);
    const [text] = await items<ChoiceItem>("mmlu-text", "high_school_maths_val.csv");
    assertEquals([text!.choices, text!.answer], [["3", "4", "5", "6"], 1]);
    const arc = await items<ChoiceItem>("arc", "arc.jsonl");
    assertEquals(
      arc.map(({ context, choices, answer }) => [context, choices, answer]),
      [["Question: Why?\nAnswer:", ["a", "b", "c"], 2], ["Question: How?\nAnswer:", ["x", "y"], 0]],
    );
    const [piqa] = await items<ChoiceItem>("piqa", "piqa.jsonl");
    assertEquals([piqa!.context, piqa!.choices, piqa!.answer], ["Question: Open it\nAnswer:", [
      "push",
      "pull",
    ], 1]);
    const instructions = await items<WrittenItem>("self-instruct", "si.jsonl");
    assertEquals(instructions.map(({ prompt }) => prompt.includes("### Input:\nx\n")), [false, true]);
    assertEquals(instructions.map(({ reference }) => reference()), ["hi", "x"]);
    const dolly = await items<WrittenItem>("dolly", "dolly.jsonl");
    assertEquals(dolly.map(({ reference }) => reference()), ["hi", "x"]);
    assertEquals([dolly[0]!.prompt, dolly[1]!.prompt.includes("### Input:\ny\n")], ["As it stands:", true]);
    const [gsm] = await items<WrittenItem>("gsm8k", "gsm.jsonl");
    assertEquals(gsm!.reference(), "4");
  }));

Deno.test("rows that do not fit are named with file and line; nothing is taken for an empty task", () =>
  withFiles({
    "q.jsonl": lines({ q: "a", c: ["x", "y"], a: 0 }, { q: "b", c: ["x"], a: 0 }, {
      q: "c",
      c: ["x", "y"],
      a: 2,
    }),
    "empty.jsonl": "\n",
    "bare.csv": "1,2\n3\n",
    "n.jsonl": lines({ question: "2+2?", answer: "four" }),
    "t.csv": "question,answer\na,1\n",
    "short.csv": "a,b\n1,2\n3\n",
    "m.yaml": "kind: multiple-choice\ndata: q.jsonl\ncontext: '{q}'\nchoices: '{c}'\nanswer: '{a}'\n",
  }, async (folder) => {
    const said = async (task: unknown) =>
      (await assertRejects(() => readItems(parseEvaluationTask(task, "t")), InputError)).message;
    const task = await loadTask(`${folder}/m.yaml`);
    assertEquals([task.name, task.data], ["m", [`${folder}/q.jsonl`]]);
    const choices = await said(task);
    assertStringIncludes(choices, "2 faulty lines");
    assertStringIncludes(choices, "q.jsonl:2: has 1 choice");
    assertStringIncludes(choices, 'q.jsonl:3: has the answer "2", which is none of a number from 0 to 1');
    assertStringIncludes(await said({ kind: "perplexity", data: `${folder}/empty.jsonl` }), "no rows");
    assertStringIncludes(
      await said({ kind: "perplexity", data: `${folder}/none.jsonl` }),
      "there is no such file",
    );
    assertStringIncludes(
      await said({ layout: "gsm8k", data: `${folder}/n.jsonl` }),
      'no number in its answer "four"',
    );
    assertStringIncludes(
      await said({ kind: "perplexity", data: `${folder}/t.csv` }),
      "has no field {text}; its fields are: question, answer",
    );
    assertStringIncludes(
      await said({ kind: "perplexity", data: `${folder}/short.csv`, text: "{b}" }),
      "short.csv:3: has 1 field, the header 2",
    );
    assertStringIncludes(
      (await assertRejects(() => namedTask("mmlu"), InputError)).message,
      "needs its data",
    );
    assertEquals((await namedTask(`gsm8k=${folder}/n.jsonl`)).kind, "exact-match");
  }));

Deno.test("the example task is one of sixteen questions with four choices each", async () => {
  const path = new URL("../../examples/tasks/story-endings.yaml", import.meta.url).pathname;
  const { items } = await readItems(await loadTask(path));
  const questions = items as unknown as ChoiceItem[];
  assertEquals(questions.map(({ choices }) => choices.length), new Array(16).fill(4));
  assertEquals(new Set(questions.map(({ answer }) => answer)).size, 4);
});

const tokenizer = (config: Record<string, unknown>) =>
  TextTokenizer.fromJson(tinyTokenizerJson(), { unk_token: "<unk>", ...config }, "tokenizer.json");

Deno.test("a BOS token that a tokenizer names but does not put is put, unless it ends texts too", () => {
  const puts = tokenizer({ bos_token: "<s>", eos_token: "</s>", add_bos_token: true });
  const names = tokenizer({ bos_token: "<s>", eos_token: "</s>", add_bos_token: false });
  const ends = tokenizer({ bos_token: "</s>", eos_token: "</s>", add_bos_token: false });
  const none = tokenizer({ eos_token: "</s>" });
  assertEquals([puts, names, ends, none].map((t) => startOf(t, undefined)), [[1], [1], [], []]);
  assertEquals([puts, names, ends].map((t) => startOf(t, false)), [[], [], []]);
  assertEquals(startOf(ends, true), [2]);
  assertThrows(() => startOf(none, true), InputError, "the tokenizer has none");
});

Deno.test("contexts and choices are tokenised as one text; what is too long loses its beginning", () => {
  const tokens = tokenizer({ bos_token: "<s>", eos_token: "</s>", add_bos_token: true });
  const source = { file: "q.jsonl", line: 1 };
  const task = { bos: undefined, delimiter: " " };
  const item = { context: "abcd:", choices: ["x", "yz"], answer: 0, source };
  const { choices, cut } = encodeChoices(item, task, tokens, 64);
  assertEquals(choices.map(({ stretch, bytes }) => [stretch.ids.length, stretch.from, bytes]), [[8, 6, 1], [
    9,
    6,
    2,
  ]]);
  assertEquals(cut, false);
  const short = encodeChoices(item, task, tokens, 6);
  assertEquals(short.cut, true);
  // BOS, the end of the context, and the choice.
  assertEquals(tokens.decode(short.choices[1]!.stretch.ids.subarray(1)), "d: yz");
  assertEquals(short.choices[1]!.stretch.ids[0], 1);
  assertThrows(() => encodeChoices(item, task, tokens, 4), InputError, "leaves no room");
  const text: TextItem = { context: "", text: "abcdefgh", source };
  const windows = encodeText(text, { window: { length: 4 } } as PerplexityTask, tokens, 64).stretches;
  assertEquals(windows.map(({ ids, from }) => ids.length - from).reduce((a, b) => a + b), 8);
});

Deno.test("ties and answers without a number are counted", () => {
  const choice = (logLikelihood: number) => ({ logLikelihood, tokens: 1, bytes: 1 });
  const found = choiceMeasurement([
    { choices: [choice(-1), choice(-1)], answer: 0 },
    { choices: [choice(-1), choice(-2)], answer: 1 },
    { choices: [choice(NaN), choice(-2)], answer: 1 },
  ], { score: "sum" });
  assertEquals(found.figures[0]!.values, [1, 0, 0]);
  assertEquals(found.counts, { ties: 1, undecided: 1 });
  const task = parseEvaluationTask({ layout: "gsm8k", data: "x" }, "t") as ExactMatchTask;
  const answer = (text: string, finished = true) => ({
    prompt: "",
    text,
    reference: "4",
    tokens: 3,
    finished,
  });
  const written = writtenMeasurement([answer("It is 4.00"), answer("four"), answer("5", false)], task);
  assertEquals(written.figures[0]!.values, [1, 0, 0]);
  assertEquals(written.counts, { "without a number": 1, "cut at the limit": 1 });
});
