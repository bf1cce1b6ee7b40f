/** The page's form in a real browser: names, estimates as one types, and recipes like those of earlier runs. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
// @ts-types="../../types/std_path.d.ts"
import { basename } from "@std/path";
import type { Locator, Page, Route } from "npm:playwright-core@1.60.0";
import { distillationOf } from "../../src/runs/task/run_recipe.ts";
import type { AdapterRecipe } from "../../src/distill/recipe/recipe.ts";
import { until } from "./harness.ts";
import { pageTest } from "./page_harness.ts";

/** What a recipe names, of which a test looks at little. */
type Named = Record<string, Record<string, unknown>>;

/** An estimate of so many bytes. */
function estimateOf(totalBytes: number) {
  return {
    ...{ adapter: "a made-up GPU", totalBytes, bytes: { activations: totalBytes }, steps: 12, warnings: [] },
    ...{ trained: { parameters: 7 }, train: { samples: 3 }, heldOut: { samples: 1 } },
  };
}

/** Keeps requests for estimates until the test answers them. */
async function heldEstimates(page: Page): Promise<{ routes: Route[]; mostAtOnce: () => number }> {
  const routes: Route[] = [];
  let [open, most] = [0, 0];
  const isEstimate = (url: string) => url.endsWith("/v1/runs/estimate");
  page.on("request", (request) => isEstimate(request.url()) && (most = Math.max(most, ++open)));
  page.on("requestfailed", (request) => isEstimate(request.url()) && open--);
  page.on("requestfinished", (request) => isEstimate(request.url()) && open--);
  await page.route("**/v1/runs/estimate", (route) => void routes.push(route));
  return { routes, mostAtOnce: () => most };
}

async function untilCount(list: readonly unknown[], count: number): Promise<void> {
  while (list.length < count) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Opens the recipe as JSON; returns its field and its text. */
async function openedJson(page: Page): Promise<{ json: Locator; text: string }> {
  await page.getByText("Edit the recipe as JSON").click();
  const json = page.getByLabel("Recipe as JSON");
  // A moment later, when the browser tells that it is open.
  while (await json.inputValue() === "") await pause(20);
  return { json, text: await json.inputValue() };
}

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

pageTest("the form: a run gets a name, which the list and the run show", async ({ page, url, service }) => {
  await page.goto(`${url}#/new`);
  await page.getByLabel("Name").fill("x".repeat(513));
  await page.getByLabel("Context length").fill("32");
  await page.getByLabel("Steps", { exact: true }).fill("12");
  await page.getByRole("button", { name: "Start run" }).click();
  const wrong = page.locator(".field.invalid");
  await wrong.waitFor();
  assertMatch(await wrong.innerText(), /^Name\s[^]*512/);
  assertEquals(await page.evaluate("document.activeElement.id"), "field-metadata-name");
  await page.getByLabel("Name").fill("  a calm morning ");
  await page.getByLabel("Name").press("Enter");
  await page.getByRole("heading", { name: "a calm morning" }).waitFor();
  await page.locator("#runs .title", { hasText: "a calm morning" }).waitFor();
  const [run] = (await service.store.list()).data;
  assertEquals(run!.metadata, { name: "a calm morning" });
  await until(service, run!.id, "succeeded");
  // Without a name there is none.
  await page.goto(`${url}#/new/${run!.id}`);
  assertEquals(await page.getByLabel("Name").inputValue(), "");
  await page.getByText("What you see first is what that run had.").waitFor();
  await page.getByRole("button", { name: "Start run" }).click();
  await page.locator("main .state", { hasText: "succeeded" }).waitFor();
  assertEquals((await service.store.list()).data[0]!.metadata, {});
});

pageTest(
  "the form: it estimates as one types, once one pauses, and never shows an old answer",
  async ({ page, url }) => {
    const { routes, mostAtOnce } = await heldEstimates(page);
    await page.goto(`${url}#/new`);
    const steps = page.getByLabel("Steps", { exact: true });
    await steps.waitFor();
    await pause(1200);
    assertEquals(routes.length, 0, "nothing is asked before something is entered");
    await steps.fill("");
    await steps.pressSequentially("123456", { delay: 60 });
    await untilCount(routes, 1);
    assertEquals(routes[0]!.request().postDataJSON().recipe.train.steps, 123456);
    // It takes long, and meanwhile the recipe changes.
    await steps.press("Backspace");
    await untilCount(routes, 2);
    assertEquals(routes[1]!.request().postDataJSON().recipe.train.steps, 12345);
    await routes[1]!.fulfill({ json: estimateOf(2048) });
    const summary = page.locator(".summary");
    await summary.filter({ hasText: "2.00 KiB on a made-up GPU" }).waitFor();
    await routes[0]!.fulfill({ json: estimateOf(1024) }).catch(() => {});
    await pause(300);
    assertStringIncludes(await summary.innerText(), "2.00 KiB");
    assertEquals(mostAtOnce(), 1);
    // A name changes nothing of what is needed; nor does what comes back to the same.
    await page.getByLabel("Name").pressSequentially("some name");
    await pause(1200);
    assertEquals(routes.length, 2);
    // What was told is marked as old at once, and as of now once the answer is there.
    await steps.press("Backspace");
    assertEquals(await summary.getAttribute("aria-busy"), "true");
    await untilCount(routes, 3);
    await routes[2]!.fulfill({ json: estimateOf(3072) });
    await summary.filter({ hasText: "3.00 KiB" }).waitFor();
    assertEquals(await summary.getAttribute("aria-busy"), "false");
    // It is what was asked for, so beginning the run asks for it no more.
    await page.getByLabel("Context length").fill("32");
    await untilCount(routes, 4);
    await routes[3]!.fulfill({ json: estimateOf(4096) });
    await summary.filter({ hasText: "4.00 KiB" }).waitFor();
    await page.getByRole("button", { name: "Start run" }).click();
    await page.waitForURL(/#\/runs\//);
    assertEquals(routes.length, 4);
  },
);

pageTest("the form: leaving it takes back what was asked", async ({ page, url }) => {
  const { routes } = await heldEstimates(page);
  await page.goto(`${url}#/new`);
  await page.getByLabel("Steps", { exact: true }).fill("13");
  await untilCount(routes, 1);
  const failed = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/estimate"));
  await page.getByLabel("Steps", { exact: true }).fill("14");
  await page.goto(`${url}#/`);
  await failed;
  await pause(1200);
  assertEquals(routes.length, 1, "nothing is asked for a form that is gone");
});

pageTest("the form: what is wrong is told as one types, and the focus stays", async ({ page, url }) => {
  await page.goto(`${url}#/new`);
  await page.getByLabel("Context length").fill("32");
  await page.getByLabel("Steps", { exact: true }).fill("999999");
  await page.getByLabel("Seed").focus();
  const wrong = page.locator(".field.invalid");
  await wrong.waitFor();
  assertMatch(await wrong.innerText(), /^Steps\s[^]*more than this service allows/);
  assertEquals(await page.evaluate("document.activeElement.id"), "field-train-seed");
  assertEquals(await page.locator(".summary").innerText(), "");
  await page.getByLabel("Steps", { exact: true }).fill("12");
  await page.getByText("values are trained in 12 steps").waitFor();
  assertEquals(await wrong.count(), 0);
  // As JSON, too; what is no JSON yet is said as well.
  const { json, text } = await openedJson(page);
  await json.fill(text.replace('"steps": 12', '"steps": 12,,'));
  await page.getByText("The recipe is not JSON").waitFor();
  assert(await page.getByLabel("Steps", { exact: true }).isDisabled(), "the fields do not count now");
  await json.fill(text.replace('"steps": 12', '"steps": 11'));
  await page.getByText("values are trained in 11 steps").waitFor();
  assertEquals(await page.getByText("The recipe is not JSON").count(), 0);
});

pageTest("the form: a run like another has the options of its adapter", async ({ page, url, service }) => {
  await page.goto(`${url}#/new`);
  await page.getByLabel("Context length").fill("32");
  await page.getByLabel("Steps", { exact: true }).fill("12");
  await page.getByLabel("Kind").selectOption("vera");
  await page.getByLabel("Initial").fill("0.25");
  for (let i = 0; i < 2; i++) {
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    const adapter = distillationOf((await service.store.list()).data[0]!.recipe).adapter as AdapterRecipe;
    assertEquals([adapter.type, adapter.options], ["vera", { initial: 0.25 }]);
    await page.getByRole("link", { name: "New like this" }).click();
    assertEquals(await page.getByLabel("Initial").inputValue(), "0.25");
  }
  // And none where that one has none.
  await page.getByLabel("Kind").selectOption("none");
  assertEquals(await page.getByLabel("Rank").isVisible(), false);
  const { json, text } = await openedJson(page);
  const recipe = JSON.parse(text);
  assertEquals(recipe.adapter, "none");
  recipe.student.train = ["norms"];
  await json.fill(JSON.stringify(recipe));
  for (let i = 0; i < 2; i++) {
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    const { adapter, student } = distillationOf((await service.store.list()).data[0]!.recipe);
    assertEquals([adapter, student.train], ["none", ["norms"]]);
    await page.getByRole("link", { name: "New like this" }).click();
    await page.getByLabel("Kind").waitFor();
  }
});

pageTest(
  "the form: a run like one of several sets keeps them, or takes one dataset instead",
  async ({ page, url, service }) => {
    const train = [{ path: "rows.jsonl", name: "a", weight: 3 }, {
      path: "rows.jsonl",
      name: "b",
      weight: 1,
    }];
    const recipe = {
      ...{ teacher: { model: "tiny" }, student: { model: "teacher" }, train: { steps: 12, warmup: 0 } },
      data: { train, mix: "tokens", contextLength: 32 },
      objective: [{ loss: "cross-entropy" }],
    };
    const { id } = await (await page.request.post(`${url}v1/runs`, { data: { recipe } })).json();
    await until(service, id, "succeeded");
    const data = distillationOf((await service.store.get(id))!.recipe).data;
    await page.goto(`${url}#/new/${id}`);
    const choice = page.getByLabel("Training data");
    assertEquals(await choice.locator("option:checked").innerText(), "3 a + 1 b (edit as JSON)");
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    assertEquals(distillationOf((await service.store.list()).data[0]!.recipe).data, data);
    await page.getByRole("link", { name: "New like this" }).click();
    await choice.selectOption("rows.jsonl");
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    assertEquals(
      basename(distillationOf((await service.store.list()).data[0]!.recipe).data.train as string),
      "rows.jsonl",
    );
  },
);

pageTest(
  "the form: losses are added and taken away, and every field has a name",
  async ({ page, url, service }) => {
    await page.goto(`${url}#/new`);
    await page.getByRole("button", { name: "Add a loss" }).click();
    await page.getByLabel("Loss 3", { exact: true }).selectOption("reverse-kl");
    await page.getByRole("button", { name: "Remove loss 2" }).click();
    assertEquals(await page.locator(".term").count(), 2);
    assertEquals(await page.getByLabel("Loss 2", { exact: true }).inputValue(), "reverse-kl");
    const nameless = await page.evaluate(`[...document.querySelectorAll("input, select, textarea")]
    .filter((input) => !input.labels?.length && !input.ariaLabel).map((input) => input.outerHTML)`);
    assertEquals(nameless, []);
    // What a loss has that no field shows stays with it.
    const recipe = {
      ...{
        teacher: { model: "tiny" },
        student: { model: "teacher" },
        data: { train: "rows.jsonl", contextLength: 32 },
      },
      objective: [
        { loss: "cross-entropy", tokens: "all" },
        { loss: "forward-kl" },
        { loss: "reverse-kl", temperature: 2, squareTemperature: true },
      ],
      train: { steps: 12, warmup: 0 },
    };
    const { id } = await (await page.request.post(`${url}v1/runs`, { data: { recipe } })).json();
    await until(service, id, "succeeded");
    const [first, , third] = distillationOf((await service.store.get(id))!.recipe).objective;
    await page.goto(`${url}#/new/${id}`);
    await page.getByRole("button", { name: "Remove loss 2" }).click();
    await page.getByLabel("Weight").first().fill("0.25");

    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator("main .state", { hasText: "succeeded" }).waitFor();
    assertEquals(distillationOf((await service.store.list()).data[0]!.recipe).objective, [
      { ...first!, weight: 0.25 },
      third!,
    ]);
  },
);

pageTest(
  "the form: what is kept of a teacher can be made ahead, and teachers without a field stay what they are",
  async ({ page, url, service }) => {
    await page.goto(`${url}#/new`);
    await page.getByLabel("Context length").fill("32");
    const caches = page.getByLabel("Kept of the teacher");
    await caches.selectOption("its hidden states");
    await page.getByRole("button", { name: "Fill the cache only" }).click();
    await page.getByRole("heading", { name: "cache of tiny" }).waitFor();
    const named = (await service.store.list()).data[0]!.named as { task: string; recipe: Named };
    assertEquals(named.task, "cache");
    assertEquals(named.recipe.teacher, { model: "tiny", cache: { payload: "hidden" } });
    await page.getByRole("link", { name: "New like this" }).click();
    await caches.waitFor();
    assertEquals(await caches.inputValue(), '{"payload":"hidden"}');
    const { data, train } = named.recipe;
    for (
      const [teacher, title, choice] of [
        [{ model: "student", self: { kind: "mean", decay: 0.9 } }, "tiny by itself", "the student itself"],
        [
          { combine: "mixture", teachers: [{ model: "tiny" }, { model: "tiny", name: "b" }] },
          "tiny + 1 → tiny",
          "several: mixture",
        ],
      ] as const
    ) {
      const recipe = { teacher, student: { model: "tiny" }, data, train: { ...train, warmup: 0 } };
      const response = await page.request.post(`${url}v1/runs`, { data: { recipe } });
      assertEquals(response.status(), 202, await response.text());
      const { id } = await response.json();
      await page.goto(`${url}#/new/${id}`);
      await page.locator("#runs .title", { hasText: title }).waitFor();
      const shown = page.getByLabel("Teacher", { exact: true }).locator("option:checked");
      await shown.filter({ hasText: choice }).waitFor({ state: "attached" });
      const { text } = await openedJson(page);
      assertEquals(JSON.parse(text).teacher, teacher);
    }
  },
);
