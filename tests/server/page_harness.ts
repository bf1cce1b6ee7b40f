/** A page of a service in a real browser: Debian's Chromium, without a window. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { type Browser, type BrowserContext, chromium, type Page } from "npm:playwright-core@1.60.0";
import { listen } from "../../src/server/listen.ts";
import { Service, type ServiceOptions } from "../../src/server/service.ts";
import { withTiny } from "../distill/tiny_model.ts";
import type { Fault } from "../runs/fake_trainer.ts";
import { defaults } from "./harness.ts";
import { exists } from "../../src/formats/files.ts";

const CHROMIUM = "/usr/bin/chromium";

const started = new Map<string, Promise<Browser>>();

/** The browser of a file's tests: to start one costs more than most of them do. */
function sharedBrowser(args: readonly string[]): Promise<Browser> {
  const key = args.join(" ");
  let browser = started.get(key);
  if (!browser) {
    started.set(
      key,
      browser = chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", ...args] }),
    );
  }
  return browser;
}

Deno.test.afterAll(async () => {
  for (const browser of started.values()) await (await browser).close();
});

/** Steps that the page shows as done. */
export async function stepsShown(page: Page): Promise<number> {
  const shown = page.locator(".numbers dd").first();
  return Number.parseInt(await shown.innerText({ timeout: 500 }).catch(() => "0"));
}

/** Waits until the page shows more steps than `count`. */
export async function moreSteps(page: Page, count: number): Promise<void> {
  while (await stepsShown(page) <= count) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** A service with a tiny real model and the fake trainer, and a page of it. What the page complains of fails the test. */
export function pageTest(
  name: string,
  fn: (
    test: { page: Page; url: string; service: Service; folder: string; restart: () => Promise<Service> },
  ) => Promise<void>,
  options: ServiceOptions = {},
  browserArgs: readonly string[] = [],
): void {
  Deno.test({
    name,
    // A browser's process and its pipes outlive a test.
    sanitizeOps: false,
    sanitizeResources: false,
    async fn() {
      const found = await exists(CHROMIUM);
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
        let context: BrowserContext | undefined;
        const complaints: string[] = [];
        try {
          // Nothing that a page keeps is there for the next test.
          context = await (await sharedBrowser(browserArgs)).newContext();
          const page = await context.newPage();
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
          // Answers that a test gives in place of the service, and that nobody waits for any more: what fails of one would end all tests of the file.
          for (const page of context?.pages() ?? []) await page.unrouteAll({ behavior: "ignoreErrors" });
          await context?.close();
          await listening.close(2);
        }
      });
    },
  });
}

/** How a run of the fake trainer is. */
export interface FakeRun extends Fault {
  readonly steps?: number;
  readonly seed?: number;
  readonly name?: string;
  /** Whether several shapes of the student are trained. */
  readonly shaped?: boolean;
  /** Losses beside cross-entropy, before it or after it. */
  readonly before?: readonly string[];
  readonly after?: readonly string[];
}

/** Submits a run; returns its id. */
export async function submitted(page: Page, url: string, run: FakeRun = {}): Promise<string> {
  const { steps = 12, seed = 1, name, shaped = false, before = [], after = [], ...fault } = run;
  const terms = (ids: readonly string[]) => ids.map((loss) => ({ loss }));
  const recipe = {
    teacher: { model: "tiny" },
    student: { model: "teacher", ...(shaped ? { shapes: { layers: [[0, 1], [0]] } } : {}) },
    data: { train: "rows.jsonl" },
    // With several shapes, a loss has no options of its own.
    ...(shaped ? { samples: { prompts: [JSON.stringify(fault)] } } : {}),
    // The trainer is fake: what it is to do is told as the source of the first loss.
    objective: [...terms(before), { loss: "cross-entropy" }, ...terms(after)]
      .map((term, i) => i === 0 && !shaped ? { ...term, source: JSON.stringify(fault) } : term),
    train: { steps, seed, warmup: 0 },
  };
  const data = { recipe, ...(name === undefined ? {} : { metadata: { name } }) };
  const response = await page.request.post(`${url}v1/runs`, { data });
  const { id } = await response.json();
  return id;
}

/** Begins a run so slow that it can be watched, and opens it. */
export async function begin(page: Page, url: string, { steps = 300, pace = 20 } = {}): Promise<string> {
  const id = await submitted(page, url, { steps, pace });
  await page.goto(`${url}#/runs/${id}`);
  return id;
}
