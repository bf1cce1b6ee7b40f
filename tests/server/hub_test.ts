/** Models of the hub over HTTP: refused unless the operator allows them; then fetched before a run begins. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { placePath } from "../../src/hub/hub_cache.ts";
import type { FakeHub } from "../hub/fake_hub.ts";
import { commonFiles, filesBelow, FIRST, HASTE, noise, repository, withHub } from "../hub/hub_cases.ts";
import { fakeNamed, submit, type TestService, withService } from "./harness.ts";

const named = (model: string) => ({ ...fakeNamed({}, 2), teacher: { model } });
const WEIGHTS = noise(20_000);

/** A service that may fetch from a hub. */
function withBoth(fn: (test: TestService, hub: FakeHub, cache: string) => Promise<void>): Promise<void> {
  return withHub(
    { "ada/small": repository(commonFiles(WEIGHTS)) },
    (hub, settings) =>
      withService((test) => fn(test, hub, settings.cacheFolder), {
        hub: { settings, patience: { ...HASTE, silence: 60_000 } },
      }),
  );
}

/** A run's events once it is at rest, or once `enough` of them are there. */
async function eventsOf(
  { service }: TestService,
  id: string,
  enough: (events: { type: string; message?: string }[]) => boolean,
) {
  for (;;) {
    const events = await service.store.events(id, {});
    if (enough(events as { type: string }[])) return events;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

Deno.test("a service that was not told to refuses names of the hub, and says what would allow them", () =>
  withService(async (test) => {
    const { status, body } = await test.call("POST", "/v1/runs", { recipe: named("hf:ada/small") });
    assertEquals([status, body.error.param], [400, "recipe.teacher.model"]);
    assertStringIncludes(body.error.message, "limbeck serve --hub");
    assertStringIncludes(body.error.message, "it has model");
  }));

Deno.test("a run over HTTP waits for its model, is told how far that is, and keeps what it was", () =>
  withBoth(async (test, hub, cache) => {
    const id = await submit(test, named("hf:ada/small@main"));
    const events = await eventsOf(test, id, (events) => events.some(({ type }) => type === "result"));
    const stages = events.flatMap((event) => event.type === "stage" ? [event] : []);
    assertEquals(stages[0]!.stage, "waiting");
    assertStringIncludes(stages[0]!.message, `waiting for hf:ada/small@${FIRST} from the hub: `);
    const place = placePath({ cacheFolder: cache, repository: "ada/small", commit: FIRST });
    const run = (await test.service.store.get(id))!;
    const manifest = JSON.parse(await Deno.readTextFile(`${run.folder}/manifest.json`));
    assertEquals(manifest.models["teacher.model"].commit, FIRST);
    assertEquals(Object.keys(manifest.models["teacher.model"].files).length, 5);
    assertEquals(await Deno.readFile(`${place}/model.safetensors`), WEIGHTS);
    // No answer has a path of this machine.
    const shown = JSON.stringify((await test.call("GET", `/v1/runs/${id}`)).body);
    assert(!shown.includes(cache), shown);
    assertEquals(test.service.catalogue.hide(`${place}: no`), `hf:ada/small@${FIRST}: no`);
    const downloads = hub.downloads.length;
    await submit(test, named("hf:ada/small"));
    assertEquals(hub.downloads.length, downloads);
  }));

Deno.test("what the hub refuses is told at once; what it does not answer is no fault of the request", () =>
  withBoth(async (test, hub, cache) => {
    const wrong = await test.call("POST", "/v1/runs", { recipe: named("hf:ada/smal") });
    assertEquals([wrong.status, wrong.body.error.param], [400, "recipe.teacher.model"]);
    assertStringIncludes(wrong.body.error.message, "answers 401: Invalid username or password.");
    const badly = await test.call("POST", "/v1/runs", { recipe: named("hf:../x") });
    assertEquals(badly.status, 400);
    assertStringIncludes(badly.body.error.message, "names no model of the hub");
    hub.fault = () => new Response(null, { status: 500 });
    const dead = await test.call("POST", "/v1/runs", { recipe: named("hf:ada/small") });
    assertEquals([dead.status, dead.body.error.code], [503, "hub"]);
    hub.fault = undefined;
    const early = await test.call("POST", "/v1/runs/validate", { recipe: named("hf:ada/small") });
    assertEquals([early.status, early.body.error.param], [400, "recipe.teacher.model"]);
    assertStringIncludes(early.body.error.message, "is fetched from the hub when a run of it begins");
    assertEquals(await filesBelow(cache), []);
  }));

Deno.test("a run whose model cannot be fetched has failed; one that is cancelled meanwhile fetches no more", () =>
  withBoth(async (test, hub) => {
    hub.fault = ({ path }) =>
      path.startsWith("store:") ? new Response(noise(20_000, 9).buffer as ArrayBuffer) : undefined;
    const failed = await submit(test, named("hf:ada/small"));
    const events = await eventsOf(test, failed, (events) => events.some(({ type }) => type === "error"));
    const error = events.find((event) => event.type === "error")!;
    assertStringIncludes((error as { message: string }).message, "more came as tokenizer.json");

    let asked = Promise.withResolvers<void>();
    hub.fault = ({ path }) => {
      if (!path.startsWith("store:")) return undefined;
      asked.resolve();
      return new Response(new ReadableStream({ start: (controller) => controller.enqueue(noise(100)) }));
    };
    const id = await submit(test, named("hf:ada/small"));
    await asked.promise;
    assertEquals((await test.call("POST", `/v1/runs/${id}/cancel`)).status < 300, true);
    // The queue goes on.
    hub.fault = undefined;
    asked = Promise.withResolvers();
    const next = await submit(test, fakeNamed({}, 2));
    await eventsOf(test, next, (events) => events.some(({ type }) => type === "result"));
    assertEquals((await test.service.store.get(id))!.state, "cancelled");
  }));
