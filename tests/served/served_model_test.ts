/** What a server says of tokens, whatever it speaks and whatever goes wrong. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Budget, BudgetError } from "../../src/served/budget.ts";
import type { Dialect } from "../../src/served/answers.ts";
import { ServerRequests } from "../../src/served/requests.ts";
import { ServedModel } from "../../src/served/served_model.ts";
import {
  keyOf,
  ServedError,
  ServedRefusal,
  type ServerSettings,
  urlProblem,
} from "../../src/served/server.ts";
import {
  fakeLogProbabilities,
  type FakeOptions,
  type FakeServer,
  fakeServer,
  type Fault,
} from "./fake_server.ts";

const VOCABULARY = 40;
const IDS = [1, 7, 30, 7, 39, 2];
const texts = (id: number) => ` t${id}`;
const names = {
  idOf: (name: string) => /^ t\d+$/.test(name) ? Number(name.slice(2)) : undefined,
  isNameOf: (name: string, id: number) => name === texts(id),
};
const patience = { tries: 4, pause: 1, longestPause: 500 };

type Test = { server: FakeServer; model: ServedModel; budget: Budget; said: string[] };

async function withServer(
  options: Partial<FakeOptions>,
  fn: (test: Test) => Promise<void>,
  settings: Partial<ServerSettings> = {},
): Promise<void> {
  const server = fakeServer({ vocabulary: VOCABULARY, texts, ...options });
  const budget = Budget.open(settings.budget ?? {});
  const said: string[] = [];
  const all = { url: server.url, model: "m", concurrency: 4, timeoutSeconds: 30, ...settings };
  const key = keyOf(all, () => options.key);
  const requests = new ServerRequests({ settings: all, key, budget, patience, onRetry: (m) => said.push(m) });
  try {
    await fn({ server, model: new ServedModel(all, requests), budget, said });
  } finally {
    budget.close();
    await server.close();
  }
}

/** Fails unless a server says of IDS what its model computes. */
async function scoresRight(model: ServedModel, dialect: Dialect, top: number): Promise<void> {
  const found = await model.score(IDS, { dialect, top, names, next: true });
  assert(found.hasNext);
  for (let i = 1; i <= IDS.length; i++) {
    const all = fakeLogProbabilities(VOCABULARY, IDS.slice(0, i));
    const order = [...all.keys()].sort((a, b) => all[b]! - all[a]!).slice(0, top);
    assertEquals([...found.ids.subarray(i * top, (i + 1) * top)], order);
    order.forEach((id, k) => assertEquals(found.logProbabilities[i * top + k], all[id]));
    if (i < IDS.length) assertEquals(found.own[i], all[IDS[i]!]);
  }
}

Deno.test("a server's log-probabilities are read in each dialect, by ids and by texts", async () => {
  for (
    const [dialect, options] of [
      ["prompt_logprobs", {}],
      ["echo", { dialects: ["echo"] }],
      ["echo", { dialects: ["echo"], tellsIds: false }],
    ] as const
  ) {
    await withServer(options, ({ model }) => scoresRight(model, dialect, 5));
  }
});

Deno.test("a probe finds the dialect, a BOS that is put before texts, and whether the temperature counts", async () => {
  const encode = (text: string) => text.split(" ").filter(Boolean).map((t) => Number(t.slice(1)));
  const probe = { text: " t7 t30 t7", plainIds: [7, 30, 7], ids: [1, 7, 30, 7] };
  await withServer({ encode, scales: true }, async ({ model }) => {
    const found = await model.probe(probe, 5, names);
    assertEquals([found.dialect, found.followsTemperature, found.addsBos], ["prompt_logprobs", true, false]);
    assertEquals(found.fingerprint.length, 3);
  });
  for (const dialect of ["prompt_logprobs", "echo"] as const) {
    await withServer({ dialects: [dialect], encode: (text) => [1, ...encode(text)] }, async ({ model }) => {
      const found = await model.probe(probe, 5, names);
      assertEquals([found.dialect, found.followsTemperature, found.addsBos], [dialect, false, true]);
    });
  }
  const refused = (options: Partial<FakeOptions>, words: string) =>
    withServer({ encode, ...options }, async ({ model }) => {
      await assertRejects(() => model.probe(probe, 5, names), ServedRefusal, words);
    });
  await refused({ encode: (text) => encode(text).reverse().concat(3) }, "makes other tokens of a text");
  await refused({ encode: () => [3, 4, 5] }, "makes other tokens of a text");
  await refused({ dialects: [] }, "without the log-probabilities of the prompt");
  await refused({ most: 3 }, "gives 3 log-probabilities where 5 were asked for");
  await refused({ most: 3, dialects: ["echo"] }, "where 5 were asked for");
});

Deno.test("a server that takes texts alone is sent them, and must make the same tokens of them", async () => {
  const encode = (text: string) => text.split(" ").filter(Boolean).map((t) => Number(t.slice(1)));
  const probe = { text: " t7 t30 t7", plainIds: [7, 30, 7], ids: [1, 7, 30, 7], bos: " t1" };
  const dialect = "echo";
  const ways: [Partial<FakeOptions>, boolean][] = [
    [{ encode: (text) => [1, ...encode(text)] }, false],
    [{ encode, dialects: ["prompt_logprobs", "echo"] }, true],
    [{ encode, tellsIds: false }, true],
  ];
  for (const [options, writesBos] of ways) {
    await withServer({ textsOnly: true, dialects: ["echo"], ...options }, async ({ model, server }) => {
      const found = await model.probe(probe, 5, names);
      assertEquals([found.dialect, found.texts, found.addsBos], [dialect, { writesBos }, !writesBos]);
      const text = (writesBos ? " t1" : "") + " t7 t30";
      const { own } = await model.score([1, 7, 30], { dialect, top: 3, names, text });
      assertEquals(own[2], fakeLogProbabilities(VOCABULARY, [1, 7])[30]);
      assertEquals(server.seen.at(-1)!.prompt, text);
      // Another text of as many tokens.
      await assertRejects(
        () => model.score([1, 7, 31], { dialect, top: 3, names, text }),
        ServedRefusal,
        "makes other tokens of a text than the tokenizer here: token 3 is",
      );
      await assertRejects(
        () => model.score([1, 7], { dialect, top: 3, names, text: " t1 t7 t7 t7" }),
        ServedRefusal,
        "tokens of a text of which the tokenizer here makes 2",
      );
    });
  }
  const refused = (options: Partial<FakeOptions>, words: string) =>
    withServer({ encode, textsOnly: true, dialects: ["echo"], ...options }, async ({ model }) => {
      await assertRejects(() => model.probe(probe, 5, names), ServedRefusal, words);
    });
  await refused({ encode: (text) => encode(text).reverse() }, "token 1 is 7");
  // Names that are none of the tokenizer's are no proof that a token is the one that is meant.
  const foreign = { dialects: ["echo"] as const, tellsIds: false, texts: (id: number) => ` x${id}` };
  await refused({ ...foreign, encode: (text) => [1, ...encode(text)] }, "token 1 is -1");
  await refused({ dialects: [] }, "without the log-probabilities of the prompt");
  await withServer({ fault: () => ({ status: 400, message: "no such model" }) }, async ({ model }) => {
    await assertRejects(() => model.probe(probe, 5, names), ServedRefusal, "no such model");
  });
});

Deno.test("what passes by itself is tried again, and nothing is charged twice", async () => {
  const faults: (Fault | undefined)[] = [
    { status: 429, retryAfter: 0.05 },
    { status: 500 },
    "cut",
  ];
  await withServer({ fault: (n) => faults[n] }, async ({ model, budget, said, server }) => {
    await scoresRight(model, "prompt_logprobs", 3);
    assertEquals(budget.used.requests, 4);
    // A cut answer may have been worked on: it counts, refusals do not.
    assertEquals(budget.used.tokens, 2 * (IDS.length + 1));
    assertEquals(server.charged(), budget.used.tokens);
    assertStringIncludes(said.join("\n"), "answers 429: not now");
    assertStringIncludes(said.join("\n"), "cut the connection");
  });
  await withServer({ fault: () => ({ status: 503 }) }, async ({ model, server }) => {
    await assertRejects(
      () => model.score(IDS, { dialect: "echo", top: 3, names }),
      ServedError,
      "answers 503: not now, 4 times",
    );
    assertEquals(server.seen.length, 4);
  });
  await withServer({ fault: () => ({ status: 429, retryAfter: 3600 }) }, async ({ model, server }) => {
    await assertRejects(() => model.score(IDS, { dialect: "echo", top: 3, names }), ServedError, "429");
    assertEquals(server.seen.length, 1, "nobody waits for an hour");
  });
  await withServer({ fault: () => "never" }, async ({ model }) => {
    await assertRejects(
      () => model.score(IDS, { dialect: "echo", top: 3, names }),
      ServedError,
      "gave no answer within 0.05 s",
    );
  }, { timeoutSeconds: 0.05 });
});

Deno.test("answers that are not what was asked for are refused, each in its own words", async () => {
  for (
    const [fault, words] of [
      ["nan", "NaN or Infinity"],
      ["null", "as the log-probability"],
      ["other tokens", "other tokens than were sent: token 3"],
      ["fewer", "log-probabilities where 5 were asked for, at token 2"],
      ["too likely", "probabilities sum to"],
      ["shorter", "answers of "],
      ["html", "no JSON"],
      ["redirect", "redirects to https://elsewhere/"],
      [{ status: 400, message: "no such id" }, "answers 400: no such id"],
      [{ status: 404 }, "answers 404"],
    ] as const
  ) {
    for (const dialect of ["prompt_logprobs", "echo"] as const) {
      await withServer({ fault: () => fault, dialects: [dialect] }, async ({ model, server }) => {
        const error = await assertRejects(
          () => model.score(IDS, { dialect, top: 5, names }),
          ServedRefusal,
          words,
        );
        assert(error.hint, String(fault));
        assertEquals(server.seen.length, 1, "what will not pass is not tried again");
      });
    }
  }
});

Deno.test("a key goes into one header, and into no error", async () => {
  const key = "secret-key";
  await withServer({ key }, async ({ model, server }) => {
    await scoresRight(model, "prompt_logprobs", 3);
    assert(!JSON.stringify(server.seen).includes(key));
  }, { keyVariable: "K" });
  await withServer({ key: "another" }, async ({ server }) => {
    const settings = { url: server.url, model: "m", concurrency: 1, timeoutSeconds: 9, keyVariable: "K" };
    const budget = Budget.open({});
    const requests = new ServerRequests({ settings, key, budget, patience });
    const error = await assertRejects(() => requests.post("completions", {}, 1), ServedRefusal, "[key]");
    assert(!error.message.includes(key));
    assertStringIncludes(error.hint!, "K");
  }, { keyVariable: "K" });
  await assertRejects(
    async () => await Promise.resolve().then(() => keyOf({ keyVariable: "K" }, () => undefined)),
    ServedRefusal,
    "is not set",
  );
});

Deno.test("no more requests are under way at once than may be, and no more are sent than the budget allows", async () => {
  await withServer({}, async ({ model, server, budget }) => {
    const all = await Promise.allSettled(
      Array.from({ length: 9 }, () => model.score(IDS, { dialect: "prompt_logprobs", top: 2, names })),
    );
    assertEquals(server.most(), 2);
    const refused = all.flatMap((each) => each.status === "rejected" ? [each.reason] : []);
    assertEquals([refused.length, server.seen.length, budget.used.requests], [4, 5, 5]);
    assert(refused.every((error) => error instanceof BudgetError && /all 5 requests/.test(error.message)));
  }, { concurrency: 2, budget: { requests: 5 } });
});

Deno.test("a conversation is answered and a text continued", async () => {
  await withServer({}, async ({ model, server }) => {
    const said = await model.complete([{ role: "user", content: "hello" }], { maxTokens: 9, temperature: 0 });
    assertEquals([said.finishReason, said.usage], ["stop", { promptTokens: 9, completionTokens: 4 }]);
    assertStringIncludes(said.text, "hello");
    assertEquals(server.seen[0], {
      ...{ model: "m", messages: [{ role: "user", content: "hello" }], max_tokens: 9, temperature: 0 },
    });
  });
  await withServer({ encode: () => [1, 2] }, async ({ model }) => {
    assertEquals((await model.complete("once", { maxTokens: 3 })).finishReason, "length");
  });
  await withServer({ fault: () => ({ status: 400 }) }, async ({ model }) => {
    await assertRejects(() => model.complete("once", { maxTokens: 3 }), ServedRefusal);
  });
});

Deno.test("texts and keys go over https, to this machine, or where the user allows it", () => {
  for (
    const good of ["https://host/v1", "http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:5/v1"]
  ) {
    assertEquals(urlProblem(good), undefined, good);
  }
  assertEquals(urlProblem("http://host/v1", true), undefined);
  for (
    const [bad, words] of [
      ["host/v1", "no address"],
      ["ftp://host/", "must begin with"],
      ["http://host/v1", "in the clear"],
      ["http://127.0.0.1.evil.example/v1", "in the clear"],
      ["https://a:b@host/v1", "keyVariable"],
      ["https://host/v1?key=1", "no ?"],
    ]
  ) assertStringIncludes(urlProblem(bad!) ?? "", words!);
});
