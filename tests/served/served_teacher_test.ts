/** A run whose teacher is behind `limbeck serve`, with a line in between on which things go wrong. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { runHere, watchRun } from "../distill/tiny_run.ts";
import { tinyRows, writeTinyModel } from "../distill/tiny_model.ts";
import { testStore } from "../runs/test_store.ts";
import { withListening } from "../server/harness.ts";

/** What happens to the n-th request, from 0. */
type Fault = { readonly status: number } | "cut" | undefined;

/** Hands requests on to a service, or not. */
function proxy(target: string, fault: (n: number) => Fault) {
  let seen = 0;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const found = fault(seen++);
    if (typeof found === "object") {
      const message = "not now";
      return Response.json({ error: { message } }, {
        status: found.status,
        headers: { "Retry-After": "0.01" },
      });
    }
    const answer = await fetch(target + new URL(request.url).pathname, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: await request.text(),
    });
    const bytes = await answer.bytes();
    const headers = { "Content-Type": "application/json", "Content-Length": String(bytes.length) };
    return new Response(
      found === "cut" ? new Blob([bytes.subarray(0, bytes.length >> 1)]).stream() : bytes,
      { status: answer.status, headers },
    );
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}/v1`,
    seen: () => seen,
    close: () => server.shutdown(),
  };
}

Deno.test({
  name: "a teacher behind limbeck serve teaches what it teaches here, through 429, 500 and cut connections",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: () =>
    withListening(async ({ url, folder }) => {
      const model = `${folder}/models/tiny`;
      await writeTinyModel(model, { seed: 5, contextLength: 64 });
      await Deno.writeTextFile(`${folder}/train.jsonl`, tinyRows(24, 1));
      await Deno.writeTextFile(`${folder}/heldout.jsonl`, tinyRows(6, 2));
      const recipe = (teacher: object) =>
        parseRecipe({
          teacher: { ...teacher, cache: { topK: 8, precision: "f32" } },
          student: { model, layers: [0, 2] },
          data: { train: `${folder}/train.jsonl`, heldOut: `${folder}/heldout.jsonl`, contextLength: 64 },
          objective: [{ loss: "forward-kl", weight: 1 }],
          adapter: { rank: 4 },
          train: { steps: 6, tokensPerMicroBatch: 64, learningRate: 1e-2, schedule: "constant", warmup: 0 },
          samples: { tokens: 0 },
        });
      const line = proxy(url, (n) =>
        n % 7 === 2 ? { status: 429 } : n % 11 === 5 ? { status: 500 } : n % 13 === 6 ? "cut" : undefined);
      try {
        const here = await runHere(recipe({ model }), `${folder}/here`);
        const run = await createRun({
          store: testStore(folder),
          recipe: recipe({ model: "server", server: { url: line.url, model: "tiny" } }),
        });
        const { events, outcome } = watchRun(run);
        const { state, result, error } = await outcome;
        assertEquals([state, error], ["succeeded", undefined]);
        const stages = events.flatMap((event) =>
          event.type === "stage" ? [event.message] : []
        ).join("\n");
        assertStringIncludes(stages, "asking 127.0.0.1");
        assertStringIncludes(stages, "answers 429: not now; trying again");
        assertStringIncludes(stages, "using the teacher's cache");
        for (const  of of["teacher", "before", "after"] as const) {
          const [a, b] = [result!.heldOut[of]!, here.heldOut[of]!];
          assert(Math.abs(a - b) < 1e-4, `${of}: ${a}, not ${b}`);
        }
        assert(result!.heldOut.after! < result!.heldOut.before!);
        assert(line.seen() > 30);
      } finally {
        await line.close();
      }
    }),
});
