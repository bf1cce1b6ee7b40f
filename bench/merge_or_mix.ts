/**
 * Mix the data or merge the models? Two kinds of text, a student trained on each alone, one trained on both, and merges of the first two,
 * all measured on held-out texts of both kinds: the table in docs/methods.md.
 *
 *   deno run -A bench/merge_or_mix.ts                          everything below limbeck-data/merge-or-mix
 *   deno run -A bench/merge_or_mix.ts FOLDER --seeds 5 --steps 120
 *
 * Nothing but commands that anyone can give; each is printed. What is done is not done again, so it may be stopped and started.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
// @ts-types="../types/std_path.d.ts"
import { join } from "@std/path";
import { shellQuoted } from "../src/base/quoting.ts";
import { count } from "../src/base/units.ts";
import { table } from "../src/cli/terminal/table.ts";
import { verdictTable } from "../src/cli/verbs/comparison_table.ts";
import { exists } from "../src/formats/files.ts";
import { readSequences } from "../src/runs/compare/sequences.ts";
import { verdicts } from "../src/runs/compare/verdicts.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const STORIES = join(ROOT, "examples/stories");
const SETS = ["stories", "sums"];
/** As they are without a word about options. */
const METHODS = ["linear", "task-arithmetic", "ties", "dare-ties", "tsv-m"];
const TOKENS = 128;

/** The weight of each kind of text, and the steps as a multiple of those of one kind alone. The first is what others are compared with. */
const RECIPES: Readonly<
  Record<string, { weights: readonly [stories: number, sums: number]; steps: number }>
> = {
  "mixture": { weights: [1, 1], steps: 2 },
  "mixture-half": { weights: [1, 1], steps: 1 },
  "stories-alone": { weights: [1, 0], steps: 1 },
  "sums-alone": { weights: [0, 1], steps: 1 },
};
/** The parents of every merge. */
const PARENTS = ["stories-alone", "sums-alone"];

function recipeOf(name: string, stepsAlone: number): Record<string, unknown> {
  const { weights, steps } = RECIPES[name]!;
  return {
    teacher: { model: join(STORIES, "stories15M-q8_0.gguf") },
    // f32, so that merges see what was trained and not how it was rounded.
    student: { model: "teacher", layers: [0, 1, 3, 5], dtype: "f32" },
    data: {
      train: [
        { path: join(STORIES, "train.jsonl"), name: "stories", weight: weights[0] },
        { path: join(STORIES, "sums.jsonl"), name: "sums", weight: weights[1] },
      ],
      mix: "tokens",
      heldOut: [
        { path: join(STORIES, "heldout.jsonl"), name: "stories" },
        { path: join(STORIES, "sums-heldout.jsonl"), name: "sums" },
      ],
      contextLength: TOKENS,
      endToken: "bos",
    },
    // The teacher knows nothing of sums: half a divergence from it would be half a measure of the teacher.
    objective: [{ loss: "cross-entropy" }],
    adapter: { type: "lora", rank: 16, alpha: 32, targets: "all-linear" },
    train: {
      steps: steps * stepsAlone,
      tokensPerMicroBatch: TOKENS,
      learningRate: 1.5e-3,
      schedule: "linear",
      warmup: Math.round(steps * stepsAlone / 10),
      evaluateEvery: 0,
      checkpointEvery: 0,
    },
  };
}

/** Gives a command of the command line, and prints it. @throws where it fails */
async function limbeck(...args: string[]): Promise<void> {
  console.log(`\n$ limbeck ${args.map(shellQuoted).join(" ")}`);
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", join(ROOT, "src/cli/main.ts"), ...args],
    stdout: "inherit",
    stderr: "inherit",
  }).spawn().status;
  if (code !== 0) throw new Error(`limbeck ${args[0]} ended with ${code}`);
}

/** The comparison's folder; undefined where there is none yet. */
async function comparisonIn(data: string): Promise<string | undefined> {
  if (!await exists(join(data, "runs"))) return undefined;
  for await (const { name } of Deno.readDir(join(data, "runs"))) {
    if (name.startsWith("compare-")) return join(data, "runs", name);
  }
  return undefined;
}

/** The mixture against each of the others, by itself. */
async function againstMixture(folder: string, seeds: readonly number[]): Promise<string[]> {
  const [mixture, ...others] = await Promise.all(
    [...Object.keys(RECIPES), ...METHODS].map(async (name) => ({
      name,
      measured: await Promise.all(
        seeds.map(async (seed) => ({ seed, sets: (await readSequences(folder, `${name}-seed${seed}`))! })),
      ),
    })),
  );
  const found = others.map((other) => verdicts([mixture!, other]));
  const [head, ...rows] = verdictTable(SETS.flatMap((_, set) => found.map((ofSets) => ofSets[set]!)));
  return table(head!, rows);
}

/** What the runs read of each kind of text. */
function drawnTable(folder: string, seeds: readonly number[]): string[] {
  const rows = Object.keys(RECIPES).map((name) => {
    const drawn = seeds.map((seed) =>
      JSON.parse(Deno.readTextFileSync(join(folder, `${name}-seed${seed}`, "result.json"))).drawn
    );
    const supervised = SETS.map((set) => {
      const of = drawn.map((sets) =>
        sets.find(({ name }: { name: string }) => name === set)?.supervisedTokens ?? 0
      );
      return of.reduce((a, b) => a + b, 0) / seeds.length;
    });
    return [name, ...supervised.map(count), count(supervised.reduce((a, b) => a + b, 0))];
  });
  return table(["supervised tokens read, mean over seeds", ...SETS, "in all"], rows);
}

if (import.meta.main) {
  const { seeds = "3", steps = "60", _: [given] } = parseArgs(Deno.args, { string: ["seeds", "steps"] }) as {
    readonly seeds?: string;
    readonly steps?: string;
    readonly _: readonly (string | number)[];
  };
  const root = join(Deno.cwd(), String(given ?? "limbeck-data/merge-or-mix"));
  await Deno.mkdir(root, { recursive: true });
  const files: string[] = [];
  for (const name of Object.keys(RECIPES)) {
    files.push(join(root, `${name}.json`));
    await Deno.writeTextFile(files.at(-1)!, JSON.stringify(recipeOf(name, Number(steps)), null, 2) + "\n");
  }
  const data = join(root, "data");
  const begun = await comparisonIn(data);
  if (begun) await limbeck("compare", "--resume", begun, "--data", data);
  else await limbeck("compare", ...files, "--seeds", seeds, "--merged", "--data", data);
  const folder = (await comparisonIn(data))!;
  const { seeds: list, models: measured = [] } = JSON.parse(
    await Deno.readTextFile(join(folder, "compare.json")),
  ) as { seeds: number[]; models?: { name: string }[] };
  for (const method of METHODS) {
    for (const seed of list) {
      const output = join(root, "merges", `${method}-seed${seed}`);
      if (await exists(output)) continue;
      const parents = PARENTS.map((name) => join(folder, `${name}-seed${seed}`, "merged"));
      const base = join(folder, `${PARENTS[0]}-seed${seed}`, "base");
      const bases = method === "linear" ? [] : ["--base", base];
      await limbeck("merge", "--method", method, ...parents, ...bases, "--output", output);
    }
  }
  const models = METHODS.filter((method) => !measured.some(({ name }) => name === method))
    .flatMap((m) => ["--model", `${m}=${join(root, "merges", `${m}-seed{seed}`)}`]);
  if (models.length > 0) await limbeck("compare", "--resume", folder, "--data", data, ...models);
  console.log("\neach against the mixture");
  for (const line of await againstMixture(folder, list)) console.log(line);
  console.log();
  for (const line of drawnTable(folder, list)) console.log(line);
}
