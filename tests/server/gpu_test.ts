/** Who has the GPU, and what does not fit on it. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertLess, assertMatch } from "@std/assert";
import { createApp } from "../../src/server/app.ts";
import { Service, type ServiceOptions } from "../../src/server/service.ts";
import { openStore } from "../../src/runs/store/data_folder.ts";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { DEFAULT_GPU } from "../../src/runs/store/store.ts";
import { waitForTurn } from "../../src/runs/supervise/turn.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { defaults, until } from "./harness.ts";

/** A service with a tiny real model. */
function withTinyService(
  fn: (test: { service: Service; post: (path: string, body: unknown) => Promise<Response> }) => Promise<void>,
  options: ServiceOptions = {},
): Promise<void> {
  return withTiny(async ({ folder }) => {
    await Deno.mkdir(`${folder}/models`);
    await Deno.rename(`${folder}/teacher`, `${folder}/models/tiny`);
    await Deno.mkdir(`${folder}/datasets`);
    await Deno.rename(`${folder}/train.jsonl`, `${folder}/datasets/rows.jsonl`);
    const service = await Service.start({ ...defaults(folder), ...options });
    const app = createApp(service);
    const post = async (path: string, body: unknown) =>
      await app.request(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
    try {
      await fn({ service, post });
    } finally {
      await service.close(2);
    }
  });
}

const recipe = (change: object = {}) => ({
  teacher: { model: "tiny" },
  student: { model: "teacher" },
  data: { train: "rows.jsonl", contextLength: 32 },
  objective: [{ loss: "cross-entropy" }],
  train: { steps: 2, tokensPerMicroBatch: 64, warmup: 0 },
  samples: { tokens: 0 },
  ...change,
});

/** A run of the fake trainer, so slow that it has the GPU for as long as it is wanted. */
const slow = recipe({
  objective: [{ loss: "cross-entropy", source: JSON.stringify({ pace: 20 }) }],
  train: { steps: 2000, warmup: 0 },
});

Deno.test("a model is tried between runs: while one has the GPU it is refused, and an idle process makes way for one", () =>
  withTinyService(async ({ service, post }) => {
    const ask = () => post("/v1/completions", { model: "tiny", prompt: "the cat", max_tokens: 4, seed: 1 });
    const first = await ask();
    assertEquals(first.status, 200);
    await first.body!.cancel();
    assert(service.inference.isAlive);
    const { id } = await (await post("/v1/runs", { recipe: slow })).json();
    const begun = performance.now();
    await until(service, id, "running");
    assertLess(
      performance.now() - begun,
      10_000,
      "it does not wait until the process has been idle for a minute",
    );
    assertEquals(service.inference.isAlive, false);
    const refused = await ask();
    const { error } = await refused.json();
    assertEquals([refused.status, error.code, refused.headers.get("Retry-After")], [503, "gpu_busy", "30"]);
    assertMatch(error.message, new RegExp(`run ${id} has the GPU`));
    await post(`/v1/runs/${id}/cancel`, undefined);
    await until(service, id, "cancelled");
    while (service.scheduler.current !== undefined) await new Promise((resolve) => setTimeout(resolve, 10));
    const again = await ask();
    assertEquals(again.status, 200);
    await again.body!.cancel();
  }));

Deno.test("who asks again and again keeps the GPU from no run", () =>
  withTinyService(async ({ service, post }) => {
    let looping = true;
    const seen = new Set<number>();
    const ask = (seed: number) =>
      post("/v1/completions", { model: "tiny", prompt: "cat", max_tokens: 8, seed });
    const loops = Array.from({ length: 3 }, async (_, seed) => {
      while (looping) {
        const answer = await ask(seed);
        seen.add(answer.status);
        await answer.body!.cancel();
      }
    });
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error("it still waits")), 30_000);
    try {
      while (!seen.has(200)) await new Promise((resolve) => setTimeout(resolve, 10));
      const { id } = await (await post("/v1/runs", { recipe: slow })).json();
      await Promise.race([until(service, id, "running"), late]);
      const told = (await service.store.events(id, { types: ["stage"] })).map((event) =>
        event.type === "stage" && event.message
      );
      // Where it did not have to wait, because what was being written was done first, it does not say so.
      for (const message of told) {
        assertEquals(message, "waiting for the GPU: a model that is tried has it or comes first");
      }
      await post(`/v1/runs/${id}/cancel`, undefined);
      await until(service, id, "cancelled");
      while (service.scheduler.current !== undefined) await new Promise((resolve) => setTimeout(resolve, 10));

      // One that waits in a terminal, of which the service's store hears nothing while it waits.
      seen.clear();
      while (!seen.has(200)) await new Promise((resolve) => setTimeout(resolve, 10));
      using terminal = openStore(service.store.folder);
      const { recipe } = (await service.store.get(id))!;
      const run = await createRun({ store: terminal, recipe });
      assertEquals(await Promise.race([waitForTurn(terminal, run), late]), true);
      await terminal.release(DEFAULT_GPU, run.id);
      run.release();
    } finally {
      clearTimeout(timer);
      looping = false;
      await Promise.all(loops);
    }
    assertEquals([...seen].toSorted(), [200, 503]);
    assertEquals((await ask(1)).status, 200);
  }));

Deno.test("beside runs, where the operator says so", () =>
  withTinyService(async ({ service, post }) => {
    const { id } = await (await post("/v1/runs", { recipe: slow })).json();
    await until(service, id, "running");
    const answer = await post("/v1/completions", { model: "tiny", prompt: "the cat", max_tokens: 4 });
    assertEquals(answer.status, 200);
    await answer.body!.cancel();
    assertEquals((await service.store.get(id))!.state, "running");
  }, { besideRuns: true }));

Deno.test("a run that does not fit fails at its turn, with the numbers, before it has done anything", () =>
  withTinyService(async ({ service, post }) => {
    const told = await post("/v1/runs/estimate", { recipe: recipe() });
    const { error } = await told.json();
    assertEquals([told.status, error.code], [422, "device"]);
    assertMatch(error.message, /KiB|MiB|bytes/);
    const { id } = await (await post("/v1/runs", { recipe: recipe() })).json();
    await until(service, id, "failed");
    const run = (await service.store.get(id))!;
    assertEquals([run.error!.code, run.restarts, run.step], ["device", 0, 0]);
    assertMatch(run.error!.message, /needs .* on the GPU \(\d+ bytes: .*allows 97\.7 KiB/);
    const types = new Set((await service.store.events(id)).map(({ type }) => type));
    assert(!types.has("metrics") && !types.has("evaluation"));
  }, {
    caps: { gpuBytes: 100_000 },
    entry: new URL("../../src/runs/child/inside/train_entry.ts", import.meta.url).href,
  }));
