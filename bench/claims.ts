/**
 * Two claims of papers on the models of this repository, over paired seeds: that BD-KD's weights make a student better calibrated, with a
 * teacher that learns along and with one that stands still (arXiv 2212.12965), and that RLKD's ranking loss makes its likely tokens more
 * like the teacher's (arXiv 2409.12545). The tables in docs/methods.md.
 *
 *   deno run -A bench/claims.ts                              everything below limbeck-data/claims
 *   deno run -A bench/claims.ts FOLDER --seeds 3 --steps 60 --claim rlkd
 *
 * Nothing but commands that anyone can give; each is printed. What is done is not done again, so it may be stopped and started.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
// @ts-types="../types/std_path.d.ts"
import { join, resolve } from "@std/path";
import { shellQuoted } from "../src/base/quoting.ts";
import { markdownTable } from "../src/evaluation/results/tables.ts";
import { exists } from "../src/formats/files.ts";
import type { ComparisonSummary } from "../src/runs/compare/comparison_summary.ts";
import { meanInterval } from "../src/runs/compare/intervals.ts";
import type { ComparedRun } from "../src/runs/compare/comparison.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const STORIES = join(ROOT, "examples/stories");
const TOKENS = 128;

type Term = Readonly<Record<string, unknown>>;

/** A recipe of a claim: what is minimised, and whether the teacher learns along. */
interface ClaimRecipe {
  readonly objective: readonly Term[];
  readonly online?: boolean;
}

/** A claim: recipes, what is looked at, and the pairs that it is about. */
interface Claim {
  readonly recipes: Readonly<Record<string, ClaimRecipe>>;
  /** Measurements by key, with their titles. */
  readonly figures: Readonly<Record<string, string>>;
  /** With what is claimed to help, and without. */
  readonly pairs: readonly (readonly [withIt: string, without: string])[];
}

const ce = { loss: "cross-entropy" };
/** Both divergences, the teacher's side weighted by `delta` where it is the surer one; 1 leaves them alike everywhere. */
const gaps = (delta: number) => [ce, { loss: "entropy-gap-kl", options: { delta } }];
/** What the teacher learns by, in bd-kd-online.yaml. */
const along = [{ ...ce, learner: "teacher" }, { loss: "forward-kl", learner: "teacher", weight: 1 }];
const ranking = { loss: "rank-correlation", weight: 1, options: { k: 5, epsilon: 1, union: "duplicated" } };

const CLAIMS: Readonly<Record<string, Claim>> = {
  "bd-kd": {
    recipes: {
      "online-weighted": { objective: [...gaps(2), ...along], online: true },
      "online-unweighted": { objective: [...gaps(1), ...along], online: true },
      "frozen-weighted": { objective: gaps(2) },
      "frozen-unweighted": { objective: gaps(1) },
    },
    figures: {
      "expected-calibration-error": "calibration error",
      "cross-entropy": "held-out loss",
      "top-1-accuracy": "next token right",
    },
    pairs: [
      ["online-weighted", "online-unweighted"],
      ["frozen-weighted", "frozen-unweighted"],
      ["online-weighted", "fine-tuning"],
      ["frozen-weighted", "fine-tuning"],
    ],
  },
  "rlkd": {
    recipes: {
      rlkd: { objective: [ranking, { loss: "forward-kl", weight: 0.5 }] },
      "forward-kl": { objective: [{ loss: "forward-kl", weight: 0.5 }] },
    },
    figures: {
      "top-5-overlap": "overlap of top 5",
      "top-5-consistency": "same places of top 5",
      "top-1-agreement": "same likeliest token",
      "cross-entropy": "held-out loss",
      "forward-kl": "forward KL",
    },
    pairs: [["rlkd", "forward-kl"], ["rlkd", "fine-tuning"]],
  },
};

function recipeOf({ objective, online = false }: ClaimRecipe, steps: number): Record<string, unknown> {
  return {
    teacher: {
      model: join(STORIES, "stories15M-q8_0.gguf"),
      ...(online ? { train: true, adapter: { rank: 16 } } : {}),
    },
    student: { model: "teacher", layers: [0, 1, 3, 5] },
    data: {
      ...{ train: join(STORIES, "train.jsonl"), heldOut: join(STORIES, "heldout.jsonl") },
      ...{ contextLength: TOKENS, endToken: "bos" },
    },
    objective,
    adapter: { type: "lora", rank: 16, alpha: 32, targets: "all-linear" },
    train: {
      ...{ steps, tokensPerMicroBatch: TOKENS, learningRate: 1.5e-3, schedule: "linear" },
      ...{ warmup: Math.round(steps / 10), evaluateEvery: 0, checkpointEvery: 0 },
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

/** Means over seeds with their standard deviations, and the pairs of the claim with intervals of 95 % over seeds. */
function claimLines(
  { recipes, figures, pairs }: Claim,
  summary: ComparisonSummary,
  runs: readonly ComparedRun[],
): string[] {
  const keys = Object.keys(figures);
  const number = (
    value: number | null | undefined,
  ) => (value === null || value === undefined ? "-" : value.toFixed(4));
  const names = [...Object.keys(recipes), "fine-tuning"];
  const rows = summary.recipes.filter(({ recipe }) => names.includes(recipe)).map(({ recipe, metrics }) => [
    recipe,
    ...keys.map((key) => `${number(metrics[key]?.mean)} ± ${number(metrics[key]?.standardDeviation)}`),
  ]);
  const before = ["student before", ...keys.map((key) => number(summary.before[0]?.metrics[key]))];
  const of = (name: string, key: string) =>
    new Map(
      runs.filter((run) => run.recipe === name && run.after).map((
        run,
      ) => [run.seed, run.after![key] ?? null]),
    );
  const compared = pairs.map(([withIt, without]) => [
    `${withIt} less ${without}`,
    ...keys.map((key) => {
      const others = of(without, key);
      const differences = [...of(withIt, key)].flatMap(([seed, value]) => {
        const other = others.get(seed) ?? null;
        return value === null || other === null ? [] : [value - other];
      });
      const interval = meanInterval(differences);
      const mean = differences.reduce((sum, d) => sum + d, 0) / differences.length;
      const sign = (value: number) => `${value > 0 ? "+" : ""}${value.toFixed(4)}`;
      return interval ? `${sign(mean)} (${sign(interval.low)} to ${sign(interval.high)})` : sign(mean);
    }),
  ]);
  const head = keys.map((key) => figures[key]!);
  return [
    markdownTable([["", ...head], before, ...rows]),
    markdownTable([["over seeds, 95 %", ...head], ...compared]),
  ];
}

if (import.meta.main) {
  const { seeds = "3", steps = "60", claim, _: [given] } = parseArgs(Deno.args, {
    string: ["seeds", "steps", "claim"],
  }) as {
    readonly seeds?: string;
    readonly steps?: string;
    readonly claim?: string;
    readonly _: readonly (string | number)[];
  };
  const root = resolve(String(given ?? "limbeck-data/claims"));
  const told: string[] = [];
  for (const [name, wanted] of Object.entries(CLAIMS)) {
    if (claim !== undefined && claim !== name) continue;
    const folder = join(root, name);
    await Deno.mkdir(folder, { recursive: true });
    const files: string[] = [];
    for (const [recipe, what] of Object.entries(wanted.recipes)) {
      files.push(join(folder, `${recipe}.json`));
      await Deno.writeTextFile(files.at(-1)!, JSON.stringify(recipeOf(what, Number(steps)), null, 2) + "\n");
    }
    const data = join(folder, "data");
    const begun = await comparisonIn(data);
    const tasks = ["agreement", "perplexity"].map((kind) => join(folder, `${kind}.yaml`));
    for (const [i, kind] of ["agreement", "perplexity"].entries()) {
      await Deno.writeTextFile(tasks[i]!, `kind: ${kind}\ndata: ${join(STORIES, "heldout.jsonl")}\n`);
    }
    if (begun) await limbeck("compare", "--resume", begun, "--data", data);
    else {
      await limbeck(
        "compare",
        ...files,
        "--seeds",
        seeds,
        "--data",
        data,
        ...tasks.flatMap((path) => ["--task", path]),
      );
    }
    const { summary, runs } = JSON.parse(
      await Deno.readTextFile(join((await comparisonIn(data))!, "compare.json")),
    );
    told.push("", `## ${name}`, "", ...claimLines(wanted, summary, runs));
  }
  for (const line of told) console.log(line);
}
