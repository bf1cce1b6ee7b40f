/** The page in a real browser: Debian's Chromium, without a window. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type Browser, chromium, type Page } from "npm:playwright-core@1.60.0";
import { listen } from "../../src/server/listen.ts";
import { Service, type ServiceOptions } from "../../src/server/service.ts";
import { newToken, TokenList } from "../../src/server/auth/tokens.ts";
import { withTiny } from "../distill/tiny_model.ts";
import { defaults, until } from "./harness.ts";

const CHROMIUM = "/usr/bin/chromium";
/** Steps that the page shows as done. */
async function stepsShown(page: Page): Promise<number> {
  const shown = page.locator(".numbers dd").first();
  return Number.parseInt(await shown.innerText({ timeout: 500 }).catch(() => "0"));
}

/** Waits until the page shows more steps than `count`. */
async function moreSteps(page: Page, count: number): Promise<void> {
  while (await stepsShown(page) <= count) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** A service with a tiny real model and the fake trainer, and a page of it. What the page complains of fails the test. */
function pageTest(
  name: string,
  fn: (
    test: { page: Page; url: string; service: Service; folder: string; restart: () => Promise<Service> },
  ) => Promise<void>,
  options: ServiceOptions = {},
): void {
  Deno.test({
    name,
    // A browser's process and its pipes outlive a test.
    sanitizeOps: false,
    sanitizeResources: false,
    async fn() {
      const found = await Deno.stat(CHROMIUM).then(() => true, () => false);
      if (!found) return console.log(`skip: there is no browser at ${CHROMIUM}; apt-get install chromium`);
      await withTiny(async ({ folder }) => {
        await Deno.mkdir(`${folder}/models`);
        await Deno.rename(`${folder}/teacher`, `${folder}/models/tiny`);
        await Deno.mkdir(`${folder}/datasets`);
        await Deno.rename(`${folder}/train.jsonl`, `${folder}/datasets/rows.jsonl`);
        const start = () => Service.start({ ...defaults(folder), ...options });
        let service = await start();
        let listening = listen(service, { host: "127.0.0.1", port: 0 });
        const { port } = listening;
        const restart = async () => {
          await listening.close(2);
          // Long enough for the page to notice.
          await new Promise((resolve) => setTimeout(resolve, 1500));
          service = await start();
          listening = listen(service, { host: "127.0.0.1", port });
          return service;
        };
        let browser: Browser | undefined;
        const complaints: string[] = [];
        try {
          browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
          const page = await browser.newPage();
          page.on("pageerror", (error) => complaints.push(error.message));
          page.on("console", (message) => {
            if (message.type() === "error" && !/Failed to load resource|net::ERR/.test(message.text())) {
              complaints.push(message.text());
            }
          });
          page.setDefaultTimeout(20_000);
          await fn({ page, url: `http://127.0.0.1:${port}/`, service, folder, restart });
          assertEquals(complaints, []);
        } finally {
          await browser?.close();
          await listening.close(2);
        }
      });
    },
  });
}

/** Begins a run so slow that it can be watched, and opens it. */
async function begin(page: Page, url: string, { steps = 300, pace = 20 } = {}): Promise<string> {
  const recipe = {
    teacher: { model: "tiny" },
    student: { model: "teacher" },
    data: { train: "rows.jsonl" },
    // The trainer is fake: it is told to be slow by the loss's source.
    objective: [{ loss: "cross-entropy", source: JSON.stringify({ pace }) }],
    train: { steps, warmup: 0 },
  };
  const response = await page.request.post(`${url}v1/runs`, { data: { recipe } });
  const { id } = await response.json();
  await page.goto(`${url}#/runs/${id}`);
  return id;
}

pageTest(
  "the page: a run is submitted from the form, which shows its estimate first, and is watched to its end",
  async ({ page, url, service }) => {
    await page.goto(url);
    await page.getByRole("heading", { name: "Distil a model" }).waitFor();
    await page.locator("#service", { hasText: "a fake GPU" }).waitFor();
    await page.locator("#new-link").click();
    await page.getByLabel("Teacher").selectOption("tiny");
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
    assertEquals([run!.state, run!.recipe.train.steps], ["succeeded", 12]);

    await page.getByRole("link", { name: "New like this" }).click();
    await page.getByRole("heading", { name: "New run" }).waitFor();
    assertEquals(await page.getByLabel("Steps", { exact: true }).inputValue(), "12");
    assertEquals(await page.getByLabel("Context length").inputValue(), "32");
    await page.getByLabel("Steps", { exact: true }).fill("14");
    await page.getByRole("button", { name: "Start run" }).click();
    await page.locator(".numbers", { hasText: "14 of 14" }).waitFor();
    const [second] = (await service.store.list()).data;
    const { steps: _, ...rest } = run!.recipe.train;
    const { steps, ...same } = second!.recipe.train;
    assertEquals([steps, same, second!.recipe.objective], [14, rest, run!.recipe.objective]);
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

const admin = newToken("ada", "admin");

pageTest("the page: with tokens it asks for one, and a wrong one is told", async ({ page, url }) => {
  await page.goto(url);
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("the token is not known").waitFor();
  await page.getByLabel("Token").fill(admin.secret);
  await page.getByLabel("Token").press("Enter");
  await page.getByRole("heading", { name: "Distil a model" }).waitFor();
  assertEquals(await page.evaluate("document.cookie"), "", "scripts cannot read the cookie");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").waitFor();
}, { tokens: TokenList.parse(admin.line, "tokens") });
