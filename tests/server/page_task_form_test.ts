/** The forms of merges, residuals and cuts in a real browser, whose runs are real. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import type { Page } from "npm:playwright-core@1.60.0";
import type { Service } from "../../src/server/service.ts";
import { writeTinyModel } from "../distill/tiny_model.ts";
import { pageTest } from "./page_harness.ts";

/** Begins the run that the form shows and waits for its end; returns it. */
async function begin(page: Page, service: Service) {
  await page.getByRole("button", { name: "Start run" }).click();
  await page.locator("main .state", { hasText: "succeeded" }).waitFor({ timeout: 60_000 });
  return (await service.store.list()).data[0]!;
}

pageTest(
  "the page: a merge is entered model by model, begun, and begun once more like it",
  async ({ page, url, service, folder }) => {
    await writeTinyModel(`${folder}/models/other`, { seed: 5 });
    await page.goto(`${url}#/new`);
    await page.getByRole("link", { name: "Merge", exact: true }).click();
    await page.getByLabel("Method").selectOption("ties");
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator("main .state", { hasText: "failed" }).waitFor({ timeout: 60_000 });
    await page.goto(`${url}#/task/merge`);
    await page.getByLabel("Method").selectOption("linear");
    await page.getByLabel("Model 1", { exact: true }).selectOption("tiny");
    await page.getByLabel("Model 2", { exact: true }).selectOption("other");
    await page.getByRole("button", { name: "Add a model" }).click();
    await page.getByRole("button", { name: "Add a model" }).click();
    await page.getByLabel("Model 4", { exact: true }).selectOption("other");
    await page.getByLabel("Weight").first().fill("2");
    await page.getByLabel("Weight").nth(3).fill("0.5");
    await page.getByRole("button", { name: "Remove model 3" }).click();
    assertEquals(await page.getByLabel("Weight").nth(2).inputValue(), "0.5");
    await page.getByLabel("Out dtype").selectOption("f16");
    const run = await begin(page, service);
    const expected = {
      task: "merge",
      method: "linear",
      models: [{ model: "tiny", weight: 2 }, { model: "other" }, { model: "other", weight: 0.5 }],
      outDtype: "f16",
    };
    assertEquals(run.named, expected);
    assertEquals(await page.locator("h1").innerText(), "linear of tiny + other + other");
    await page.getByText("merged/model.safetensors").waitFor({ state: "attached" });
    await page.getByRole("link", { name: "New like this" }).click();
    await page.getByLabel("Model 3", { exact: true }).waitFor();
    assertEquals((await begin(page, service)).named, expected);
  },
  { entry: undefined },
);

pageTest(
  "the page: a residual and a cut are entered and begun; what is wrong stands beside its field",
  async ({ page, url, service, folder }) => {
    await writeTinyModel(`${folder}/models/other`, { seed: 5 });
    await page.goto(`${url}#/task/residual`);
    await page.getByLabel("Instruct, tuned from it").selectOption("other");
    await page.getByLabel("Rank").fill("4000");
    await page.getByRole("button", { name: "Start run" }).click();
    await page.getByText("4000 is more than this service allows").waitFor();
    assertEquals(await page.getByLabel("Rank").getAttribute("aria-invalid"), "true");
    await page.getByLabel("Rank").fill("2");
    await page.getByRole("button", { name: "Estimate" }).click();
    await page.getByText(/It leaves an adapter of .* parameters in f32/).waitFor();
    const adapter = await begin(page, service);
    assertEquals(adapter.result?.paths, { adapter: "adapter" });
    // An adapter alone cannot be tried.
    assertEquals(await page.getByRole("button", { name: "Write" }).count(), 0);

    await page.goto(`${url}#/task/merge-adapters`);
    await page.getByLabel("Adapters").fill("run:none 0.5\n\nrun:other\n");
    await page.getByRole("button", { name: "Estimate" }).click();
    await page.getByText("must be run:ID of a run that left an adapter").waitFor();
    assertEquals(await page.getByLabel("Adapters").getAttribute("aria-invalid"), "true");
    await page.getByLabel("Adapters").fill(`run:${adapter.id} 0.5\nrun:${adapter.id}`);
    await page.getByRole("button", { name: "Estimate" }).click();
    await page.getByText(/It leaves an adapter of .* parameters/).waitFor();
    await page.goto(`${url}#/task/extract`);
    await page.getByLabel("Tuned from it").selectOption("other");
    await page.getByLabel("Rank").fill("2");
    await page.getByRole("button", { name: "Estimate" }).click();
    await page.getByText(/It leaves an adapter of .* parameters/).waitFor();

    await page.goto(`${url}#/task/shrink`);
    await page.getByLabel("Model", { exact: true }).selectOption("tiny");
    await page.getByRole("button", { name: "Start run" }).click();
    await page.getByText("say how many layers stay").waitFor();
    await page.getByLabel("Layers").fill("1");
    await page.getByLabel("Search").selectOption("exhaustive");
    await page.getByRole("button", { name: "Estimate" }).click();
    await page.getByText(/It measures on .* tokens of .* samples, at most 7 times\. .* on /).waitFor();
    assertEquals(await page.getByText("say how many layers stay").count(), 0);
    const cut = await begin(page, service);
    assertEquals(cut.named, {
      ...{ task: "shrink", model: "tiny", data: "rows.jsonl" },
      ...{ layers: 1, search: "exhaustive" },
    });
    await page.getByText("shrink.json").waitFor({ state: "attached" });
    // What it has measured is drawn at once.
    for (const cost of ["parameters", "tokens a second"]) {
      await page.getByRole("heading", { name: `Loss against ${cost}` }).waitFor();
    }
    assert(await page.locator(".frontier .best.is-chosen").count() > 0);
    assert(await page.locator(".log").innerText().then((text) => text.includes("place 1 of")));

    await page.goto(`${url}#/task/evaluate`);
    await page.getByLabel("Models", { exact: true }).fill("tiny\nother");
    await page.getByLabel("Tasks", { exact: true }).fill('[{"kind": "perplexty", "data": "rows.jsonl"}]');
    await page.getByRole("button", { name: "Start run" }).click();
    await page.getByText('did you mean "perplexity"?').waitFor();
    await page.getByLabel("Tasks", { exact: true }).fill(
      '[{"kind": "perplexity", "data": "rows.jsonl", "limit": 9}]',
    );
    await page.getByRole("button", { name: "Estimate" }).click();
    await page.getByText(/ on /).first().waitFor();
    const measured = await begin(page, service);
    assertEquals((measured.named as { models: unknown }).models, [{ model: "tiny" }, { model: "other" }]);
    const region = page.getByRole("region", { name: "Figures of the tasks" });
    await region.waitFor();
    assertEquals((await region.locator("thead").innerText()).trim(), "Task\tFigure\ttiny\tother");
    assert(
      (await region.locator("tbody tr").allInnerTexts())[0]!.startsWith(
        "rows-perplexity\tloss, nats a token\t",
      ),
    );
    const image = page.getByRole("img", {
      name: /Reliability, rows-perplexity: tiny, calibration error 0\.\d+; other/,
    });
    await image.focus();
    await page.keyboard.press("ArrowRight");
    await page.getByText(/confidence 0\.\d\d to 0\.\d\d: right/).waitFor();
    assert(await image.locator("circle").count() > 3);
    await page.getByRole("region", { name: "Differences" }).waitFor();
    if (Deno.env.has("LIMBECK_SHOT")) {
      await page.screenshot({ path: Deno.env.get("LIMBECK_SHOT")!, fullPage: true });
    }
  },
  { entry: undefined },
);
