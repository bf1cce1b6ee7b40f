/** The page in a real browser: runs are begun, watched, steered and signed in for. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { distillationOf } from "../../src/runs/task/run_recipe.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { until } from "./harness.ts";
import { begin, moreSteps, pageTest, stepsShown, submitted } from "./page_harness.ts";

pageTest(
  "the page: a run is submitted from the form, which shows its estimate first, and is watched to its end",
  async ({ page, url, service }) => {
    await page.goto(url);
    await page.getByRole("heading", { name: "Distil a model" }).waitFor();
    await page.locator("#service", { hasText: "a fake GPU" }).waitFor();
    await page.locator("#new-link").click();
    await page.getByLabel("Teacher", { exact: true }).selectOption("tiny");
    await page.getByLabel("Context length").fill("32");
    await page.getByLabel("Tokens per micro batch").fill("64");
    await page.getByLabel("Steps", { exact: true }).fill("12");
    await page.getByRole("button", { name: "Estimate" }).click();
    await page.getByText("values are trained in 12 steps").waitFor();
    assertMatch(await page.locator(".bars").innerText(), /activations/);
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    assertMatch(page.url(), /#\/runs\/\d{8}-/);
    assertStringIncludes(await page.locator(".numbers").innerText(), "12 of 12");
    await page.locator("canvas").first().waitFor();
    await page.getByRole("heading", { name: "Files" }).waitFor();
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "metrics.jsonl" }).or(page.getByText("more")).first().click().then(
        async () => {
          if (await page.getByRole("link", { name: "metrics.jsonl" }).isVisible()) {
            await page.getByRole("link", { name: "metrics.jsonl" }).click();
          }
        },
      ),
    ]);
    const rows = (await Deno.readTextFile(await download.path())).trim().split("\n");
    assertEquals(rows.filter((row) => JSON.parse(row).type === "metrics").length, 12);
    const [run] = (await service.store.list()).data;
    assertEquals([run!.state, distillationOf(run!.recipe).train.steps], ["succeeded", 12]);

    await page.getByRole("link", { name: "New like this" }).click();
    await page.getByRole("heading", { name: "New run" }).waitFor();
    assertEquals(await page.getByLabel("Steps", { exact: true }).inputValue(), "12");
    assertEquals(await page.getByLabel("Context length").inputValue(), "32");
    await page.getByLabel("Steps", { exact: true }).fill("14");
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator(".numbers", { hasText: "14 of 14" }).waitFor();
    const [second] = (await service.store.list()).data;
    const { steps: _, ...rest } = distillationOf(run!.recipe).train;
    const { steps, ...same } = distillationOf(second!.recipe).train;
    assertEquals([steps, same, distillationOf(second!.recipe).objective], [
      14,
      rest,
      distillationOf(run!.recipe).objective,
    ]);
  },
);

pageTest(
  "the page: what is wrong is told beside its field, and the first such field has the focus",
  async ({ page, url, service }) => {
    await page.goto(`${url}#/new`);
    await page.getByLabel("Steps", { exact: true }).fill("999999");
    await page.getByLabel("Rank").fill("100000");
    await page.getByRole("button", { name: "Start run" }).click();
    const wrong = page.locator(".field.invalid");
    await wrong.first().waitFor();
    const told = await wrong.allInnerTexts();
    assert(
      told.some((text) => text.startsWith("Steps") && text.includes("more than this service allows")),
      told.join(),
    );
    assert(
      told.some((text) => text.startsWith("Rank") && text.includes("more than this service allows")),
      told.join(),
    );
    assertEquals(await page.evaluate('document.activeElement.getAttribute("aria-invalid")'), "true");
    // From the keyboard alone: correct both, and start.
    await page.getByLabel("Steps", { exact: true }).fill("12");
    await page.getByLabel("Rank").fill("4");
    await page.getByLabel("Context length").fill("32");
    await page.getByLabel("Rank").press("Enter");
    await page.locator("main .state").first().waitFor();
    assertEquals((await service.store.list()).data.length, 1);
  },
);

pageTest("the page: a run is paused, resumed and cancelled", async ({ page, url, service }) => {
  const id = await begin(page, url);
  const state = page.locator("main .state");
  await page.getByRole("button", { name: "Pause" }).click();
  await state.filter({ hasText: "paused" }).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await state.filter({ hasText: "running" }).waitFor();
  const before = await stepsShown(page);
  await moreSteps(page, before);
  await page.getByRole("button", { name: "Cancel" }).click();
  await state.filter({ hasText: "cancelled" }).waitFor();
  await until(service, id, "cancelled");
});

pageTest(
  "the page: it goes on where it was after the service is started again",
  async ({ page, url, restart }) => {
    const id = await begin(page, url, { steps: 150, pace: 30 });
    await moreSteps(page, 8);
    const service = await restart();
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    const stored = (await service.store.events(id, { types: ["checkpoint"] })).length;
    const shown = (await page.locator(".log").innerText()).match(/checkpoint after step/g)!.length;
    assertEquals(shown, stored, "no event is shown twice, none is missing");
    assertStringIncludes(await page.locator(".log").innerText(), "continuing after step");
  },
);

pageTest(
  "the page: it asks for the stream again when a proxy answers for a service that is away",
  async ({ page, url }) => {
    let away = 2;
    // The first answers are those of a proxy; an EventSource gives up at the first of them.
    await page.route(
      /\/events/,
      (route) => away-- > 0 ? route.fulfill({ status: 502, body: "" }) : route.continue(),
    );
    await begin(page, url, { steps: 20, pace: 5 });
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    await page.locator(".log", { hasText: "checkpoint after step 20" }).waitFor();
  },
);

pageTest(
  "the page: a failed run shows its error first, from the first moment on",
  async ({ page, url, service }) => {
    const id = await submitted(page, url, { throwAt: 3 });
    await until(service, id, "failed");
    await page.addInitScript(`
      globalThis.states = [];
      new MutationObserver(() => {
        const state = document.querySelector("main .state")?.textContent;
        if (state && state !== states.at(-1)) states.push(state);
      }).observe(document, { subtree: true, childList: true, characterData: true });
    `);
    await page.goto(`${url}#/runs/${id}`);
    await page.locator(".log", { hasText: "failed" }).waitFor();
    await page.getByRole("heading", { name: "Loss, nats a token" }).waitFor();
    assertEquals(
      await page.getByRole("heading", { name: /^Parts/ }).count(),
      0,
      "of one loss there are no parts",
    );
    assertEquals(
      await page.evaluate("globalThis.states"),
      ["failed"],
      "states that it went through are not shown again",
    );
    const shown = await page.locator("main .panel").first().innerText();
    assertMatch(shown, /the GPU was lost\s+try again[^]*Steps/);
  },
);

pageTest(
  "the page: a run that failed before its first step has no curves",
  async ({ page, url, service }) => {
    const id = await submitted(page, url);
    await until(service, id, "succeeded");
    const error = {
      code: "input",
      message: "the teacher cannot be read",
      hint: "look at its folder",
      exitCode: 3,
    };
    const run = await (await page.request.get(`${url}v1/runs/${id}`)).json();
    await page.route(
      `**/v1/runs/${id}`,
      (route) =>
        route.fulfill({ json: { ...run, state: "failed", step: 0, loss: null, result: null, error } }),
    );
    await page.route(
      /\/metrics\?/,
      (route) => route.fulfill({ json: { object: "metrics", training: [], evaluations: [] } }),
    );
    await page.route(/\/events\?/, (route) => route.fulfill({ status: 204 }));
    await page.goto(`${url}#/runs/${id}`);
    await page.getByText("the teacher cannot be read").waitFor();
    await page.getByText("Recipe", { exact: true }).waitFor();
    for (const heading of ["Loss, nats a token", "Learning rate", "Gradient norm", "Tokens a second"]) {
      assertEquals(await page.getByRole("heading", { name: heading }).count(), 0, heading);
    }
    assertEquals(await page.locator("canvas:visible, .chart-settings:visible").count(), 0);
  },
);

pageTest(
  "the page: on a phone the list comes before the run, and both are in sight",
  async ({ page, url, service }) => {
    await page.setViewportSize({ width: 390, height: 800 });
    const id = await submitted(page, url, { steps: 2, name: "the one" });
    await until(service, id, "succeeded");
    for (let i = 0; i < 6; i++) await until(service, await submitted(page, url, { steps: 2 }), "succeeded");
    await page.goto(`${url}#/runs/${id}`);
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    const marked = page.locator("#runs a[aria-current]");
    await marked.waitFor();
    const list = (await page.locator("#side").boundingBox())!;
    const head = (await page.getByRole("heading", { name: "the one" }).boundingBox())!;
    assert(list.y + list.height <= head.y, "the list is above the run");
    assert(head.y + head.height < 800, "the run's name is in sight");
    const card = (await marked.boundingBox())!;
    assert(
      list.y <= card.y && card.y + card.height <= list.y + list.height + 1,
      "so is its card, though the oldest",
    );
    assertEquals(await page.evaluate("document.documentElement.scrollWidth"), 390, "nothing sticks out");
    await page.goto(`${url}#/`);
    await page.getByRole("heading", { name: "Distil a model" }).waitFor();
    const whole = (await page.locator("#side").boundingBox())!;
    assert(whole.height > list.height + 100, "alone, the list is not cut");
  },
);

pageTest("the page: who wants no motion gets none", async ({ page, url }) => {
  const animation = () =>
    page.evaluate(`getComputedStyle(document.querySelector("main .state"), "::before").animationName`);
  await begin(page, url);
  await page.locator("main .state", { hasText: "running" }).waitFor();
  assertEquals(await animation(), "breathe");
  await page.emulateMedia({ reducedMotion: "reduce" });
  assertEquals(await animation(), "none");
});

pageTest("the page: the link past the list leads to what is shown", async ({ page, url, service }) => {
  const id = await submitted(page, url);
  await until(service, id, "succeeded");
  await page.goto(`${url}#/runs/${id}`);
  await page.locator("main .state").waitFor();
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  assertEquals(await page.evaluate("document.activeElement.id"), "main");
  assert(page.url().endsWith(id), "and leaves it as it is");
});

const admin = newToken("ada", "admin");

const reader = newToken("rob", "read");
const tokens = TokenList.parse(`${admin.line}\n${reader.line}`, "tokens");

pageTest(
  "the page: with tokens it asks for one and for nothing else, and a wrong one is told",
  async ({ page, url }) => {
    const asked: string[] = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    await page.goto(`${url}#/new`);
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("the token is not known").waitFor();
    const isAlone = async () => {
      assertEquals(await page.locator("#new-link:visible, #side:visible, #leave:visible").count(), 0);
      assertEquals(await page.getByRole("heading").allInnerTexts(), ["Sign in"]);
    };
    await isAlone();
    await page.goto(`${url}#/runs/other`);
    await isAlone();
    assertEquals(asked.filter((path) => path.startsWith("/v1/")), []);
    await page.goto(url);
    await page.getByLabel("Token").fill(admin.secret);
    await page.getByLabel("Token").press("Enter");
    await page.getByRole("heading", { name: "Distil a model" }).waitFor();
    await page.locator("#new-link:visible").waitFor();
    assertEquals(await page.evaluate("document.cookie"), "", "scripts cannot read the cookie");
    // The session ends elsewhere, such as in another window.
    await page.evaluate('fetch("/session", { method: "DELETE" })');
    await page.getByText("The session has ended.").waitFor();
    await isAlone();
    await page.goto(`${url}#/new`);
    await isAlone();
  },
  { tokens },
);

pageTest("the page: who may only read is asked for no run", async ({ page, url }) => {
  await page.goto(`${url}#/new`);
  await page.getByLabel("Token").fill(reader.secret);
  await page.getByLabel("Token").press("Enter");
  await page.getByRole("heading", { name: "Distil a model" }).waitFor();
  assertEquals(await page.getByText("New run").locator("visible=true").count(), 0);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").waitFor();
}, { tokens });
