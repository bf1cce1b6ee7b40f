// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { InputError } from "../../src/base/errors.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { openTokenizer } from "../../src/distill/inputs/prepare.ts";
import { Registry } from "../../src/registry/registry.ts";
import { encodeQuestions, openQuestions } from "../../src/shape/depth/questions.ts";
import { shrinkModel } from "../../src/shape/shrink.ts";
import { Reader } from "../distill/logits.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { testGpu } from "../tensor/harness.ts";

const registry = new Registry().addAll(builtins);

const PROMPTS = ["the cat sat ", "a mat and ", "ran home to see his ", "sun on the ", "and ", "the "];
const CHOICES = ["cat", "mat and the sun", "to", "home home home", "q"];

/** Number of the choice whose tokens a model finds likeliest on average behind each prompt. */
async function favouritesOf(path: string): Promise<number[]> {
  const model = await Model.open(path, { category: "weights" });
  const { tokenizer } = await openTokenizer(model);
  using reader = await Reader.open(await testGpu(), model, 64);
  const favourites: number[] = [];
  for (const prompt of PROMPTS) {
    const begun = tokenizer.encode(prompt).length;
    const means: number[] = [];
    for (const choice of CHOICES) {
      const ids = tokenizer.encode(prompt + choice);
      const logits = await reader.logits(ids);
      const width = logits.length / ids.length;
      let sum = 0;
      for (let t = begun; t < ids.length; t++) {
        const row = logits.subarray((t - 1) * width, t * width);
        sum += row[ids[t]!]! - Math.log(row.reduce((total, z) => total + Math.exp(z), 0));
      }
      means.push(sum / (ids.length - begun));
    }
    favourites.push(means.indexOf(Math.max(...means)));
  }
  model.close();
  return favourites;
}

Deno.test({
  name: "a search by accuracy takes the choice whose tokens are likeliest on average",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: () =>
    withTiny(async ({ folder, teacher }) => {
      const favourites = await favouritesOf(teacher);
      assert(new Set(favourites).size > 1, "the model always answers the same");
      // Half of the answers are what the whole model says; they are given as numbers and as texts.
      const lines = PROMPTS.map((prompt, i) => {
        const answer = i % 2 === 0 ? favourites[i]! : (favourites[i]! + 1) % CHOICES.length;
        return JSON.stringify({ prompt, choices: CHOICES, answer: i < 3 ? answer : CHOICES[answer] });
      });
      await Deno.writeTextFile(`${folder}/questions.jsonl`, lines.join("\n"));
      const { findings: found, data } = await shrinkModel({
        model: teacher,
        data: { files: [`${folder}/questions.jsonl`] },
        metric: "accuracy",
        goal: { search: "exhaustive", layers: 2, keepLast: 0, beamWidth: 1 },
        cacheFolder: `${folder}/cache`,
        output: `${folder}/small`,
        registry,
      });
      const findings = found!;
      assertEquals(data.questions, PROMPTS.length);
      assertEquals(findings.full.values, { accuracy: 0.5 });
      const right = (await favouritesOf(`${folder}/small`)).filter((own, i) => {
        const { answer } = JSON.parse(lines[i]!);
        return own === answer || CHOICES[own] === answer;
      });
      assertEquals(findings.plan.values.accuracy, right.length / PROMPTS.length);
      // The highest accuracy is the best.
      const others = findings.subsets.filter(({ kept }) => kept.length === 2);
      assertEquals(others.length, 3);
      assert(others.every(({ values }) => values.accuracy! <= findings.plan.values.accuracy!));
    }),
});

Deno.test("questions with faults are refused, each with its line", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/questions.jsonl`;
  try {
    const faults: [line: string, said: string][] = [
      ["{", "not valid JSON"],
      ['{"prompt": "a", "answer": 0}', "choices: "],
      ['{"prompt": "a", "choices": ["b"], "answer": 0}', "choices: "],
      ['{"prompt": "a", "choices": ["b", ""], "answer": 0}', "choices.1: "],
      ['{"prompt": "a", "choices": ["b", "b"], "answer": 0}', "choices: names a choice twice"],
      ['{"prompt": "a", "choices": ["b", "c"], "answer": 2}', "answer: is none of the choices"],
      ['{"prompt": "a", "choices": ["b", "c"], "answer": "d"}', "answer: is none of the choices"],
      ['{"prompt": "a", "choices": ["b", "c"], "answer": 0.5}', "answer: "],
      ['{"prompt": "a", "choices": ["b", "c"], "answer": 0, "label": 1}', "label"],
    ];
    const good = '{"prompt": "a", "choices": ["b", "c"], "answer": 1, "id": 7}';
    await Deno.writeTextFile(path, [good, "", ...faults.map(([line]) => line)].join("\n"));
    const { message } = await assertRejects(() => openQuestions(path), InputError);
    for (const [i, [, said]] of faults.entries()) {
      const told = message.split("\n").find((line) => line.includes(`${path}:${i + 3}: `));
      assertStringIncludes(told ?? message, said);
    }
    assertEquals(message.includes(`${path}:1: `), false);
    await Deno.writeTextFile(path, `${good}\n`);
    const source = { file: path, line: 1 };
    assertEquals(await openQuestions(path), [{ prompt: "a", choices: ["b", "c"], answer: 1, source }]);
    await Deno.writeTextFile(path, "\n");
    await assertRejects(() => openQuestions(path), InputError, "there are no questions");
    await assertRejects(() => openQuestions(`${path}.not`), InputError, "there is no such file");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a question that does not fit is refused", () =>
  withTiny(async ({ teacher }) => {
    const model = await Model.open(teacher, { category: "weights" });
    const { tokenizer } = await openTokenizer(model);
    model.close();
    const source = { file: "q.jsonl", line: 3 };
    const question = (prompt: string) => [{ prompt, choices: ["a", "bb"], answer: 0, source }];
    const { choices } = encodeQuestions(question("the "), tokenizer, 8)[0]!;
    assertEquals(choices.map(({ supervised }) => supervised.reduce((a, b) => a + b, 0)), [1, 2]);
    assertThrows(
      () => encodeQuestions(question("the cat sat on"), tokenizer, 8),
      InputError,
      'q.jsonl:3: the prompt with "a" has',
    );
  }));
