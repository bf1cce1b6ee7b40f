// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { writeModelFolder } from "../../src/distill/export/exports.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import type { WidthCut } from "../../src/distill/inputs/width_cut.ts";
import { openFile } from "../../src/formats/files.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import {
  keepBestOfAll,
  keepBestOfEach,
  type KeptUnits,
  type LayerStatistics,
  unitCosts,
  type UnitScores,
} from "../../src/shape/width/flap.ts";
import { measureInputs } from "../../src/shape/width/input_statistics.ts";
import { compensate, scoreUnits } from "../../src/shape/width/output_projections.ts";
import { Reader } from "../distill/logits.ts";
import { hasShared } from "../shared.ts";
import { assertWithin, modelTest } from "../tensor/harness.ts";
import {
  type GoldenCut,
  logProbabilities,
  readWidthGolden,
  type WidthGolden,
  widthPath,
} from "./width_golden.ts";

interface Measured {
  readonly golden: WidthGolden;
  readonly statistics: LayerStatistics[];
  readonly scores: UnitScores;
}

const measured = new Map<string, Promise<Measured>>();

/** Statistics of a model's calibration text, measured once for all tests. */
function measure(gpu: Gpu, name: string): Promise<Measured> {
  const measuring = async () => {
    const golden = await readWidthGolden(name);
    const model = await Model.open(golden.path, { category: "weights" });
    try {
      const statistics = await measureInputs(gpu, model, golden.calibration);
      return { golden, statistics, scores: await scoreUnits(model, statistics) };
    } finally {
      model.close();
    }
  };
  return measured.get(name) ?? (measured.set(name, measuring()), measured.get(name)!);
}

function relative(actual: Float64Array, expected: Float64Array): number {
  return expected.reduce(
    (worst, e, i) => Math.max(worst, Math.abs(actual[i]! - e) / Math.max(1e-12, Math.abs(e))),
    0,
  );
}

for (const name of ["stories260K", "stories15M"]) {
  const goldenTest = (what: string, fn: (gpu: Gpu) => Promise<void>) => {
    if (hasShared) modelTest(`${what} of ${name}`, fn);
    else console.log(`skip: ${what} of ${name}: the reference folder ../shared is not beside this checkout`);
  };

  goldenTest("measureInputs() gives the reference means and variances", async (gpu) => {
    const { golden, statistics, scores } = await measure(gpu, name);
    for (const [layer, { attention, mlp }] of statistics.entries()) {
      for (const [part, { count, mean, variance }] of [["o_proj", attention], ["down_proj", mlp]] as const) {
        const at = `layers.${layer}.${part}`;
        assertEquals(count, golden.calibration_tokens);
        assertWithin(mean, await golden.tensor("statistics", `${at}.mean`), 1e-5, `${at}.mean`);
        const off = relative(variance, await golden.tensor("statistics", `${at}.var`));
        assert(off < 1e-4, `${at}.var is off by ${off}`);
      }
      const groups = await golden.tensor("statistics", `layers.${layer}.group_score`);
      assertWithin(scores.groups[layer]!, groups, 1e-4, `group scores of layer ${layer}`);
      const channels = await golden.tensor("statistics", `layers.${layer}.channel_score`);
      assertWithin(scores.channels[layer]!, channels, 1e-4, `channel scores of layer ${layer}`);
    }
  });

  goldenTest("the units, biases, losses and divergences of every cut are the reference's", async (gpu) => {
    const { golden, statistics, scores } = await measure(gpu, name);
    const full = await Model.open(golden.path, { category: "weights" });
    try {
      const costs = unitCosts(full.config);
      assertEquals(costs, { group: golden.group_cost, channel: golden.channel_cost });
      const whole = await measuredLosses(gpu, golden);
      assert(Math.abs(whole.nll - golden.nll_full) < 1e-4);
      for (const cut of golden.cuts) {
        const global = cut.structure === "global" ? keepBestOfAll(scores, costs, cut.ratio) : undefined;
        const kept = global ?? keepBestOfEach(scores, cut.ratio);
        assertEquals(kept.groups, cut.kept_groups, cut.key);
        assertEquals(kept.channels, cut.kept_channels, cut.key);
        if (global) {
          assertWithin(
            [global.threshold, global.next!],
            [cut.threshold!, cut.next_lower!],
            1e-4,
            "threshold",
          );
        }
        const compensation = await compensate(full, statistics, kept);
        for (const [layer, { attention, mlp }] of compensation.entries()) {
          const at = `${cut.key}.layers.${layer}`;
          assertWithin(attention, await golden.tensor("bias", `${at}.o_proj`), 1e-5, `${at}.o_proj`);
          assertWithin(mlp, await golden.tensor("bias", `${at}.down_proj`), 1e-5, `${at}.down_proj`);
        }
        const { groups, channels } = kept;
        await compareLosses(gpu, golden, cut, { groups, channels, compensation }, whole.rows);
      }
    } finally {
      full.close();
    }
  });
}

if (hasShared) {
  modelTest("stories260K cut to half, as folders, has the reference's tensors and logits", async (gpu) => {
    const { golden, statistics } = await measure(gpu, "stories260K");
    for (const structure of ["uniform", "global"] as const) {
      const { key, ratio, kept_groups: groups, kept_channels: channels } = golden.cuts.find((cut) =>
        cut.key === `${structure}_0.5`
      )!;
      const full = await Model.open(golden.path, { category: "weights" });
      const compensation = await compensate(full, statistics, { groups, channels });
      full.close();
      const narrow = await Model.open(golden.path, {
        category: "weights",
        width: { groups, channels, compensation },
      });
      const folder = await Deno.makeTempDir({ prefix: "limbeck-" });
      try {
        await writeModelFolder(folder, narrow, { replace: true });
        const file = structure === "uniform"
          ? `stories260K_${key}/model.safetensors`
          : `stories260K_${key}.safetensors`;
        await compareTensors(folder, widthPath(file));
        assertEquals(
          await logitsOf(gpu, folder, golden.evaluation[0]!),
          await logitsOf(gpu, golden.path, golden.evaluation[0]!, { groups, channels, compensation }),
        );
        const expected = await golden.tensor("logits", key);
        const logits = await logitsOf(gpu, folder, golden.evaluation[0]!);
        assertWithin(logits.subarray(0, expected.length), expected, 5e-4, `logits of ${key}, cut ${ratio}`);
        if (structure === "global") continue;
        const config = async (path: string) => JSON.parse(await Deno.readTextFile(`${path}/config.json`));
        const reference = widthPath(`stories260K_${key}`);
        assertEquals(await config(folder), await config(reference));
        const theirs = await logitsOf(gpu, reference, golden.evaluation[0]!);
        assertWithin(theirs.subarray(0, expected.length), expected, 5e-4, "logits of the reference's folder");
      } finally {
        narrow.close();
        await Deno.remove(folder, { recursive: true });
      }
    }
  });

  for (const name of ["stories260K", "stories15M"]) {
    modelTest(`AmoebaLLM's slips cost for ${name} what the reference says they do`, async (gpu) => {
      const { golden, scores } = await measure(gpu, name);
      const model = await Model.open(golden.path, { category: "weights" });
      const costs = unitCosts(model.config);
      const running = await scoreUnits(
        model,
        await measureInputs(gpu, model, golden.calibration, { faithful: true }),
      );
      model.close();
      for (const cut of golden.cuts) {
        const expected = cut["units_that_differ_if (groups, channels)"];
        if (!expected) continue;
        const own = keepBestOfAll(scores, costs, cut.ratio);
        const theirCosts = { group: 170, channel: 1 };
        assertEquals(
          unitsBetween(own, keepBestOfAll(running, costs, cut.ratio)),
          expected.amoeballm_running_fluctuation,
        );
        const byTheirCosts = keepBestOfAll(scores, theirCosts, cut.ratio);
        assertEquals(unitsBetween(own, byTheirCosts), expected.weight_512_over_3_cut_to_170_and_1);
        // Costs and the unit at the threshold together are what `faithful` follows.
        assertEquals(unitsBetween(byTheirCosts, keepBestOfAll(scores, costs, cut.ratio, true)), [0, 1]);
      }
    });
  }
}

/** Groups and channels that one keeps and the other does not. */
function unitsBetween(a: KeptUnits, b: KeptUnits): [number, number] {
  const apart = (x: readonly number[][], y: readonly number[][]) =>
    x.reduce((sum, kept, layer) => sum + new Set(kept).symmetricDifference(new Set(y[layer])).size, 0);
  return [apart(a.groups, b.groups), apart(a.channels, b.channels)];
}

/** Requires a folder's tensors to be a reference's, zeros where those are smaller. */
async function compareTensors(folder: string, reference: string): Promise<void> {
  const model = await openModel(folder);
  const file = await SafetensorsFile.open(await openFile(reference));
  try {
    assertEquals([...model.tensors.keys()].sort(), [...file.tensors.keys()].sort());
    for (const [name, { shape }] of file.tensors) {
      const expected = (await file.read(name)).data;
      const { data, shape: stored } = await model.read(name);
      const [width, own] = [shape[1] ?? 1, stored[1] ?? 1];
      data.forEach((value, i) => {
        const [row, column] = [Math.floor(i / own), i % own];
        const there = row < shape[0]! && column < width;
        const wanted = there ? expected[row * width + column]! : 0;
        // Biases were computed; weights are copied.
        if (!(Math.abs(value - wanted) <= (name.endsWith(".bias") ? 1e-5 : 0))) {
          throw new Error(`${name}[${row}, ${column}] is ${value}, expected ${wanted}`);
        }
      });
    }
  } finally {
    model.close();
    file.source.close?.();
  }
}

async function logitsOf(gpu: Gpu, path: string, ids: Int32Array, width?: WidthCut): Promise<Float32Array> {
  const model = await Model.open(path, { category: "weights", width });
  try {
    using reader = await Reader.open(gpu, model, ids.length);
    return (await reader.logits(ids)).slice();
  } finally {
    model.close();
  }
}

/** Held-out losses and divergences of a cut, with and without compensation. */
async function compareLosses(
  gpu: Gpu,
  golden: WidthGolden,
  cut: GoldenCut,
  width: WidthCut,
  full: readonly Target[],
): Promise<void> {
  const { groups, channels } = width;
  const compensated = await measuredLosses(gpu, golden, width, full);
  const plain = await measuredLosses(gpu, golden, { groups, channels }, full);
  const found = [compensated.nll, compensated.kl, plain.nll, plain.kl];
  const expected = [cut.nll_compensated, cut.kl_compensated, cut.nll_uncompensated, cut.kl_uncompensated];
  assertWithin(found, expected, 1e-4, `losses of ${cut.key}`);
}

/** Probabilities of the full model at a place, and the sum of each times its logarithm. */
interface Target {
  readonly p: Float64Array;
  readonly negativeEntropy: number;
}

function targetOf(logP: Float64Array): Target {
  let negativeEntropy = 0;
  const p = new Float64Array(logP.length);
  for (let v = 0; v < p.length; v++) negativeEntropy += (p[v] = Math.exp(logP[v]!)) * logP[v]!;
  return { p, negativeEntropy };
}

/** Mean loss over every predicted token, and KL(full || cut); of the full model, what others are compared with. */
async function measuredLosses(
  gpu: Gpu,
  golden: WidthGolden,
  width?: WidthCut,
  full?: readonly Target[],
): Promise<{ nll: number; kl: number; rows: Target[] }> {
  const model = await Model.open(golden.path, { category: "weights", width });
  try {
    const length = golden.evaluation[0]!.length;
    using reader = await Reader.open(gpu, model, length);
    const rows: Target[] = [];
    let [nll, kl, count] = [0, 0, 0];
    for (const ids of golden.evaluation) {
      const logits = await reader.logits(ids);
      const vocabulary = model.config.vocabularySize;
      for (let t = 0; t + 1 < length; t++) {
        const q = logProbabilities(logits.subarray(t * vocabulary, (t + 1) * vocabulary));
        nll -= q[ids[t + 1]!]!;
        const target = full?.[count];
        count++;
        if (!target) {
          rows.push(targetOf(q));
          continue;
        }
        const { p, negativeEntropy } = target;
        let cross = 0;
        for (let v = 0; v < vocabulary; v++) cross += p[v]! * q[v]!;
        kl += negativeEntropy - cross;
      }
    }
    return { nll: nll / count, kl: kl / count, rows };
  } finally {
    model.close();
  }
}
