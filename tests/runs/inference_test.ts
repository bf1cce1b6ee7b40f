// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { generateTexts } from "../../src/distill/generate/generate_texts.ts";
import { InputError } from "../../src/base/errors.ts";
import {
  InferenceEndedError,
  type InferenceEvent,
  InferenceProcess,
  type InferenceRequest,
} from "../../src/runs/child/inference.ts";
import { GpuBusyError, InferencePool } from "../../src/runs/supervise/inference_pool.ts";
import { StopText } from "../../src/distill/generate/stop_text.ts";
import { processesWith } from "../processes.ts";
import { withTiny } from "../distill/tiny_model.ts";

const request = (change: Partial<InferenceRequest> = {}): InferenceRequest => ({
  prompt: "the cat",
  maxTokens: 24,
  temperature: 1,
  topK: 0,
  topP: 1,
  seed: 5,
  stop: [],
  ...change,
});

async function read(events: AsyncIterable<InferenceEvent>) {
  const pieces: string[] = [];
  for await (const event of events) {
    if (event.type === "text") pieces.push(event.text);
    if (event.type === "end") return { text: pieces.join(""), pieces, ...event };
  }
  throw new Error("there was no end");
}

Deno.test("StopText holds back what may begin a stop, and gives the text before it whatever the pieces", () => {
  const text = "one two<three><end> four";
  for (let width = 1; width <= 7; width++) {
    const stop = new StopText(["<end>", "", "fours"]);
    let seen = "";
    for (let at = 0; at < text.length; at += width) {
      seen += stop.push(text.slice(at, at + width));
      assert("one two<three>".startsWith(seen), seen);
    }
    assertEquals([seen + stop.end(text), stop.stopped], ["one two<three>", true]);
    const none = new StopText(["four!"]);
    let all = "";
    for (let at = 0; at < text.length; at += width) all += none.push(text.slice(at, at + width));
    assert(!all.endsWith("four"));
    assertEquals([all + none.end(text), none.stopped], [text, false]);
  }
});

Deno.test("a process writes what the model writes, ends at stops, and can be asked several things at once", () =>
  withTiny(async ({ teacher }) => {
    const process = await InferenceProcess.start({ model: { path: teacher } });
    try {
      const [expected] = await generateTexts({
        model: teacher,
        prompts: ["the cat"],
        batch: 1,
        ...{ maxTokens: 24, temperature: 1, topK: 0, topP: 1, seed: 5 },
      });
      const [whole, again] = await Promise.all([
        read(process.generate(request())),
        read(process.generate(request())),
      ]);
      assertEquals([whole.text, again.text], [expected!.text, expected!.text]);
      assertEquals(whole.completionTokens, expected!.tokens);
      assertGreater(whole.pieces.length, 5);
      const stop = expected!.text.slice(6, 9);
      const stopped = await read(process.generate(request({ stop: [stop] })));
      assertEquals(stopped.text, expected!.text.slice(0, expected!.text.indexOf(stop)));
      assertEquals(stopped.finishReason, "stop");
      const short = await read(process.generate(request({ maxTokens: 3 })));
      assertEquals([short.finishReason, short.completionTokens], ["length", 3]);

      const abort = new AbortController();
      const cancelled: InferenceEvent[] = [];
      for await (const event of process.generate(request({ maxTokens: 4000 }), abort.signal)) {
        cancelled.push(event);
        abort.abort();
      }
      const last = cancelled.at(-1)!;
      assertEquals(last.type === "end" && last.finishReason, "cancelled");
      await assertRejects(
        () => read(process.generate(request({ prompt: "cat ".repeat(2000) }))),
        InputError,
        "it must have at least 1 and at most",
      );
      await assertRejects(
        () => read(process.generate(request({ prompt: [{ role: "user", content: "hello" }] }))),
        InputError,
        "chat template",
      );
    } finally {
      await process.close();
    }
    await assertRejects(() => read(process.generate(request())), InferenceEndedError);
  }, { contextLength: 256, seed: 5 }));

Deno.test("a process ends by itself when it is not used, and a request fails when it is killed", () =>
  withTiny(async ({ teacher }) => {
    const idle = await InferenceProcess.start({ model: { path: teacher }, idleSeconds: 0.2 });
    await read(idle.generate(request({ maxTokens: 2 })));
    await idle.ended;
    assertEquals(idle.isAlive, false);

    let acquired = 0;
    let busy = false;
    const pool = new InferencePool({
      acquire: () => {
        if (busy) throw new GpuBusyError("a run has the GPU");
        acquired++;
        return Promise.resolve(() => {
          acquired--;
        });
      },
    });
    const model = { model: { path: teacher } };
    // Greedily it meets no end before that of the context: it is still writing when it is killed, however long that takes.
    const first = pool.generate("tiny", model, request({ maxTokens: 4000, temperature: 0 }));
    await first.next();
    assertEquals([acquired, pool.load], [1, 1]);
    // It may read the model, so its command line names it.
    for (const id of await processesWith(teacher)) Deno.kill(id, "SIGKILL");
    await assertRejects(async () => {
      for await (const _ of { [Symbol.asyncIterator]: () => first });
    }, InferenceEndedError);
    assertEquals((await read(pool.generate("tiny", model, request({ maxTokens: 2 })))).completionTokens, 2);
    assertEquals(acquired, 1);
    await read(pool.generate("other", model, request({ maxTokens: 2 })));
    assertEquals(acquired, 1, "one process at a time");
    await pool.yieldGpu();
    assertEquals([acquired, pool.isAlive], [0, false]);
    busy = true;
    await assertRejects(() => read(pool.generate("tiny", model, request())), GpuBusyError);
    await pool.close();
  }, { seed: 5, contextLength: 4096 }));

Deno.test("a model that cannot be used is an error like any other", () =>
  withTiny(async ({ folder, teacher }) => {
    await Deno.writeTextFile(`${teacher}/config.json`, "{}");
    await assertRejects(() => InferenceProcess.start({ model: { path: teacher } }), InputError);
    await assertRejects(() => InferenceProcess.start({ model: { path: `${folder}/none` } }), InputError);
  }));
