/**
 * Training in a browser's tab: the page, its worker, and the files of the models and datasets that it may read by ranges.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename, join } from "@std/path";
import type { Context } from "hono";
import { LimbeckError } from "../../base/errors.ts";
import { bundleWorker } from "../../tab/bundle.ts";
import { parseRange, readRange } from "../artifacts.ts";
import { needs } from "../http/access.ts";
import type { App, AppEnv } from "../http/app_env.ts";
import { HttpError } from "../http/http_error.ts";
import type { Service } from "../service.ts";
import { TAB_PAGE } from "./page.ts";

/** Of a worker this holds, not of the page: it makes a small WebAssembly module, and reads its files from here. */
const WORKER_POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'";

/** What a model's folder has that a run reads. */
const OF_MODEL = /\.(json|safetensors|jinja|model)$|^(vocab|merges)\.txt$/;

/** What the page may choose from. */
interface Offered {
  readonly id: string;
  /** Addresses of its files by name, as the worker fetches them. */
  readonly files: Readonly<Record<string, string>>;
}

/** Adds the routes. */
export function addTabRoutes(app: App, service: Service): void {
  const { catalogue } = service;
  let bundle: Promise<string> | undefined;

  app.get("/tab", (c) => c.html(TAB_PAGE, 200, { "Cache-Control": "no-cache" }));

  app.get("/tab/worker.js", async (c) => {
    // Made when someone first asks for it: most services never train in a tab.
    bundle ??= bundleWorker(service.store.folder);
    let text: string;
    try {
      text = await bundle;
    } catch (error) {
      bundle = undefined;
      if (!(error instanceof LimbeckError)) throw error;
      throw new HttpError(503, [error.message, error.hint].filter(Boolean).join(" "), { code: "no_bundle" });
    }
    return c.body(text, 200, {
      "Content-Type": "text/javascript; charset=utf-8",
      "Cache-Control": "no-cache",
      "Content-Security-Policy": WORKER_POLICY,
    });
  });

  // Whoever may have a model trained can have what it is made of.
  app.use("/tab/catalogue.json", needs("submit"));
  app.use("/tab/models/*", needs("submit"));
  app.use("/tab/datasets/*", needs("submit"));

  app.get("/tab/catalogue.json", async (c) => {
    const models: Offered[] = [];
    for (const { name, path } of await catalogue.models()) {
      const files = await filesOf(path);
      models.push({ id: name, files: addresses("models", name, Object.keys(files)) });
    }
    // What others uploaded is theirs.
    const datasets = (await catalogue.datasets()).filter(({ source }) => source !== "upload")
      .map(({ name, path }) => ({ id: name, files: addresses("datasets", name, [basename(path)]) }));
    return c.json({ models, datasets });
  });

  app.get("/tab/models/:id/:name", async (c) => {
    const { id, name } = c.req.param();
    const model = (await catalogue.models()).find((model) => model.name === id);
    const path = model && (await filesOf(model.path))[name];
    if (path === undefined) throw unknown("model", id, name);
    return await send(c, path);
  });

  app.get("/tab/datasets/:id/:name", async (c) => {
    const { id, name } = c.req.param();
    const found = (await catalogue.datasets()).find((data) => data.name === id && data.source !== "upload");
    if (!found || basename(found.path) !== name) throw unknown("dataset", id, name);
    return await send(c, found.path);
  });
}

function unknown(kind: string, id: string, name: string): HttpError {
  return new HttpError(404, `there is no file "${name}" of a ${kind} "${id}"`, { code: `unknown_${kind}` });
}

/** The files of a model by name. The catalogue has seen to it that no link leads out of its folder. */
async function filesOf(path: string): Promise<Readonly<Record<string, string>>> {
  if (!(await Deno.stat(path)).isDirectory) return { [basename(path)]: path };
  const files: Record<string, string> = {};
  for await (const { name, isDirectory } of Deno.readDir(path)) {
    if (!isDirectory && OF_MODEL.test(name)) files[name] = join(path, name);
  }
  return files;
}

/** Relative to the worker. */
function addresses(kind: string, id: string, names: readonly string[]): Offered["files"] {
  const place = (name: string) => `${kind}/${encodeURIComponent(id)}/${encodeURIComponent(name)}`;
  return Object.fromEntries(names.map((name) => [name, place(name)]));
}

async function send(c: Context<AppEnv>, path: string): Promise<Response> {
  const { size } = await Deno.stat(path);
  const range = parseRange(c.req.header("Range"), size);
  if (range === null) {
    throw new HttpError(416, `the file has ${size} bytes`, {
      code: "range",
      headers: { "Content-Range": `bytes */${size}` },
    });
  }
  const { first, last } = range ?? { first: 0, last: size - 1 };
  return new Response(await readRange(path, first, last), {
    status: range ? 206 : 200,
    headers: {
      "Content-Type": "application/octet-stream",
      "Content-Length": String(last - first + 1),
      "Accept-Ranges": "bytes",
      "Cache-Control": "private, no-cache",
      ...(range ? { "Content-Range": `bytes ${first}-${last}/${size}` } : {}),
    },
  });
}
