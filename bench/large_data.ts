/**
 * What a dataset of many gigabytes takes: seconds until its recipe is checked and shown, until training can begin, and for a batch; and the
 * memory of the process, beside that for a small file of the same rows.
 *
 *   deno run -A bench/large_data.ts                      a file of 2 GB, made on the spot
 *   deno run -A bench/large_data.ts --megabytes 200      a smaller one
 *   deno run -A bench/large_data.ts --rows 1000000       as many rows, for `validate` and `preview`
 *   deno run -A bench/large_data.ts --train 3            trains as many steps on it, too
 *
 * Every figure is of a process of its own. Files come from the system's cache as far as it holds them.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { bytes, count } from "../src/base/units.ts";
import { table } from "../src/cli/terminal/table.ts";
import { prepareRun } from "../src/distill/inputs/prepare.ts";
import { trainingBatches } from "../src/distill/inputs/training_batches.ts";
import { parseRecipe } from "../src/distill/recipe/parse.ts";
import { measure } from "./measured_process.ts";

const MODEL = new URL("../examples/stories/stories15M-q8_0.gguf", import.meta.url).pathname;
const MAIN = new URL("../src/cli/main.ts", import.meta.url).pathname;
const WORDS =
  ("the of and a in is it you that he was for on are with as his they be at one have this from or had by hot but some " +
    "what there we can out other were all your when up use word how said an each she").split(" ");
/** Batches that are drawn. */
const BATCHES = 500;

/** Writes rows of prompts and completions of about 150 bytes each, until there are enough of them or of bytes. */
async function writeRows(path: string, most: { bytes: number; rows: number }): Promise<{ rows: number }> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const encoder = new TextEncoder();
  let state = 12345;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
  const text = (words: number) => Array.from({ length: words }, () => WORDS[random(WORDS.length)]).join(" ");
  let [written, rows, lines] = [0, 0, ""];
  while (written < most.bytes && rows < most.rows) {
    lines += JSON.stringify({ prompt: `${rows} ${text(10)}`, completion: text(20) }) + "\n";
    rows++;
    if (lines.length < 1 << 20 && rows < most.rows) continue;
    const piece = encoder.encode(lines);
    for (let done = 0; done < piece.length;) done += await file.write(piece.subarray(done));
    written += piece.length;
    lines = "";
  }
  return { rows };
}

/** @param heldOut Few rows, since measuring a model on them is not what is measured here */
function recipeOf(train: string, heldOut: string, steps: number) {
  return {
    teacher: { model: MODEL },
    student: { model: "teacher", layers: [0] },
    data: { train, heldOut, contextLength: 128, streaming: true },
    adapter: { rank: 4 },
    train: { steps, tokensPerMicroBatch: 128, evaluateEvery: 0, checkpointEvery: 0 },
    samples: { tokens: 0 },
  };
}

/** What one process finds: seconds until the rows are known, and for each batch. */
async function drawBatches(file: string, heldOut: string): Promise<void> {
  const begin = performance.now();
  const prepared = await prepareRun(parseRecipe(recipeOf(file, heldOut, 1)));
  const ready = performance.now();
  const batches = trainingBatches(prepared, 1024);
  batches.next();
  const first = performance.now();
  for (let i = 1; i < BATCHES; i++) batches.next();
  const done = performance.now();
  prepared.close();
  console.log(JSON.stringify({
    ready: (ready - begin) / 1000,
    first: (first - ready) / 1000,
    batch: (done - first) / 1000 / (BATCHES - 1),
  }));
}

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, { string: ["megabytes", "rows", "folder", "draw", "heldOut", "train"] });
  if (typeof args.draw === "string") return await drawBatches(args.draw, String(args.heldOut));
  const folder = await Deno.makeTempDir({
    ...(typeof args.folder === "string" ? { dir: args.folder } : {}),
    prefix: "large-data-",
  });
  try {
    const lines: string[][] = [];
    const heldOut = `${folder}/heldout.jsonl`;
    await writeRows(heldOut, { bytes: Infinity, rows: 8 });
    const sizes = [
      { name: "small", bytes: 2e6, rows: Infinity },
      { name: "large", bytes: Number(args.megabytes ?? 2000) * 1e6, rows: Number(args.rows ?? Infinity) },
    ];
    for (const { name, ...most } of sizes) {
      const path = `${folder}/${name}.jsonl`;
      const { rows } = await writeRows(path, most);
      const file = bytes((await Deno.stat(path)).size);
      const recipe = `${folder}/${name}.json`;
      await Deno.writeTextFile(recipe, JSON.stringify(recipeOf(path, heldOut, Number(args.train ?? 1))));
      const say = (what: string, seconds: string, peak: number) => {
        lines.push([file, count(rows), what, seconds, bytes(peak)]);
      };
      for (const verb of ["validate", "preview"]) {
        const { seconds, peak } = await measure(Deno.execPath(), ["run", "-A", MAIN, verb, recipe], folder);
        say(`limbeck ${verb}`, seconds.toFixed(2), peak);
      }
      const self = new URL(import.meta.url).pathname;
      const drawn = await measure(
        Deno.execPath(),
        ["run", "-A", self, "--draw", path, "--heldOut", heldOut],
        folder,
      );
      const { ready, first, batch } = JSON.parse(drawn.output.trim().split("\n").at(-1)!);
      say("until rows are known", ready.toFixed(2), drawn.peak);
      say("first batch of 1024 tokens", first.toFixed(2), drawn.peak);
      say(`each of ${BATCHES - 1} further`, batch.toFixed(4), drawn.peak);
      if (!args.train) continue;
      const output = `${folder}/${name}-run`;
      const run = ["run", "-A", MAIN, "distill", recipe, "--output", output, "--data", `${folder}/store`];
      const { seconds, peak } = await measure(Deno.execPath(), run, folder);
      say(`limbeck distill, ${args.train} steps`, seconds.toFixed(1), peak);
    }
    for (const line of table(["file", "rows", "what", "seconds", "peak memory"], lines)) console.log(line);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) await main();
