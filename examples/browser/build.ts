/**
 * Writes the page that distils in a browser's tab as files that any server can give out, with the example to distil:
 *
 *     deno run -A examples/browser/build.ts site
 *
 * The service shows the same page at /tab, with the models that it has.
 *
 * @module
 */
// @ts-types="../../types/std_path.d.ts"
import { dirname, join } from "@std/path";
import { FILES, TAB_PAGE } from "../../src/server/routes/page.ts";
import { bundleWorker } from "../../src/tab/bundle.ts";

const STORIES = new URL("../stories/", import.meta.url);
const MODEL = "stories15M-q8_0.gguf";
const DATASETS = { "stories-train": "train.jsonl", "stories-heldout": "heldout.jsonl" };

/** Writes the site into a folder, which is made where it is not there. */
export async function buildSite(folder: string): Promise<void> {
  const write = async (name: string, text: string) => {
    const path = join(folder, name);
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.writeTextFile(path, text);
  };
  await write("index.html", TAB_PAGE);
  for (const [name, [, text]] of Object.entries(FILES)) await write(`page/${name}`, text);
  await write("tab/worker.js", await bundleWorker(folder));
  // Addresses are relative to the worker.
  const files = (name: string) => ({ [name]: `example/${name}` });
  const datasets = Object.entries(DATASETS).map(([id, name]) => ({ id, files: files(name) }));
  await write(
    "tab/catalogue.json",
    JSON.stringify({ models: [{ id: MODEL, files: files(MODEL) }], datasets }, null, 1) + "\n",
  );
  await Deno.mkdir(join(folder, "tab/example"), { recursive: true });
  for (const name of [MODEL, ...Object.values(DATASETS)]) {
    await Deno.copyFile(new URL(name, STORIES), join(folder, "tab/example", name));
  }
}

if (import.meta.main) {
  const [folder = "site"] = Deno.args;
  await buildSite(folder);
  console.log(`${folder}/index.html and what it needs; serve the folder over https, or on localhost.`);
}
