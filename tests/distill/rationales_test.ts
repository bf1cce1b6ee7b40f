/** Rationales of questions: what is asked, what is kept over kills and faults, and which rows come of it. No GPU is needed. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import {
  type AskedText,
  type Author,
  servedAuthor,
  stretches,
} from "../../src/distill/rationales/authors.ts";
import { type Question, readQuestions, readSolved } from "../../src/distill/rationales/questions.ts";
import {
  checkExamples,
  parseRationaleTemplate,
  rationalePrompt,
  USUAL_TEMPLATE,
} from "../../src/distill/rationales/rationale_prompt.ts";
import { holdsAnswer, rationaleRows, withoutThoughts } from "../../src/distill/rationales/rationale_rows.ts";
import { type RationaleOptions, writeRationales } from "../../src/distill/rationales/write_rationales.ts";
import { BudgetError } from "../../src/served/budget.ts";
import { ServedRefusal, type ServerSettings } from "../../src/served/server.ts";
import { openDataset } from "../../src/text/dataset.ts";
import { type FakeOptions, fakeServer } from "../served/fake_server.ts";

const QUESTIONS: readonly Question[] = ["one", "two", "three", "four", "five"].map((word, i) => ({
  question: `What comes after ${i}?`,
  answer: word,
  where: `questions.jsonl:${i + 1}`,
}));
const TEMPLATE = parseRationaleTemplate(USUAL_TEMPLATE, "usual");

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function options(folder: string, author: Author, more: Partial<RationaleOptions> = {}): RationaleOptions {
  return {
    ...{ questions: QUESTIONS, examples: [], template: TEMPLATE, perQuestion: 2, author, source: "stub" },
    ...{ output: `${folder}/rows.jsonl`, answerPrefix: "predict: ", rationalePrefix: "explain: ", ...more },
  };
}

/** Writes what depends on the number and the prompt alone, the last text first; and ends as a kill does after so many. */
function stubAuthor(most = Infinity, settings = { model: "stub" }): Author & { asked: number[] } {
  const asked: number[] = [];
  return {
    ...{ settings, asked },
    write(wanted: readonly AskedText[], { onText }) {
      let count = 0;
      for (const one of wanted.toReversed()) {
        if (count++ >= most) return Promise.reject(new Error("killed"));
        asked.push(one.number);
        const answer = /Answer: (\w+)/.exec(one.prompt)![1];
        onText(one, { text: ` Because of über ${answer}, ${one.number}.`, finished: true });
      }
      return Promise.resolve();
    },
  };
}

Deno.test("a question is asked behind solved examples, up to where its rationale is to stand", () => {
  const [one, two, three] = QUESTIONS as [Question, Question, Question];
  const examples = [{ ...one, rationale: "We count." }, { ...two, rationale: "One more than 1." }];
  assertEquals(
    rationalePrompt(TEMPLATE, three, examples),
    "Each answer below is right. Explain in a few sentences how to get to it.\n\n" +
      "Question: What comes after 0?\nAnswer: one\nWhy: We count.\n\n" +
      "Question: What comes after 1?\nAnswer: two\nWhy: One more than 1.\n\n" +
      "Question: What comes after 2?\nAnswer: three\nWhy:",
  );
  // Its own rationale would be copied.
  assert(!rationalePrompt(TEMPLATE, two, examples).includes("One more than 1"));
  const other = parseRationaleTemplate(
    "{answer} is the answer of {question}\r\n{{so}} {rationale} END\r\n",
    "t",
  );
  assertEquals(
    rationalePrompt(other, three, examples.slice(0, 1)),
    "one is the answer of What comes after 0?\n{so} We count. END\nthree is the answer of What comes after 2?\n{so}",
  );
  // What is filled in is no template.
  assertStringIncludes(rationalePrompt(other, { ...one, question: "{answer} }{" }, []), "of {answer} }{\n");
  checkExamples(TEMPLATE, examples);
  const long = { ...one, rationale: "We count.\n\nThat is all." };
  assertThrows(() => checkExamples(TEMPLATE, [long]), InputError, "questions.jsonl:1");
});

Deno.test("a template without what is filled in, or with something else, is refused by name", () => {
  const faults: [string, string][] = [
    ["{question} {rationale}", "has no {answer}"],
    ["{question} {answer}", "has no {rationale}"],
    ["{rationale} {question} {answer}", "must have {rationale} once, behind all others"],
    ["{question} {answer} {rationale} {rationale}", "must have {rationale} once"],
    ["{question} {answer} {hint} {rationale}", "has {hint}"],
    ["{question\n---\n{question} {answer} {rationale}", "has a single {"],
    ["{question}\n---\n{question} {answer} {rationale}", "has {question} before the line of ---"],
  ];
  for (const [text, message] of faults) {
    assertThrows(() => parseRationaleTemplate(text, "t.txt"), InputError, `t.txt: ${message}`);
  }
});

Deno.test("an answer is found as words of its own", () => {
  const there: [string, string][] = [
    ["So Tom has Two apples.", "two"],
    ["It is 1,200 now.", "1200"],
    ["That makes 12.", "12"],
    ["so: (b)", "B"],
    ["the   red\ncar", "red car"],
    ["Therefore they went home, as planned", "They went home."],
    ["所以答案是三个苹果", "三"],
    ["x = -5, of course", "-5"],
    ["it is c++", "C++"],
  ];
  const absent: [string, string][] = [
    ["This is twofold.", "two"],
    ["It is 12.5 now.", "12"],
    ["It is 3.12 now.", "12"],
    ["It is 112.", "12"],
    ["It is 1,200", "200"],
    ["", "two"],
  ];
  for (const [text, answer] of there) assert(holdsAnswer(text, answer), `${text} / ${answer}`);
  for (const [text, answer] of absent) assert(!holdsAnswer(text, answer), `${text} / ${answer}`);
  assertEquals(
    ["<think>hm</think> So.", "hm</think>So.", "<think>hm", "So."].map(withoutThoughts),
    [" So.", "So.", "", "So."],
  );
});

Deno.test("rationales that are empty, repeated, cut or without the answer are counted, and left out if so asked", () => {
  const texts = [
    [{ text: " As one. ", finished: true }, { text: "As one.", finished: true }],
    [{ text: " \n", finished: true }, { text: "Who knows?", finished: true }],
    [{ text: "Then three and", finished: false }, { text: "Hm", finished: false }],
  ];
  const of = (more: Partial<RationaleOptions>) =>
    rationaleRows(QUESTIONS.slice(0, 3), (i) => texts[i]!, {
      ...{ source: "me", answerPrefix: "p: ", rationalePrefix: "e: ", ...more },
    });
  const all = of({});
  assertEquals(all.counts, {
    ...{
      questions: 3,
      rationales: 4,
      questionsWithout: 0,
      empty: 1,
      repeated: 1,
      unfinished: 2,
      withoutAnswer: 2,
    },
  });
  assertEquals(all.rows.slice(0, 3), [
    { prompt: "p: What comes after 0?", completion: " one", source: "answer" },
    { prompt: "e: What comes after 0?", completion: " As one.", source: "me" },
    { prompt: "p: What comes after 1?", completion: " two", source: "answer" },
  ]);
  const strict = of({ dropWithoutAnswer: true, dropUnfinished: true, withoutAnswers: true });
  assertEquals(strict.rows.map(({ completion }) => completion), [" As one."]);
  assertEquals([strict.counts.questionsWithout, strict.counts.withoutAnswer, strict.counts.unfinished], [
    2,
    2,
    2,
  ]);
});

Deno.test("after a kill what has come is not asked again, and the file is as if there had been none", () =>
  inFolder(async (folder) => {
    const whole = await writeRationales(options(folder, stubAuthor()));
    const expected = await Deno.readTextFile(whole.output);
    await Deno.remove(whole.output);
    assertEquals([whole.rows, whole.rationales, whole.resumed], [15, 10, 0]);
    const first = stubAuthor(4);
    await assertRejects(() => writeRationales(options(folder, first)), Error, "killed");
    assertEquals(await Array.fromAsync(Deno.readDir(folder), ({ name }) => name), ["rows.jsonl.part"]);
    // A line that was cut in the middle of a character.
    const part = `${folder}/rows.jsonl.part`;
    const cut = new TextEncoder().encode('{"key":"k","n":0,"text":"ü').subarray(0, -1);
    await Deno.writeFile(part, cut, { append: true });
    const second = stubAuthor();
    const again = await writeRationales(options(folder, second));
    assertEquals(again.resumed, 4);
    assertEquals([...first.asked, ...second.asked].sort((a, b) => a - b), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assertEquals(await Deno.readTextFile(again.output), expected);
    assertEquals(await Array.fromAsync(Deno.readDir(folder), ({ name }) => name), ["rows.jsonl"]);
    const rows = (await openDataset(again.output)).map((row) => row.origin);
    assertEquals(rows.slice(0, 4), ["answer", "stub", "stub", "answer"]);
  }));

Deno.test("questions may be added, moved and asked more often between two attempts; those that are twice there are asked twice", () =>
  inFolder(async (folder) => {
    await assertRejects(() => writeRationales(options(folder, stubAuthor(6))), Error, "killed");
    // Texts 4 to 9 are there: of questions 2, 3 and 4.
    const author = stubAuthor();
    const questions = [QUESTIONS[4]!, QUESTIONS[0]!, QUESTIONS[3]!, QUESTIONS[4]!];
    const { resumed, rationales } = await writeRationales(
      options(folder, author, { questions, perQuestion: 2 }),
    );
    assertEquals([resumed, rationales, author.asked.toSorted((a, b) => a - b)], [4, 8, [2, 3, 6, 7]]);
  }));

Deno.test("a file of other settings, of something else or of another process is refused and left as it is", () =>
  inFolder(async (folder) => {
    const part = `${folder}/rows.jsonl.part`;
    await assertRejects(() => writeRationales(options(folder, stubAuthor(1))), Error, "killed");
    const before = await Deno.readTextFile(part);
    const error = await assertRejects(
      () => writeRationales(options(folder, stubAuthor(9, { model: "other" }))),
      InputError,
    );
    assertStringIncludes(error.message, 'was begun with model "stub", not "other"');
    const waiting: Author = {
      settings: { model: "stub" },
      async write() {
        await assertRejects(
          () => writeRationales(options(folder, stubAuthor())),
          InputError,
          "another process",
        );
        throw new Error("enough");
      },
    };
    await assertRejects(() => writeRationales(options(folder, waiting)), Error, "enough");
    assertEquals(await Deno.readTextFile(part), before);
    for (const text of ["my notes", '{"text":"mine"}\n', '{"rationales":1,}\n']) {
      await Deno.writeTextFile(part, text);
      await assertRejects(
        () => writeRationales(options(folder, stubAuthor())),
        InputError,
        "not begun by this",
      );
      assertEquals(await Deno.readTextFile(part), text);
    }
    const silent: Author = {
      settings: {},
      write(wanted, { onText }) {
        for (const one of wanted) onText(one, { text: " ", finished: true });
        return Promise.resolve();
      },
    };
    await Deno.remove(part);
    await assertRejects(() => writeRationales(options(folder, silent)), InputError, "10 are empty");
  }));

Deno.test("texts that are asked for together follow one another", () => {
  const asked = [0, 1, 2, 3, 6, 7, 9].map((number) => ({ number, prompt: "", where: "" }));
  assertEquals(stretches(asked, 3), [[0, 3], [3, 4], [4, 6], [6, 7]]);
});

Deno.test("rows without a question or an answer are told by file and line, up to ten", () =>
  inFolder(async (folder) => {
    const write = async (name: string, text: string) => {
      await Deno.writeTextFile(`${folder}/${name}`, text);
      return `${folder}/${name}`;
    };
    const faulty = await write(
      "faulty.jsonl",
      '{"question":"a","answer":3}\n{"question":"b"}\n{"question":"c","answer":" "}\n{"question":"d","answer":null}\n[1\n',
    );
    const error = await assertRejects(() => readQuestions(faulty), InputError);
    for (
      const said of [
        "4 faulty lines",
        'faulty.jsonl:2: there is no column "answer"; there are: "question"',
        "faulty.jsonl:3: answer is empty",
        "faulty.jsonl:4: answer must be a text or a number, found null",
        "faulty.jsonl:5: not valid JSON",
      ]
    ) assertStringIncludes(error.message, said);
    const many = await write("many.jsonl", '{"question":"b"}\n'.repeat(30));
    await assertRejects(() => readQuestions(many), InputError, "10 faulty lines (reading stopped there");
    await assertRejects(async () => readQuestions(await write("none.jsonl", "\n")), InputError, "no rows");
    const csv = await write("q.csv", "body,key,why\nHow many?,3,We count.\n");
    await assertRejects(() => readQuestions(csv), InputError, 'no column "question"');
    const columns = { question: "body", answer: "key", rationale: "why" };
    const [solved] = await readSolved(csv, columns);
    assertEquals({ ...solved, where: "" }, {
      ...{ question: "How many?", answer: "3", rationale: "We count.", where: "" },
    });
  }));

/** Rationales that a server writes. */
async function asked(
  folder: string,
  behaviour: Partial<FakeOptions>,
  { chat = true, ...more }: { chat?: boolean; budget?: ServerSettings["budget"] } = {},
) {
  const server = fakeServer({ vocabulary: 9, key: "secret", ...behaviour });
  const author = servedAuthor(
    { url: server.url, model: "org/big", timeoutSeconds: 20, keyVariable: "KEY", concurrency: 3, ...more },
    {
      ...{ maxTokens: 20, temperature: 0.7, topP: 1, seed: 5, chat, stop: TEMPLATE.after, together: 3 },
      served: {
        environment: () => "secret",
        patience: { tries: 3, pause: 1, longestPause: 100 },
        usedFile: `${folder}/used`,
      },
    },
  );
  // The address changes with each fake server, and would be another teacher.
  const settings = { ...author.settings, server: "fake" };
  try {
    return { seen: server.seen, written: await writeRationales(options(folder, { ...author, settings })) };
  } catch (error) {
    return { seen: server.seen, error };
  } finally {
    await server.close();
  }
}

Deno.test("a server writes rationales through faults, and is asked for nothing twice after a refusal", () =>
  inFolder(async (folder) => {
    const first = await asked(folder, {
      fault: (n) =>
        n === 1
          ? { status: 500 }
          : n === 2
          ? { status: 429, retryAfter: 0 }
          : n === 3
          ? "cut"
          : n === 8
          ? { status: 400, message: "no more" }
          : undefined,
    });
    assert(first.error instanceof ServedRefusal, String(first.error));
    assert(/^questions\.jsonl:\d: 127\.0\.0\.1:\d+: answers 400: no more$/.test(first.error.message));
    const kept = (await Deno.readTextFile(`${folder}/rows.jsonl.part`)).trim().split("\n").length - 1;
    // Of ten requests or so, three failed, one was refused, and what was under way with it has been kept.
    assert(kept >= 5 && kept < 10, String(kept));
    // One that says nothing has come too.
    const second = await asked(folder, { fault: (n) => n === 0 ? "null" : undefined });
    assertEquals(second.error, undefined);
    assertEquals([second.written!.resumed, second.seen.length], [kept, 10 - kept]);
    const { rationales, repeated, empty, withoutAnswer } = second.written!;
    assertEquals([rationales + repeated, empty, withoutAnswer], [9, 1, 0]);
    const { model, max_tokens, temperature, messages } = second.seen[0]!;
    assertEquals([model, max_tokens, temperature], ["org/big", 20, 0.7]);
    const [{ role, content }] = messages as [{ role: string; content: string }];
    assertEquals(role, "user");
    assert(content.endsWith("\nWhy:"), content);
    const seeds = new Set([...first.seen, ...second.seen].map(({ seed }) => seed));
    assertEquals([...seeds].sort(), Array.from({ length: 10 }, (_, i) => 5 + i).sort());
  }));

Deno.test("a text that a server continues ends where the template says, and the budget holds over attempts", () =>
  inFolder(async (folder) => {
    const behaviour: Partial<FakeOptions> = {
      encode: () => [1, 2],
      texts: () => " We count.\n\nQuestion: and more",
    };
    const first = await asked(folder, behaviour, { chat: false, budget: { requests: 4 } });
    assert(first.error instanceof BudgetError, String(first.error));
    const again = await asked(folder, behaviour, { chat: false, budget: { requests: 4 } });
    assertEquals([again.error instanceof BudgetError, again.seen.length], [true, 0]);
    const last = await asked(folder, behaviour, { chat: false, budget: { requests: 10 } });
    assertEquals(last.error, undefined);
    assertEquals([first.seen.length, last.seen.length, last.written!.resumed], [4, 6, 4]);
    assertEquals(last.seen[0]!.stop, ["\n\n"]);
    const rows = await openDataset(`${folder}/rows.jsonl`);
    assertEquals(rows.filter(({ origin }) => origin === "stub").length, 5);
    assert(rows.every((row) => row.shape === "prompt" && !row.completion.includes("Question")));
    // The stop has ended them, whatever the server says of its limit.
    assertEquals([last.written!.repeated, last.written!.unfinished, last.written!.withoutAnswer], [5, 0, 5]);
  }));
