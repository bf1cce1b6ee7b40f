/**
 * Distils a chat model on conversations of several turns, through its chat template, learning the assistant's turns alone; with tools, their
 * results and thinking.
 *
 *   deno run -A bench/chat.ts --model ../shared/models/minimind2-small
 *   deno run -A bench/chat.ts --model PATH --steps 40 --layers 0,1,2,3 --data FILE
 *
 * Without --data, conversations are made on the spot: sums, capitals and the weather by a tool. Shown are what is learnt of a sample, the
 * held-out loss of teacher and student before and after, and seconds a step.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { parseRecipe } from "../src/distill/recipe/parse.ts";
import { distillRun } from "../src/distill/run/distill.ts";
import { preview } from "../src/distill/run/inspect_recipe.ts";
import { openRecipe } from "../src/distill/run/open_recipe.ts";
import { Registry } from "../src/registry/registry.ts";
import { renderPreview } from "../src/text/preview.ts";
import { builtins } from "../plugins/mod.ts";

const CAPITALS = {
  Italy: "Rome",
  France: "Paris",
  Spain: "Madrid",
  Japan: "Tokyo",
  Peru: "Lima",
  Egypt: "Cairo",
};
const TOOLS = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];

/** Conversations of two to three answers, each of another kind. */
function conversations(count: number): string {
  const countries = Object.entries(CAPITALS);
  return Array.from({ length: count }, (_, i) => {
    const [a, b] = [i % 7 + 2, i % 11 + 3];
    const [country, capital] = countries[i % countries.length]!;
    const turns: Record<string, unknown>[] = [
      { role: "user", content: `What is ${a} + ${b}?` },
      { role: "assistant", content: `<think>\n${a} and ${b} make ${a + b}.\n</think>\n\n${a + b}` },
      { role: "user", content: `And the capital of ${country}?` },
      { role: "assistant", content: `The capital of ${country} is ${capital}.` },
    ];
    if (i % 3 !== 0) return JSON.stringify({ messages: turns });
    const call = { type: "function", function: { name: "weather", arguments: { city: capital } } };
    turns.push(
      { role: "user", content: "How is the weather there?" },
      { role: "assistant", content: "", tool_calls: [call] },
      { role: "tool", content: JSON.stringify({ degrees: 10 + i % 20 }) },
      { role: "assistant", content: `It is ${10 + i % 20} degrees in ${capital}.` },
    );
    return JSON.stringify({ messages: turns, tools: TOOLS });
  }).join("\n") + "\n";
}

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, { string: ["model", "steps", "layers", "data"] });
  if (typeof args.model !== "string") throw new Error("name a chat model: --model PATH");
  const folder = await Deno.makeTempDir({ prefix: "chat-" });
  try {
    const train = typeof args.data === "string" ? args.data : `${folder}/chat.jsonl`;
    if (args.data === undefined) await Deno.writeTextFile(train, conversations(240));
    const recipe = parseRecipe({
      teacher: { model: args.model },
      student: { model: "teacher", layers: String(args.layers ?? "0,1,2,5,6,7").split(",").map(Number) },
      data: { train, contextLength: 448, tooLong: "drop", deduplicate: true },
      objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
      adapter: { rank: 16 },
      train: { steps: Number(args.steps ?? 20), tokensPerMicroBatch: 448, learningRate: 2e-3, warmup: 2 },
      samples: { tokens: 0 },
    });
    const registry = new Registry().addAll(builtins);
    await openRecipe(recipe, registry, (opened) => {
      console.log(renderPreview(preview(opened, false, 1)));
    });
    let seconds = 0;
    const result = await distillRun(recipe, {
      ...{ folder: `${folder}/run`, resume: false, resumeLimit: -1, registry },
      control: () => "run",
      emit(event) {
        if (event.type === "metrics") seconds = event.secondsPerStep ?? seconds;
        if (event.type === "warning") console.log(`warning: ${event.message}`);
      },
    });
    const { teacher, before, after, tokens } = result.heldOut;
    const nats = (loss: number | null) => loss?.toFixed(4) ?? "-";
    console.log(
      `held-out loss over ${tokens} tokens of the assistant: teacher ${nats(teacher)}, student before ${
        nats(before)
      }, ` +
        `after ${result.steps} steps ${nats(after)}; ${seconds.toFixed(2)} s a step`,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) await main();
