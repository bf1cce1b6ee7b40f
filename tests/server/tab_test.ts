/** The page that distils in a browser's tab: in Debian's Chromium, on software WebGPU. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Page } from "npm:playwright-core@1.60.0";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import type { Failure, KeptRun, TabOrder } from "../../src/tab/messages.ts";
import { runHere } from "../distill/tiny_run.ts";
import { pageTest } from "./page_harness.ts";

/** Software WebGPU, where the browser has it. */
const WEBGPU = ["--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"];

const RECIPE = {
  student: { model: "teacher", layers: [0, 2] },
  objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
  adapter: { type: "lora", rank: 4 },
  train: { steps: 10, tokensPerMicroBatch: 64, learningRate: 0.02, warmup: 2, checkpointEvery: 5, seed: 1 },
  samples: { tokens: 0 },
  output: { merged: false },
};

/** Asks the worker of a page that was opened by {@linkcode openWorker}. */
async function ask<T>(page: Page, request: Record<string, unknown>): Promise<T> {
  const { value, failure } = await page.evaluate<{ value: T; failure?: Failure }>(
    `asked(${JSON.stringify(request)})`,
  );
  if (failure) throw new Error(`${failure.message} ${failure.hint ?? ""}`);
  return value;
}

/** A worker in a page of the service; what its runs say is collected. */
async function openWorker(page: Page): Promise<void> {
  await page.evaluate(`(async () => {
    const { Engine } = await import("/page/tab/engine.js");
    const engine = new Engine();
    globalThis.said = [];
    engine.onEvent = (event) => event.type === "heartbeat" || said.push(event);
    globalThis.asked = (request) =>
      engine.ask(request).then((value) => ({ value }), ({ message, hint }) => ({ failure: { message, hint } }));
  })()`);
}

/** Hash of what a run left, by name. */
async function left(page: Page, id: string): Promise<Record<string, string>> {
  return await page.evaluate<Record<string, string>>(`(async () => {
    const { value } = await asked({ type: "files", id: ${JSON.stringify(id)} });
    const hashes = value.map(async ({ name, content }) => [
      name,
      new Uint8Array(await crypto.subtle.digest("SHA-256", await content.arrayBuffer())).toHex?.() ??
        Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", await content.arrayBuffer())),
          (b) => b.toString(16).padStart(2, "0")).join(""),
    ]);
    return Object.fromEntries(await Promise.all(hashes));
  })()`);
}

pageTest(
  "a tab distils as Deno does, and after a kill goes on to the same bytes",
  async ({ page, url, folder }) => {
    await page.setViewportSize({ width: 390, height: 844 });
    await page.goto(`${url}tab`);
    const hasGpu = await page.evaluate<boolean>(
      `(async () => Boolean(await navigator.gpu?.requestAdapter()))()`,
    );
    if (!hasGpu) return console.log("skip: this browser finds no WebGPU adapter");
    await page.getByRole("button", { name: "Start" }).waitFor();
    await page.locator("#service", { hasText: "a CPU that plays a GPU" }).waitFor();
    assertEquals(await page.evaluate("document.documentElement.scrollWidth"), 390);
    assert(
      (await page.getByLabel("Teacher", { exact: true }).locator("option").allInnerTexts()).includes("tiny"),
    );

    await openWorker(page);
    const catalogue = await (await page.request.get(`${url}tab/catalogue.json`)).json();
    const [teacher] = catalogue.models.filter(({ id }: { id: string }) => id === "tiny");
    const [rows] = catalogue.datasets.filter(({ id }: { id: string }) => id === "rows.jsonl");
    const order = (id: string): TabOrder => ({
      id,
      recipe: { ...RECIPE, teacher: { model: "tiny" }, data: { train: "rows", contextLength: 32 } },
      models: { tiny: teacher.files },
      datasets: { rows: rows.files },
    });
    await ask(page, { type: "start", order: order("whole") });
    const inTab = await page.evaluate<RunEventBody[]>("said");
    const whole = await left(page, "whole");
    assertEquals(Object.keys(whole).filter((name) => name.startsWith("adapter/")), [
      "adapter/adapter_config.json",
      "adapter/adapter_model.safetensors",
    ]);

    // The same modules on another implementation of WebGPU: what differs is the rounding of kernels.
    const inDeno: RunEventBody[] = [];
    const data = { train: `${folder}/datasets/rows.jsonl`, contextLength: 32 };
    const recipe = parseRecipe({ ...RECIPE, teacher: { model: `${folder}/models/tiny` }, data });
    await runHere(recipe, `${folder}/run`, {}, inDeno);
    const losses = (events: readonly RunEventBody[]) =>
      events.flatMap((event) => event.type === "metrics" ? [event.loss!] : []);
    assertEquals(losses(inTab).length, 10);
    assert(losses(inTab)[0]! - losses(inTab)[9]! > 0.1, `nothing was learnt: ${losses(inTab)}`);
    for (const [i, loss] of losses(inDeno).entries()) {
      assertAlmostEquals(
        losses(inTab)[i]!,
        loss,
        2e-4,
        `step ${i + 1}`,
      );
    }

    // A tab that is gone in the middle of a step.
    void page.evaluate(`void asked(${JSON.stringify({ type: "start", order: order("killed") })})`);
    // Two of them are of the run before.
    const checkpoints = () =>
      page.evaluate<number>("said.filter(({ type }) => type === 'checkpoint').length");
    while (await checkpoints() < 3) await new Promise((resolve) => setTimeout(resolve, 20));
    await page.reload();
    await page.getByText("Runs kept in this browser").waitFor();
    await openWorker(page);
    const runs = await ask<KeptRun[]>(page, { type: "runs" });
    assertEquals(runs.map(({ id, state, step }) => [id, state, step]).sort(), [
      ["killed", "unfinished", 5],
      ["whole", "succeeded", 10],
    ]);
    await ask(page, { type: "resume", id: "killed", picked: {} });
    assertEquals(await left(page, "killed"), whole);
    const zip = await page.evaluate<number[]>(`(async () => {
    const { value } = await asked({ type: "zip", id: "killed" });
    return [...new Uint8Array(await value.slice(0, 4).arrayBuffer())];
  })()`);
    assertEquals(zip, [0x50, 0x4b, 3, 4]);
  },
  {},
  WEBGPU,
);
