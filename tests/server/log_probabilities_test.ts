/** Log-probabilities over HTTP, in the shapes that clients of other servers know. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Model } from "../../src/distill/inputs/models.ts";
import { openTokenizer } from "../../src/distill/inputs/prepare.ts";
import { Reader } from "../distill/logits.ts";
import { writeTinyModel } from "../distill/tiny_model.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { testGpu } from "../tensor/harness.ts";
import { type Answer, fakeNamed, type TestService, withService } from "./harness.ts";

const PROMPT = "the cat sat";

/** Log-probabilities of what follows some tokens, in f64, from whole sequences. */
async function referenceOf(path: string) {
  const gpu = await testGpu();
  const model = await Model.open(path, { category: "weights" });
  const { tokenizer } = await openTokenizer(model);
  const reader = await Reader.open(gpu, model, 64);
  return {
    tokenizer,
    async after(ids: readonly number[]): Promise<number[]> {
      const logits = [...await reader.next(Int32Array.from(ids))];
      const top = Math.max(...logits);
      const lse = top + Math.log(logits.reduce((sum, z) => sum + Math.exp(z - top), 0));
      return logits.map((z) => z - lse);
    },
    [Symbol.dispose]() {
      reader[Symbol.dispose]();
      model.close();
    },
  };
}

function near(found: number, right: number, what = ""): void {
  assert(Math.abs(found - right) < 1e-4, `${what} ${found}, not ${right}`);
}

const ask = (test: TestService, change: object): Promise<Answer> =>
  test.call("POST", "/v1/completions", { model: "tiny", temperature: 0, ...change });

/** Chunks of a stream. */
async function streamed(test: TestService, change: object): Promise<ReturnType<typeof JSON.parse>[]> {
  const response = await test.request("/v1/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "tiny", temperature: 0, stream: true, ...change }),
  });
  const lines = (await response.text()).split("\n\n").filter((line) => line !== "");
  assertEquals(lines.pop(), "data: [DONE]");
  return lines.map((line) => JSON.parse(line.slice("data: ".length)));
}

Deno.test({
  name: "completions tell log-probabilities of prompts and texts, whole and streamed",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withService(async (test) => {
      await writeTinyModel(`${test.folder}/models/tiny`, { contextLength: 64, seed: 5 });
      using reference = await referenceOf(`${test.folder}/models/tiny`);
      const ids = [...reference.tokenizer.encode(PROMPT)];

      // What lm-evaluation-harness asks.
      const scored = await ask(test, { prompt: [ids], max_tokens: 1, logprobs: 1, seed: 1234, echo: true });
      assertEquals(scored.status, 200, JSON.stringify(scored.body));
      const { logprobs, text, finish_reason } = scored.body.choices[0];
      assertEquals(logprobs.tokens.length, ids.length + 1);
      assertEquals([logprobs.token_logprobs[0], logprobs.top_logprobs[0]], [null, null]);
      for (let i = 1; i < ids.length; i++) {
        const after = await reference.after(ids.slice(0, i));
        near(logprobs.token_logprobs[i], after[ids[i]!]!, `token ${i}`);
        const best = Math.max(...Object.values(logprobs.top_logprobs[i]) as number[]);
        near(best, Math.max(...after));
        const isGreedy = after.indexOf(Math.max(...after)) === ids[i];
        assertEquals(logprobs.token_logprobs[i] === best, isGreedy);
      }
      assertEquals(finish_reason, "length");
      assert(text.startsWith(PROMPT) && text.length > PROMPT.length, text);
      const [last, end] = logprobs.text_offset.slice(-2);
      assertEquals(text.slice(last, end).length > 0 && text.slice(end), text.slice(PROMPT.length));

      // Texts and ids are the same prompt, alone or among several; 0 tokens give the prompt's alone.
      const several = await ask(test, { prompt: [PROMPT, "a mat"], max_tokens: 0, logprobs: 0, echo: true });
      assertEquals(several.body.choices.map((c: { index: number }) => c.index), [0, 1]);
      const alone = several.body.choices[0];
      assertEquals([alone.text, alone.logprobs.tokens], [PROMPT, logprobs.tokens.slice(0, -1)]);
      alone.logprobs.token_logprobs.slice(1).forEach((p: number, i: number) =>
        near(p, logprobs.token_logprobs[i + 1])
      );
      assertEquals(several.body.usage.completion_tokens, 0);
      assertEquals(Object.keys(alone.logprobs.top_logprobs[1]), [alone.logprobs.tokens[1]]);

      // vLLM's shape, by ids.
      const vllm = await ask(test, { prompt: ids, max_tokens: 0, prompt_logprobs: 3 });
      const told = vllm.body.choices[0].prompt_logprobs;
      assertEquals([told.length, told[0], vllm.body.choices[0].logprobs], [ids.length, null, null]);
      for (let i = 1; i < ids.length; i++) {
        const after = await reference.after(ids.slice(0, i));
        const order = [...after.keys()].sort((a, b) => after[b]! - after[a]! || a - b);
        const own = told[i][ids[i]!];
        assertEquals(own.rank, order.indexOf(ids[i]!) + 1);
        for (const id of order.slice(0, 3)) near(told[i][id].logprob, after[id]!);
        assertEquals(Object.keys(told[i]).length, own.rank <= 3 ? 3 : 4);
        assertEquals(own.decoded_token, logprobs.tokens[i]);
      }

      // Several tokens are written: each has the probability that the model gives it.
      const asked = { prompt: PROMPT, max_tokens: 6, logprobs: 2, return_tokens_as_token_ids: true };
      const written = (await ask(test, asked)).body.choices[0];
      const tokens = written.logprobs.tokens.map((name: string) => Number(name.slice("token_id:".length)));
      for (const [i, token] of tokens.entries()) {
        const after = await reference.after([...ids, ...tokens.slice(0, i)]);
        near(written.logprobs.token_logprobs[i], after[token]!);
        assertEquals(after.indexOf(Math.max(...after)), token);
      }
      assertEquals(written.logprobs.text_offset[0], 0);
      const chunks = await streamed(test, { ...asked, stream_options: { include_usage: true } });
      assertEquals(chunks.pop().usage.completion_tokens, tokens.length);
      const pieces = chunks.map((chunk) => chunk.choices[0]);
      assertEquals(pieces.map((piece) => piece.text).join(""), written.text);
      assertEquals(pieces.flatMap((piece) => piece.logprobs?.tokens ?? []), written.logprobs.tokens);
      assertEquals(
        pieces.flatMap((piece) => piece.logprobs?.text_offset ?? []),
        written.logprobs.text_offset,
      );
      const both = await streamed(test, {
        prompt: [PROMPT, "a mat"],
        max_tokens: 2,
        echo: true,
        logprobs: 1,
      });
      const first = both.filter((chunk) => chunk.choices[0].index === 0);
      assertStringIncludes(first[0].choices[0].text, PROMPT);
      assertEquals(first[0].choices[0].logprobs.tokens.length, ids.length);
      assertEquals(both.filter((chunk) => chunk.choices[0].finish_reason !== null).length, 2);

      // Bad input is the client's.
      for (
        const [change, param, words] of [
          [{ prompt: [5, 100_000] }, null, "the model has ids from 0 to"],
          [{ prompt: [] }, "prompt", ""],
          [{ prompt: [[]] }, "prompt.0", ""],
          [{ prompt: "a", logprobs: 21 }, "logprobs", ""],
          [{ prompt: "a", max_tokens: -1 }, "max_tokens", ""],
          [{ prompt: "cat ".repeat(100), max_tokens: 0, prompt_logprobs: 1 }, null, "at most 64"],
          [{ prompt: ["a", "b"], max_tokens: 600 }, "max_tokens", "of each of 2 texts"],
        ] as const
      ) {
        const { status, body } = await ask(test, change);
        assertEquals(status, 400, JSON.stringify(change));
        if (param !== null) assertStringIncludes(String(body.error.param), param.split(".")[0]!);
        assertStringIncludes(body.error.message, words);
      }
      const withOne = await ask(test, {
        prompt: [[1, 5], [1, 100_000]],
        max_tokens: 0,
        logprobs: 1,
        echo: true,
      });
      assertEquals(withOne.status, 400);
    }),
});

Deno.test("a recipe that is sent may name no server: what this machine reaches is its operator's to say", () =>
  withService(async (test) => {
    const recipe = {
      ...fakeNamed(),
      teacher: { model: "server", server: { url: "http://127.0.0.1:1/v1", model: "m" }, cache: { topK: 4 } },
      student: { model: "model" },
    };
    for (const path of ["/v1/runs", "/v1/runs/validate", "/v1/runs/estimate"]) {
      const { status, body } = await test.call("POST", path, { recipe });
      assertEquals(status, 400, JSON.stringify(body));
      assertStringIncludes(body.error.param, "teacher.server");
    }
    const { model: _, ...served } = recipe.teacher;
    const teachers = [{ model: "model", name: "a" }, { ...served, model: "server", name: "b" }];
    const { status, body } = await test.call("POST", "/v1/runs", {
      recipe: { ...recipe, teacher: { combine: "tag", teachers } },
    });
    assertEquals(status, 400, JSON.stringify(body));
    assertStringIncludes(body.error.param, "teacher.teachers.1.server");
  }));

/** One choice of a question: the shape of what a harness asks, and how it reads the answer. */
async function likelihood(test: TestService, context: number[], continuation: number[]): Promise<number> {
  const { status, body } = await test.call("POST", "/v1/completions", {
    ...{ model: "minimind2-small", prompt: [[...context, ...continuation]] },
    ...{ temperature: 0, max_tokens: 1, logprobs: 1, seed: 1234, echo: true },
  });
  assertEquals(status, 200, JSON.stringify(body));
  const { token_logprobs } = body.choices[0].logprobs;
  return token_logprobs.slice(context.length, -1).reduce((sum: number, p: number) => sum + p, 0);
}

sharedTest(
  "multiple choice by log-likelihood over HTTP is that of the golden",
  async () => {
    const golden = JSON.parse(await Deno.readTextFile(sharedPath("goldens/evaluation/mc.json")));
    const folder = sharedPath("data/mmlu-val");
    await withService(async (test) => {
      const model = await Model.open(sharedPath("models/minimind2-small"), { category: "weights" });
      const { tokenizer } = await openTokenizer(model);
      model.close();
      const encode = (text: string) => [...tokenizer.encode(text, { addBos: false })];
      const questions = questionsOf(await Deno.readTextFile(`${folder}/abstract_algebra_val.csv`));
      for (const [n, [question, ...rest]] of questions.slice(0, 2).entries()) {
        const context = [golden.bos, ...encode(`Question: ${question}\nAnswer:`)];
        const row = golden.rows[n];
        const found = await Promise.all(
          rest.slice(0, 4).map((choice) => likelihood(test, context, encode(` ${choice}`))),
        );
        found.forEach((sum, c) =>
          assert(Math.abs(sum - row.sum[c]) <= 5e-4 * row.tokens[c], `${n}: ${sum}, not ${row.sum[c]}`)
        );
        assertEquals("ABCD"[found.indexOf(Math.max(...found))], row.pick_sum);
      }
    }, { models: [sharedPath("models")] });
  },
);

/** Rows of a CSV file in which nothing but quotes is special. */
function questionsOf(text: string): string[][] {
  const rows: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^,"\n]*))(,|\r?\n|$)/g)) {
    rows.at(-1)!.push(quoted?.replaceAll('""', '"') ?? plain ?? "");
    if (end !== ",") rows.push([]);
  }
  return rows.filter((row) => row.length > 4);
}
