/** A run whose teacher is behind `limbeck serve`, with a line in between on which things go wrong. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { fillServed } from "../../src/runs/served/fill_served.ts";
import { createRun } from "../../src/runs/store/run_folder.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { runHere, watchRun } from "../distill/tiny_run.ts";
import { TINY_VOCABULARY, tinyRows, writeTinyModel } from "../distill/tiny_model.ts";
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
    const { pathname, search } = new URL(request.url);
    const { method } = request;
    const answer = await fetch(target + pathname + search, {
      method,
      ...(method === "GET" ? {} : {
        headers: { "Content-Type": "application/json" },
        body: await request.text(),
      }),
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
      const other = `${folder}/models/other`;
      await writeTinyModel(other, { seed: 6, contextLength: 64 });
      await Deno.writeTextFile(`${folder}/train.jsonl`, tinyRows(16, 1));
      await Deno.writeTextFile(`${folder}/heldout.jsonl`, tinyRows(4, 2));
      const recipe = (teacher: object) =>
        parseRecipe({
          teacher,
          student: { model, layers: [0, 2] },
          data: { train: `${folder}/train.jsonl`, heldOut: `${folder}/heldout.jsonl`, contextLength: 64 },
          objective: [{ loss: "forward-kl", weight: 1 }],
          adapter: { rank: 4 },
          train: { steps: 3, tokensPerMicroBatch: 64, learningRate: 3e-3, schedule: "constant", warmup: 0 },
          samples: { tokens: 0 },
        });
      const line = proxy(url, (n) =>
        n % 7 === 2 ? { status: 429 } : n % 11 === 5 ? { status: 500 } : n % 13 === 6 ? "cut" : undefined);
      try {
        const here = await runHere(recipe({ model }), `${folder}/here`);
        const server = { url: line.url, model: "tiny" };
        const run = await createRun({
          store: testStore(folder),
          // All there are: so nothing is left to chance between the two.
          recipe: recipe({ model: "server", server, cache: { topK: TINY_VOCABULARY, precision: "f32" } }),
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
        for (const which of ["teacher", "before", "after"] as const) {
          const [a, b] = [result!.heldOut[which]!, here.heldOut[which]!];
          assert(Math.abs(a - b) < 1e-4, `${which}: ${a}, not ${b}`);
        }
        assert(result!.heldOut.after !== result!.heldOut.before, "it learns something");
        assert(line.seen() > 20);

        // Of hidden states the head makes the whole distribution; of the model's layers nothing is here.
        const cache = { payload: "hidden", precision: "f32", folder: `${folder}/caches` };
        const hidden = recipe({ model: "server", server, cache });
        await assertRejects(
          () => runHere(hidden, `${folder}/early`),
          InputError,
          "head has not been fetched",
        );
        const [filled] = await fillServed(hidden, { place: `${folder}/none` });
        assert(filled!.complete && filled!.asked > 12);
        const far = await runHere(hidden, `${folder}/far`);
        for (const which of ["teacher", "before", "after"] as const) {
          const [a, b] = [far.heldOut[which]!, here.heldOut[which]!];
          assert(Math.abs(a - b) < 1e-4, `${which} of hidden states: ${a}, not ${b}`);
        }

        // One of two, of which the other is here: each sample has the better one, through the same faults.
        const all = { topK: TINY_VOCABULARY, precision: "f32" };
        const two = (second: object) =>
          recipe({ combine: "best", teachers: [{ model: other }, { name: "far", ...second }] });
        const eventsHere: RunEventBody[] = [];
        const bothHere = await runHere(two({ model }), `${folder}/both here`, {}, eventsHere);
        const eventsBeside: RunEventBody[] = [];
        const beside = two({ model: "server", server, cache: { ...all, folder: `${folder}/caches` } });
        assert((await fillServed(beside, { place: `${folder}/none` }))[0]!.complete);
        const ended = await runHere(beside, `${folder}/beside`, {}, eventsBeside);
        const parts = (events: readonly RunEventBody[]) =>
          events.flatMap((e) => e.type === "teachers" ? [e] : []);
        const [far2, here2] = [parts(eventsBeside)[0]!, parts(eventsHere)[0]!];
        far2.teachers.forEach(({ name, samples, tokens, loss }, i) => {
          const its = here2.teachers[i]!;
          assertEquals([name, samples, tokens], [its.name, its.samples, its.tokens]);
          assert(samples > 0 && Math.abs(loss! - its.loss!) < 1e-4, `${name}: ${loss}, not ${its.loss}`);
        });
        for (const which of ["teacher", "before", "after"] as const) {
          const [a, b] = [ended.heldOut[which]!, bothHere.heldOut[which]!];
          assert(Math.abs(a - b) < 1e-4, `${which} of two: ${a}, not ${b}`);
        }

        // A mixture of one that follows the student and one of hidden states, stopped and resumed: the very same bits.
        const self = { model: "student", self: { kind: "mean", decay: 0.5 } };
        const mixed = (second: object) =>
          recipe({ combine: "mixture", teachers: [self, { name: "far", ...second }] });
        const mixedHere = await runHere(mixed({ model }), `${folder}/mixed here`);
        const mixedFar = mixed({ model: "server", server, cache });
        assert((await fillServed(mixedFar, { place: `${folder}/none` }))[0]!.complete);
        const whole = await runHere(mixedFar, `${folder}/mixed`);
        for (const which of ["teacher", "before", "after"] as const) {
          const [a, b] = [whole.heldOut[which]!, mixedHere.heldOut[which]!];
          assert(Math.abs(a - b) < 1e-4, `${which} of a mixture: ${a}, not ${b}`);
        }
        const stopped = { control: (step: number) => step === 2 ? "stop" as const : "run" as const };
        await runHere(mixedFar, `${folder}/mixed parts`, stopped);
        await runHere(mixedFar, `${folder}/mixed parts`, { resume: true });
        const adapter = (run: string) => Deno.readFile(`${folder}/${run}/adapter/adapter_model.safetensors`);
        assertEquals(await adapter("mixed parts"), await adapter("mixed"));
      } finally {
        await line.close();
      }
    }),
});
