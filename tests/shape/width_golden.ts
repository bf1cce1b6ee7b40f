/** The goldens of cuts through the width (`../shared/goldens/shapes/width`), read. */
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { sharedPath } from "../shared.ts";

/** A cut of the golden file. */
export interface GoldenCut {
  readonly key: string;
  readonly structure: "global" | "uniform";
  readonly ratio: number;
  readonly threshold?: number;
  readonly next_lower?: number;
  readonly kept_groups: number[][];
  readonly kept_channels: number[][];
  readonly nll_compensated: number;
  readonly nll_uncompensated: number;
  readonly kl_compensated: number;
  readonly kl_uncompensated: number;
  readonly nll_with_bias_of_wrong_sign: number;
  readonly parameters: { readonly full: number; readonly cut_without_biases: number };
  readonly "units_that_differ_if (groups, channels)"?: Record<string, [number, number]>;
}

/** All of a model's golden. */
export interface WidthGolden {
  readonly model: string;
  readonly path: string;
  readonly nll_full: number;
  readonly group_cost: number;
  readonly channel_cost: number;
  readonly calibration_tokens: number;
  readonly cuts: readonly GoldenCut[];
  readonly calibration: EncodedSample[];
  readonly evaluation: Int32Array[];
  /** A tensor of `statistics_`, `bias_` or `logits_MODEL`. */
  tensor(file: "statistics" | "bias" | "logits", name: string): Promise<Float64Array>;
}

/** Where a file of the goldens lies. */
export function widthPath(name: string): string {
  return sharedPath(`goldens/shapes/width/${name}`);
}

/** The golden of a model. */
export async function readWidthGolden(model: string): Promise<WidthGolden> {
  const json = JSON.parse(await Deno.readTextFile(widthPath(`width_${model}.json`)));
  const rows = async (name: string): Promise<Int32Array[]> => {
    const file = await SafetensorsFile.open(await openFile(widthPath(`data_${model}.safetensors`)));
    const { data } = await file.readArray(name);
    const [count, length] = file.entry(name).shape as [number, number];
    file.close();
    return Array.from(
      { length: count },
      (_, i) => (data as Int32Array).subarray(i * length, (i + 1) * length),
    );
  };
  return {
    ...json,
    path: sharedPath(json.model),
    calibration: (await rows("calibration_ids")).map(sampleOf),
    evaluation: await rows("eval_ids"),
    async tensor(kind, name) {
      const file = await SafetensorsFile.open(await openFile(widthPath(`${kind}_${model}.safetensors`)));
      const { data } = await file.readArray(name);
      file.close();
      return Float64Array.from(data as Float64Array);
    },
  };
}

/** A sample that is learnt whole. */
export function sampleOf(ids: Int32Array): EncodedSample {
  return { ids, supervised: new Uint8Array(ids.length).fill(1), source: { file: "golden", line: 1 } };
}

/** Natural logarithms of the probabilities of one row of logits, f64. */
export function logProbabilities(logits: Float32Array): Float64Array {
  // Plain loops: functions called for each of millions of entries were most of these tests' time.
  const found = new Float64Array(logits.length);
  let [highest, sum] = [-Infinity, 0];
  for (let v = 0; v < logits.length; v++) if (logits[v]! > highest) highest = logits[v]!;
  for (let v = 0; v < logits.length; v++) sum += Math.exp(logits[v]! - highest);
  const total = highest + Math.log(sum);
  for (let v = 0; v < logits.length; v++) found[v] = logits[v]! - total;
  return found;
}
