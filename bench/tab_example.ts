/**
 * The embedded example, distilled in a browser's tab from the press of Start to the download, beside the same recipe in Deno:
 *
 *     deno run -A bench/tab_example.ts                      in Debian's Chromium, which plays a GPU with SwiftShader
 *     deno run -A bench/tab_example.ts --set train.steps=12 --set train.checkpointEvery=4 --reload-after 8
 *                                                           fewer steps, the page loaded again after the checkpoint of the eighth, and the run resumed
 *     deno run -A bench/tab_example.ts --folder FOLDER      keeps what was made there, and goes on with it where there is some
 *     deno run -A bench/tab_example.ts --no-deno            only the tab
 *     deno run -A bench/tab_example.ts --browser FLAG …     with other flags of Chromium than those for SwiftShader
 *
 * It prints what the tab says of its stages, steps, measurements and checkpoints as it comes, and at the end how far the losses and the
 * adapter of the tab and of Deno are from each other.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
// @ts-types="../types/std_path.d.ts"
import { dirname, resolve } from "@std/path";
import { unzipSync } from "fflate";
import { type BrowserContext, chromium, type Page } from "npm:playwright-core@1.60.0";
import { buildSite } from "../examples/browser/build.ts";
import type { RunEventBody } from "../src/distill/run/events.ts";
import { mapRecipePaths } from "../src/distill/recipe/paths.ts";
import { exists, openFile } from "../src/formats/files.ts";
import { SafetensorsFile } from "../src/formats/safetensors/safetensors.ts";
import type { TabOrder } from "../src/tab/messages.ts";

const SWIFTSHADER = [
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--use-webgpu-adapter=swiftshader",
];
/** How long the page may take to show something, on a machine with much else to do. */
const PATIENCE_MS = 300_000;
const ROOT = new URL("..", import.meta.url).pathname;
const STORIES = `${ROOT}examples/stories/`;

/** Gives out a folder's files, and parts of them. */
function serveFolder(folder: string, port: number): Deno.HttpServer<Deno.NetAddr> {
  const types: Record<string, string> = {
    html: "text/html",
    js: "text/javascript",
    css: "text/css",
    svg: "image/svg+xml",
  };
  return Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const path = decodeURIComponent(new URL(request.url).pathname);
    const name = path.endsWith("/") ? `${path}index.html` : path;
    const bytes = await Deno.readFile(`${folder}${name}`).catch(() => undefined);
    if (!bytes || name.includes("..")) return new Response("there is no such file", { status: 404 });
    const headers = { "Content-Type": types[name.split(".").at(-1)!] ?? "application/octet-stream" };
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("Range") ?? "");
    if (!range) return new Response(bytes, { headers });
    const [first, last] = range.slice(1).map(Number) as [number, number];
    const part = bytes.subarray(first, last + 1);
    return new Response(part, {
      status: 206,
      headers: { ...headers, "Content-Range": `bytes ${first}-${first + part.length - 1}/${bytes.length}` },
    });
  });
}

/** Tells the page's runs to whom it opens: what they are asked, and what they say. */
const LISTEN = `
  const { Worker: Plain } = globalThis;
  globalThis.Worker = class extends Plain {
    constructor(...all) {
      super(...all);
      this.addEventListener("message", ({ data }) => data.type === "event" && toldByTab("event", JSON.stringify(data.event)));
    }
    postMessage(message) {
      const { request } = message;
      if (request.type === "start") toldByTab("order", JSON.stringify(request.order));
      super.postMessage(message);
    }
  };`;

/** A page with what its runs said, the newest last. */
interface Tab {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly events: readonly RunEventBody[];
}

/** Opens the site in a browser whose storage lies in a folder. */
async function openTab(
  url: string,
  profile: string,
  { executablePath, args }: { readonly executablePath: string; readonly args: readonly string[] },
  said: (event: RunEventBody) => void,
  ordered: (order: TabOrder) => void,
): Promise<Tab> {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    args: ["--no-sandbox", ...args],
    acceptDownloads: true,
  });
  const events: RunEventBody[] = [];
  await context.exposeFunction("toldByTab", (what: "event" | "order", text: string) => {
    const told = JSON.parse(text);
    if (what === "order") return ordered(told);
    events.push(told);
    said(told);
  });
  await context.addInitScript(LISTEN);
  const page = context.pages()[0] ?? await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => console.log(`the page: ${error.message}`));
  page.on("crash", () => console.log("the page crashed"));
  page.on("console", (message) => message.type() === "error" && console.log(`the page: ${message.text()}`));
  await page.goto(url);
  return { page, context, events };
}

/** Waits until something was said. @throws where the page says that the run failed */
async function ended(
  page: Page,
  events: readonly RunEventBody[],
  until: (event: RunEventBody) => boolean,
): Promise<void> {
  const trouble = page.locator(".notice.bad:not([hidden])").first();
  for (let seen = 0;; await new Promise((resolve) => setTimeout(resolve, 200))) {
    for (; seen < events.length; seen++) if (until(events[seen]!)) return;
    if (await trouble.count() > 0) throw new Error(`the page says: ${await trouble.innerText()}`);
  }
}

/** One line of what a run says; undefined for what is not told. */
function line(event: RunEventBody): string | undefined {
  switch (event.type) {
    case "stage":
      return event.message;
    case "plan":
      return `${event.adapterName}, ${(event.totalBytes / 1e6).toFixed(0)} MB, ${event.steps} steps`;
    case "metrics":
      return `step ${event.step}: ${event.loss?.toFixed(4)}, ${event.secondsPerStep.toFixed(1)} s a step`;
    case "evaluation":
      return `${event.model} at ${event.step}: held out ${event.loss?.toFixed(6)}`;
    case "sample":
      return `${event.model} at ${event.step} writes: ${event.text.replaceAll("\n", " ").slice(0, 100)}`;
    case "checkpoint":
      return `checkpoint at ${event.step}`;
    case "warning":
      return `warning: ${event.message}`;
    case "result":
      return `done: ${JSON.stringify(event.result.heldOut)}`;
  }
}

/** The same run in Deno, where it has not been made yet. */
async function trainInDeno(folder: string, { recipe, sets = [] }: TabOrder): Promise<void> {
  if (await exists(`${folder}/deno/result.json`)) return;
  const names: Record<string, string> = {
    "stories-train": "train.jsonl",
    "stories-heldout": "heldout.jsonl",
  };
  const withPaths = mapRecipePaths(recipe, ({ path }) => `${STORIES}${names[path] ?? path}`);
  await Deno.writeTextFile(`${folder}/recipe.json`, JSON.stringify(withPaths, null, 1));
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", `${ROOT}src/cli/main.ts`, "distill", `${folder}/recipe.json`, "--no-setup"],
      ...["--output", `${folder}/deno`, "--data", `${folder}/data`],
      ...sets.flatMap((set) => ["--set", set]),
    ],
  }).spawn().status;
  if (code !== 0) throw new Error(`the run in Deno ended with ${code}`);
}

/** Tells what two runs of the same recipe differ in. */
async function compare(folder: string, inTab: readonly RunEventBody[]): Promise<void> {
  const inDeno = await eventsIn(`${folder}/deno/events.jsonl`);
  const losses = (events: readonly RunEventBody[]) =>
    new Map(events.flatMap((event) => event.type === "metrics" ? [[event.step, event.loss ?? NaN]] : []));
  const deno = losses(inDeno);
  const apart = [...losses(inTab)].map(([step, loss]) => Math.abs(loss - (deno.get(step) ?? NaN)));
  const most = (of: readonly number[]) => Math.max(...of).toExponential(1);
  console.log(
    `losses of ${apart.length} steps: at most ${most(apart)} apart, the first ten ${
      most(apart.slice(0, 10))
    }`,
  );
  for (const [where, events] of [["tab", inTab], ["Deno", inDeno]] as const) {
    const results = events.flatMap((event) => event.type === "result" ? [event.result] : []);
    console.log(`held out, ${where}: ${JSON.stringify(results.at(-1)?.heldOut)}`);
  }
  const [tab, other] = await Promise.all(
    ["tab", "deno"].map(async (of) =>
      await SafetensorsFile.open(await openFile(`${folder}/${of}/adapter/adapter_model.safetensors`))
    ),
  );
  let [difference, size, tensors] = [0, 0, 0];
  for (const name of other!.tensors.keys()) {
    const [a, b] = [(await tab!.readArray(name)).data, (await other!.readArray(name)).data];
    for (const [i, value] of b.entries()) {
      difference += (Number(a[i]) - Number(value)) ** 2;
      size += Number(value) ** 2;
    }
    tensors++;
  }
  const part = Math.sqrt(difference / size);
  console.log(`the adapters of ${tensors} tensors are ${part.toExponential(1)} of their size apart`);
}

async function eventsIn(path: string): Promise<RunEventBody[]> {
  const text = await Deno.readTextFile(path).catch(() => "");
  return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

/** Trains in the tab to the end, and leaves the download in `tab/`. */
async function trainInTab(
  folder: string,
  options: {
    sets: readonly string[];
    reloadAfter: number;
    port: number;
    executablePath: string;
    args: readonly string[];
  },
): Promise<void> {
  await buildSite(`${folder}/site`);
  await using server = serveFolder(`${folder}/site`, options.port);
  const begun = performance.now();
  const log = (event: RunEventBody) => {
    if (event.type === "heartbeat") return;
    Deno.writeTextFileSync(`${folder}/events.jsonl`, `${JSON.stringify(event)}\n`, { append: true });
    const text = line(event);
    if (text) console.log(`${((performance.now() - begun) / 1000).toFixed(1).padStart(8)} s  ${text}`);
  };
  const url = `http://127.0.0.1:${server.addr.port}/`;
  const { page, context, events } = await openTab(url, `${folder}/profile`, options, log, (order) => {
    Deno.writeTextFileSync(`${folder}/order.json`, JSON.stringify(order));
  });
  try {
    const resume = page.getByRole("button", { name: "Resume" });
    const start = page.getByRole("button", { name: "Start" });
    await start.waitFor();
    console.log(await page.locator("#service").innerText());
    if (await resume.count() > 0) {
      await resume.click();
    } else {
      await page.getByText("More").click();
      const sets = page.locator("#field-sets");
      await sets.fill([await sets.inputValue(), ...options.sets].join("\n"));
      await start.click();
    }
    if (options.reloadAfter > 0) {
      await ended(page, events, (event) => event.type === "checkpoint" && event.step === options.reloadAfter);
      console.log("the page is loaded again");
      page.on("dialog", (dialog) => dialog.accept());
      await page.reload();
      await resume.click();
    }
    await ended(page, events, ({ type }) => type === "result");
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download all" }).click();
    await (await download).saveAs(`${folder}/tab.zip`);
    for (const [name, bytes] of Object.entries(unzipSync(await Deno.readFile(`${folder}/tab.zip`)))) {
      await Deno.mkdir(dirname(`${folder}/tab/${name}`), { recursive: true });
      await Deno.writeFile(`${folder}/tab/${name}`, bytes);
    }
  } finally {
    await context.close();
  }
}

if (import.meta.main) {
  const options = parseArgs(Deno.args, {
    string: ["folder", "reload-after", "chromium", "port"],
    boolean: ["no-deno"],
    collect: ["set", "browser"],
  });
  const list = (name: string) => options[name] as string[] ?? [];
  const given = options.folder as string | undefined;
  const folder = resolve(given ?? await Deno.makeTempDir({ prefix: "limbeck-tab-" }));
  await Deno.mkdir(folder, { recursive: true });
  console.log(folder);
  if (!await exists(`${folder}/tab/adapter`)) {
    await trainInTab(folder, {
      sets: list("set"),
      reloadAfter: Number(options["reload-after"] ?? 0),
      executablePath: (options.chromium ?? "/usr/bin/chromium") as string,
      port: Number(options.port ?? 8799),
      args: list("browser").length > 0 ? list("browser") : SWIFTSHADER,
    });
  }
  if (!options["no-deno"]) {
    await trainInDeno(folder, JSON.parse(await Deno.readTextFile(`${folder}/order.json`)));
    await compare(folder, await eventsIn(`${folder}/events.jsonl`));
  }
  // The browser's pipes would keep this process.
  Deno.exit(0);
}
