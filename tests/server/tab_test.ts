/** The page that distils in a browser's tab: in Debian's Chromium, on software WebGPU. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import type { Page } from "npm:playwright-core@1.60.0";
import { builtins } from "../../plugins/mod.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { openRecipe } from "../../src/distill/run/open_recipe.ts";
import { choicesOfRecipe } from "../../src/distill/run/tune_recipe.ts";
import type { DeviceDescription } from "../../src/gpu/description.ts";
import { TINT_PREAMBLE } from "../../src/gpu/preamble.ts";
import { Registry } from "../../src/registry/registry.ts";
import {
  type DeviceIdentity,
  kernelTexts,
  type TunedChoice,
  type TunedDevice,
} from "../../src/tune/tuned.ts";
import type { RunResult } from "../../src/distill/export/exports.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import type { Failure, KeptRun, TabOrder } from "../../src/tab/messages.ts";
import { runHere } from "../distill/tiny_run.ts";
import { tunedChoice } from "../tune/tuned.ts";
import { pageTest } from "./page_harness.ts";

/** Software WebGPU, where the browser has it. */
const WEBGPU = ["--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"];

const STEPS = 10;
const RECIPE = {
  student: { model: "teacher", layers: [0, 2] },
  objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
  // Both are square: each further shape is kernels to compile, which takes most of the time of this test.
  adapter: { type: "lora", rank: 4, targets: ["q_proj", "o_proj"] },
  train: {
    steps: STEPS,
    tokensPerMicroBatch: 64,
    learningRate: 0.02,
    warmup: 2,
    checkpointEvery: 4,
    seed: 1,
  },
  samples: { tokens: 0 },
  output: { merged: false },
};

/** Of the products' kernels for hardware, the one that SwiftShader compiles soonest: most of this test's time is compilation. */
const QUICK = "tiled 32x32 by 16, 4x4 each, one panel";

/**
 * Has the browser know of its device that it chose that kernel for every product of a recipe.
 *
 * @returns the kernels, by what they are for
 */
async function chooseQuick(page: Page, recipe: Recipe): Promise<Record<string, string>> {
  const device = await ask<DeviceIdentity>(page, { type: "device" });
  const description = { name: device.name, ...device.limits } as unknown as DeviceDescription;
  const adapter = { info: { isFallbackAdapter: true } } as GPUAdapter;
  const choices: TunedChoice[] = [];
  await openRecipe(recipe, new Registry().addAll(builtins), async (opened) => {
    for (const choice of choicesOfRecipe(opened, { description, adapter }).values()) {
      if (!choice.candidates.some(({ name }) => name === QUICK)) continue;
      for (const preamble of ["", TINT_PREAMBLE]) {
        const text = await kernelTexts(choice, { description, preamble });
        choices.push(tunedChoice(choice.key, { text, kernel: QUICK, first: choice.candidates[0]!.name }));
      }
    }
  });
  const kept: TunedDevice[] = [{ version: 1, device, choices }];
  await page.evaluate(`new Promise((resolve, reject) => {
    const opening = indexedDB.open("limbeck", 1);
    opening.onsuccess = () => {
      const writing = opening.result.transaction("files", "readwrite");
      const content = new Blob([${JSON.stringify(JSON.stringify(kept))}]);
      writing.objectStore("files").put({ content, modified: 0 }, "/tuned.json");
      writing.oncomplete = resolve;
      writing.onabort = reject;
    };
  })`);
  return Object.fromEntries(choices.map(({ key, kernel }) => [key, kernel]));
}

/** Asks the worker of a page that was opened by {@linkcode openWorker}. */
async function ask<T>(page: Page, request: Record<string, unknown>): Promise<T> {
  const { value, failure } = await page.evaluate<{ value: T; failure?: Failure }>(
    `asked(${JSON.stringify(request)})`,
  );
  if (failure) throw new Error(`${failure.message} ${failure.hint ?? ""}`);
  return value;
}

/** Waits until something is true in a page, whose policy keeps Playwright from doing so itself. */
async function until(page: Page, condition: string): Promise<void> {
  while (!await page.evaluate<boolean>(condition)) await new Promise((resolve) => setTimeout(resolve, 20));
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

/** Starts a run on what a page makes of files; returns how it is refused. */
async function refusal(page: Page, order: string): Promise<string> {
  const { failure } = await page.evaluate<{ failure?: Failure }>(`asked({ type: "start", order: ${order} })`);
  return failure ? `${failure.message} ${failure.hint ?? ""}` : "it began";
}

/** What was picked and does not do is told in words, and nothing of such a run is kept. */
async function refusals(page: Page, rows: Record<string, string>): Promise<void> {
  const order = (models: string, datasets: string, sets = "") =>
    `{ id: "wrong", sets: [${sets}], models: { own: ${models} }, datasets: { rows: ${datasets} },
       recipe: { teacher: { model: "own" }, student: { model: "teacher" }, data: { train: "rows" } } }`;
  const there = JSON.stringify(rows);
  const cases: readonly (readonly [order: string, told: RegExp])[] = [
    [order(`{ "notes.txt": new Blob(["x"]) }`, there), /own: there is no config\.json/],
    [order(`{ "own.gguf": new Blob(["GGUFno"]) }`, there), /own\.gguf: .*/],
    [
      order(`{ "config.json": new Blob(["{}"]), "model.safetensors": new Blob(["12345678"]) }`, there),
      /model\.safetensors: .*/,
    ],
    [order(`{ "config.json": "models/none/config.json" }`, there), /the server answers 404/],
    [order(there, there, `"train.steps=many"`), /train\.steps: must be a number/],
    [order(there, there, `"teacher.model=other"`), /there is no model "other" in this tab/],
  ];
  for (const [order, told] of cases) assertMatch(await refusal(page, order), told);
  assertEquals((await ask<KeptRun[]>(page, { type: "runs" })).map(({ id }) => id), ["killed"]);
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
    const data = { train: `${folder}/datasets/rows.jsonl`, contextLength: 32 };
    const recipe = parseRecipe({ ...RECIPE, teacher: { model: `${folder}/models/tiny` }, data });
    const kernels = await chooseQuick(page, recipe);
    assert(Object.keys(kernels).length > 2);
    // It may try one kernel that it does not know. Then a tab that is gone in the middle of a step.
    const killedOrder = { ...order("killed"), tuneSeconds: 0 };
    void page.evaluate(`void asked(${JSON.stringify({ type: "start", order: killedOrder })})`);
    await until(page, "said.some(({ type }) => type === 'checkpoint')");
    const [tuned] = await page.evaluate<{ choices: TunedChoice[] }[]>(
      "said.filter(({ type }) => type === 'tuned')",
    );
    for (const { key, kernel, first } of tuned!.choices) if (kernel !== first) kernels[key] = kernel;
    assertEquals(tuned!.choices.length, 1);
    await page.reload();
    await page.getByText("Runs kept in this browser").waitFor();
    await openWorker(page);
    const [killed, ...others] = await ask<KeptRun[]>(page, { type: "runs" });
    assertEquals([killed?.id, killed?.state, others.length], ["killed", "unfinished", 0]);
    assert(killed!.step >= 4 && killed!.step < STEPS, `it is at ${killed!.step}`);
    await refusals(page, rows.files);
    await ask(page, { type: "resume", id: "killed", picked: {} });
    await page.evaluate("said.length = 0");
    await ask(page, { type: "start", order: order("whole") });
    const inTab = await page.evaluate<RunEventBody[]>("said");
    const [plan] = inTab.flatMap((event) => event.type === "plan" ? [event] : []);
    assertEquals(plan!.kernels, kernels, "the kernels that the browser knows its device to have chosen");
    assertEquals(inTab.some(({ type }) => type === "tuned"), false);

    const whole = await left(page, "whole");
    assertEquals(Object.keys(whole).filter((name) => name.startsWith("adapter/")), [
      "adapter/adapter_config.json",
      "adapter/adapter_model.safetensors",
    ]);
    assertEquals(await left(page, "killed"), whole);

    // The same modules on another implementation of WebGPU: what differs is the rounding of kernels.
    const inDeno: RunEventBody[] = [];
    await runHere(recipe, `${folder}/run`, {}, inDeno);
    const losses = (events: readonly RunEventBody[]) =>
      events.flatMap((event) => event.type === "metrics" ? [event.loss!] : []);
    assertEquals(losses(inTab).length, STEPS);
    assert(losses(inTab)[0]! - losses(inTab)[STEPS - 1]! > 0.1, `nothing was learnt: ${losses(inTab)}`);
    for (const [i, loss] of losses(inDeno).entries()) {
      assertAlmostEquals(losses(inTab)[i]!, loss, 2e-4, `step ${i + 1}`);
    }

    // Files that were picked: stopped, and gone on with once they are picked again.
    await page.evaluate(`(async () => {
      const blobs = async (files) => Object.fromEntries(await Promise.all(Object.entries(files).map(
        async ([name, url]) => [name, await (await fetch("/tab/" + url)).blob()],
      )));
      globalThis.picked = { tiny: await blobs(${JSON.stringify(teacher.files)}), rows: await blobs(${
      JSON.stringify(rows.files)
    }) };
    })()`);
    const { recipe: written } = order("picked");
    const started = page.evaluate<{ value?: RunResult; failure?: Failure }>(
      `asked({ type: "start", order: { id: "picked", recipe: ${JSON.stringify(written)},
        models: { tiny: picked.tiny }, datasets: { rows: picked.rows } } })`,
    );
    await until(page, "said.filter(({ stage }) => stage === 'train').length === 2");
    await ask(page, { type: "stop" });
    const { value: stopped, failure } = await started;
    assertEquals([stopped?.status, failure], ["paused", undefined]);
    const again = await page.evaluate<{ failure?: Failure }>(
      `asked({ type: "resume", id: "picked", picked: {} })`,
    );
    assertMatch(again.failure!.message, /pick again what the run began with: .*model\.safetensors/);
    await page.evaluate(`asked({ type: "resume", id: "picked", picked })`);
    assertEquals(await left(page, "picked"), whole);

    const zip = await page.evaluate<number[]>(`(async () => {
      const { value } = await asked({ type: "zip", id: "killed" });
      return [...new Uint8Array(await value.slice(0, 4).arrayBuffer())];
  })()`);
    assertEquals(zip, [0x50, 0x4b, 3, 4]);

    // A service that cannot make the worker.
    const body = JSON.stringify({ error: { message: "the page's worker cannot be bundled: no network" } });
    await page.route(
      "**/tab/worker.js",
      (route) => route.fulfill({ status: 503, contentType: "application/json", body }),
    );
    await page.reload();
    await page.getByText("the page's worker cannot be bundled: no network").waitFor();

    // A browser without WebGPU.
    await page.addInitScript("delete Navigator.prototype.gpu");
    await page.reload();
    await page.getByText("This browser has no WebGPU").waitFor();
  },
  {},
  WEBGPU,
);
