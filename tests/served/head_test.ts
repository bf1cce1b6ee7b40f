/** Heads and hidden states that are fetched, whole or not at all. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects } from "@std/assert";
import { exists } from "../../src/formats/files.ts";
import { Budget } from "../../src/served/budget.ts";
import { fetchHead } from "../../src/served/head.ts";
import { ServerRequests } from "../../src/served/requests.ts";
import { ServedModel } from "../../src/served/served_model.ts";
import { ServedRefusal } from "../../src/served/server.ts";
import { withFolder } from "../runs/fake_run.ts";

const base64 = (text: string) => new TextEncoder().encode(text).toBase64();
const line = (value: unknown) => JSON.stringify(value) + "\n";
const GOOD = line({ name: "config.json", bytes: 4 }) + line({ piece: base64("{") }) +
  line({ piece: base64("}  ") }) +
  line({ name: "empty.json", bytes: 0 }) + line({});

/** Answers each request with the next of some. */
async function withAnswers(
  answers: (string | Response)[],
  fn: (requests: ServerRequests, settings: { url: string; model: string }) => Promise<void>,
): Promise<void> {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    const next = answers.shift()!;
    return typeof next === "string" ? new Response(next) : next;
  });
  const settings = {
    url: `http://127.0.0.1:${server.addr.port}/v1`,
    model: "m",
    concurrency: 1,
    timeoutSeconds: 9,
  };
  const patience = { tries: 3, pause: 1, longestPause: 10 };
  const requests = new ServerRequests({ settings, key: undefined, budget: Budget.open({}), patience });
  try {
    await fn(requests, settings);
  } finally {
    await server.shutdown();
  }
}

Deno.test("a head arrives whole, also after an error and a cut connection, or leaves nothing", () =>
  withFolder(async (folder) => {
    const half = new Response(new Blob([GOOD.slice(0, 60)]).stream(), {
      headers: { "Content-Length": String(GOOD.length) },
    });
    await withAnswers([new Response("", { status: 500 }), half, GOOD], async (requests, settings) => {
      await fetchHead(requests, settings as never, `${folder}/head`);
      assertEquals(await Deno.readTextFile(`${folder}/head/config.json`), "{}  ");
      assertEquals(await Deno.readTextFile(`${folder}/head/empty.json`), "");
    });
    for (
      const [answer, words] of [
        [GOOD.slice(0, -3), "cut off"],
        [line({ name: "a.json", bytes: 4 }) + line({ piece: base64("{}") }) + line({}), "fewer bytes"],
        [line({ name: "a.json", bytes: 1 }) + line({ piece: base64("{}") }) + line({}), "more bytes"],
        [line({ name: "../a.json", bytes: 1 }), "odd name"],
        ["<html>", "no JSON"],
        [new Response("{}", { status: 404 }), "answers 404"],
      ] as const
    ) {
      await withAnswers([answer], async (requests, settings) => {
        await assertRejects(
          () => fetchHead(requests, settings as never, `${folder}/other`),
          ServedRefusal,
          words,
        );
        assertEquals(await exists(`${folder}/other`), false);
      });
    }
  }));

Deno.test("hidden states are as many as were asked for, and finite", async () => {
  const states = (values: number[]) =>
    line({ data: [{ states: new Uint8Array(Float32Array.from(values).buffer).toBase64() }] });
  await withAnswers([
    states([1, 2, 3, 4, 5, 6]),
    states([1, 2, 3]),
    states([1, 2, 3, NaN, 5, 6]),
    line({ data: [] }),
  ], async (requests, settings) => {
    const model = new ServedModel(settings as never, requests);
    assertEquals([...await model.hiddenStates([7, 8], 3)], [1, 2, 3, 4, 5, 6]);
    await assertRejects(
      () => model.hiddenStates([7, 8], 3),
      ServedRefusal,
      "12 bytes, not 2 states of 3 values",
    );
    await assertRejects(() => model.hiddenStates([7, 8], 3), ServedRefusal, "not finite");
    await assertRejects(() => model.hiddenStates([7, 8], 3), ServedRefusal, "something else");
  });
});
