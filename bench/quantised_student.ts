/**
 * LoRA over a base in 4 bits beside LoRA over the same base as it is:
 * `deno run -A bench/quantised_student.ts MODEL DATA.jsonl [--layers 0,1,3,4,6,7] [--steps 60] [--tokens 256] [--types as-it-is,nf4]`.
 *
 * A model teaches a cut of itself, once for each type that the base is kept in: held-out losses before and after, the bytes of the
 * student's weights and of all on the GPU. Seconds are those of the machine as it was.
 *
 * @module
 */
// @ts-types="../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { distill } from "../mod.ts";
import type { QuantizeDtype } from "../src/formats/quantised/quantiser.ts";

const flags = parseArgs(Deno.args, { string: ["layers", "steps", "tokens", "types", "rank"] });
const [model, train] = flags._.map(String);
if (model === undefined || train === undefined) throw new Error("name a model folder and a JSON Lines file");
const layers = String(flags.layers ?? "0,1,3,4,6,7").split(",").map(Number);
const types = String(flags.types ?? "as-it-is,nf4,nf4-double,q8_0").split(",");
const [steps, tokens, rank] = [flags.steps ?? "60", flags.tokens ?? "256", flags.rank ?? "16"].map(
  Number,
) as [
  number,
  number,
  number,
];
const dataFolder = await Deno.makeTempDir({ prefix: "limbeck-bench-" });
try {
  for (const type of types) {
    let bytes: Record<string, number> = {};
    const { heldOut, peakBytes, seconds } = await distill({
      teacher: { model },
      student: {
        model: "teacher",
        layers,
        ...(type === "as-it-is" ? {} : { quantize: type as QuantizeDtype }),
      },
      data: { train, contextLength: tokens },
      adapter: { rank, alpha: 2 * rank },
      train: {
        steps,
        tokensPerMicroBatch: tokens,
        learningRate: 1e-3,
        warmup: 5,
        evaluateEvery: 0,
      },
      samples: { tokens: 0 },
      output: { merged: false },
    }, {
      dataFolder,
      onEvent(event) {
        if (event.type === "plan") bytes = event.bytes;
      },
    });
    const loss = (value: number | null) => value?.toFixed(4) ?? "-";
    console.log(
      `${type.padEnd(11)} held-out loss: teacher ${loss(heldOut.teacher)}, before ${
        loss(heldOut.before)
      }, after ${loss(heldOut.after)} (${heldOut.tokens} tokens); student's weights ${
        bytes["student weights"] ?? 0
      } bytes beside the teacher's ${bytes["teacher weights"] ?? 0}, in all ${peakBytes.planned}; ${
        seconds.toFixed(0)
      } s`,
    );
  }
} finally {
  await Deno.remove(dataFolder, { recursive: true });
}
