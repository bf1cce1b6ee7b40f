/**
 * Does a teacher with another tokenizer help? stories15M (32,000 tokens) teaches stories260K (512 tokens), beside the same student trained on
 * the same texts alone, over several seeds: the table in docs/tokenizers.md.
 *
 *   deno run -A bench/across_tokenizers.ts                     everything below limbeck-data/across-tokenizers
 *   deno run -A bench/across_tokenizers.ts FOLDER --seeds 3 --steps 100 --student whole --rate 1e-3 --arms plain,uld,hybrid
 *
 * The models are those of ../shared. What is done is not done again, so it may be stopped and started.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
// @ts-types="../types/std_path.d.ts"
import { join } from "@std/path";
import { builtins } from "../plugins/mod.ts";
import { table } from "../src/cli/terminal/table.ts";
import { distillRun } from "../src/distill/run/distill.ts";
import type { ObjectiveTermInput } from "../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../src/distill/recipe/parse.ts";
import { exists } from "../src/formats/files.ts";
import { Registry } from "../src/registry/registry.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const MODELS = join(ROOT, "../shared/models");
const STORIES = join(ROOT, "examples/stories");

/** What is minimised. The plain one is what the others are compared with. */
const ARMS: Readonly<Record<string, readonly ObjectiveTermInput[]>> = {
  plain: [{ loss: "cross-entropy" }],
  uld: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "universal-logit-groups", weight: 0.5 }],
  hybrid: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "hybrid-logit-groups", weight: 0.5 }],
};

/** The student: the whole model, or one that lacks a layer and has to find its way again. */
const STUDENTS: Readonly<Record<string, { layers?: number[] }>> = {
  whole: {},
  cut: { layers: [0, 1, 3, 4] },
};

/** What is chosen on the command line. */
interface Settings {
  readonly steps: number;
  readonly student: string;
  readonly rate: number;
}

function recipeOf(arm: string, seed: number, { steps, student, rate }: Settings) {
  return parseRecipe({
    teacher: { model: join(MODELS, "stories15M"), align: { by: "bytes" } },
    student: { model: join(MODELS, "stories260K"), ...STUDENTS[student] },
    data: {
      train: join(STORIES, "train.jsonl"),
      heldOut: join(STORIES, "heldout.jsonl"),
      contextLength: 256,
      endToken: "bos",
    },
    objective: ARMS[arm],
    adapter: { type: "lora", rank: 16, alpha: 32 },
    train: {
      ...{
        steps,
        tokensPerMicroBatch: 512,
        learningRate: rate,
        schedule: "linear",
        warmup: Math.round(steps / 10),
      },
      ...{ evaluateEvery: 0, checkpointEvery: 0, seed },
    },
    samples: { tokens: 0 },
    output: { merged: false },
  });
}

/** What a run came to. */
interface Outcome {
  readonly teacher: number;
  readonly before: number;
  readonly after: number;
  readonly seconds: number;
}

async function runArm(root: string, arm: string, seed: number, settings: Settings): Promise<Outcome> {
  const folder = join(
    root,
    `${settings.student}-${arm}-seed${seed}-steps${settings.steps}-rate${settings.rate}`,
  );
  const file = join(folder, "outcome.json");
  if (await exists(file)) return JSON.parse(await Deno.readTextFile(file));
  await Deno.mkdir(folder, { recursive: true });
  const { bitsPerByte, seconds } = await distillRun(recipeOf(arm, seed, settings), {
    ...{ folder, resume: false, resumeLimit: Infinity, registry: new Registry().addAll(builtins) },
    emit: (event) => {
      if (event.type === "metrics" && event.step % 20 === 0) {
        console.log(`${arm}, seed ${seed}: step ${event.step}`);
      }
    },
    control: () => "run",
  });
  const { teacher, before, after } = bitsPerByte as Outcome;
  await Deno.writeTextFile(file, JSON.stringify({ teacher, before, after, seconds }) + "\n");
  return { teacher, before, after, seconds };
}

if (import.meta.main) {
  const {
    seeds = "3",
    steps = "100",
    student = "cut",
    rate = "3e-3",
    arms = Object.keys(ARMS).join(),
    _: [given],
  } = parseArgs(Deno.args, {
    string: ["seeds", "steps", "student", "rate", "arms"],
  }) as {
    readonly seeds?: string;
    readonly steps?: string;
    readonly student?: string;
    readonly rate?: string;
    readonly arms?: string;
    readonly _: readonly (string | number)[];
  };
  const root = join(Deno.cwd(), String(given ?? "limbeck-data/across-tokenizers"));
  const numbers = Array.from({ length: Number(seeds) }, (_, i) => i + 1);
  const names = arms.split(",");
  const settings = { steps: Number(steps), student, rate: Number(rate) };
  const found = new Map<string, Outcome[]>();
  for (const seed of numbers) {
    for (const arm of names) {
      found.set(arm, [...found.get(arm) ?? [], await runArm(root, arm, seed, settings)]);
    }
  }
  const [{ teacher, before }] = [...found.values()][0] as [Outcome];
  console.log(`\nHeld-out bits a byte: teacher ${teacher.toFixed(4)}, student before ${before.toFixed(4)}`);
  const rows = names.map((arm) => {
    const after = found.get(arm)!.map((o) => o.after);
    const differences = after.map((bits, i) => bits - (found.get("plain")?.[i]?.after ?? NaN));
    const seconds = found.get(arm)!.reduce((sum, o) => sum + o.seconds, 0) / after.length;
    return [
      arm,
      ...after.map((bits) => bits.toFixed(4)),
      meanOf(after).toFixed(4),
      arm === "plain"
        ? ""
        : `${meanOf(differences).toFixed(4)} (${differences.map((d) => d.toFixed(4)).join(", ")})`,
      `${seconds.toFixed(0)} s`,
    ];
  });
  for (
    const line of table([
      "after",
      ...numbers.map((n) => `seed ${n}`),
      "mean",
      "less plain, by seed",
      "a run",
    ], rows)
  ) {
    console.log(line);
  }
}

function meanOf(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a + b, 0) / numbers.length;
}
