// @ts-types="../../types/std_assert.d.ts"
import { assertEquals } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { headChunks } from "../../src/distill/program/plan_training.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { Registry } from "../../src/registry/registry.ts";
import { depthProgram } from "../../src/shape/depth/dynamic_program.ts";
import { cosineOrder } from "../../src/shape/depth/rules.ts";
import { SubsetEvaluator } from "../../src/shape/depth/subset_evaluator.ts";
import { SubsetProgram } from "../../src/shape/depth/subset_program.ts";
import { subsetKey } from "../../src/shape/depth/subsets.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { testGpu } from "../tensor/harness.ts";

const FOLDER = "goldens/shapes/depth";

/** What of `depth_MODEL.json` is looked at here. */
interface Golden {
  readonly layers: number;
  readonly supervised_tokens: number;
  readonly subsets: readonly { kept: number[]; nll: number; kl: number }[];
  readonly dp: Readonly<Record<string, GoldenTables>>;
  readonly cosine: { readonly mean: number[]; readonly removal_order: number[] };
}

interface GoldenTables {
  readonly plan: (number[] | null)[][];
  readonly evaluations: readonly {
    n: number;
    m: number;
    removed: number[];
    keep: "A" | "B";
    value: number;
    against: number | null;
  }[];
}

async function samplesOf(model: string): Promise<EncodedSample[]> {
  const path = sharedPath(`${FOLDER}/calibration_${model}.safetensors`);
  const source = await openFile(path);
  try {
    const file = await SafetensorsFile.open(source);
    const [ids, labels] = await Promise.all(["ids", "labels"].map((name) => file.readBytes(name)));
    const [rows, length] = file.tensors.get("ids")!.shape as [number, number];
    const words = (bytes: Uint8Array, row: number) =>
      new Int32Array(bytes.slice(row * length * 4, (row + 1) * length * 4).buffer);
    return Array.from({ length: rows }, (_, row) => ({
      ids: words(ids!, row),
      supervised: Uint8Array.from(words(labels!, row), (label, t) => Number(t > 0 && label !== -100)),
      source: { file: path, line: row + 1 },
    }));
  } finally {
    source.close?.();
  }
}

function near(actual: number, expected: number, tolerance: number, what: string): void {
  if (!(Math.abs(actual - expected) <= tolerance)) {
    throw new Error(`${what} is ${actual}, expected ${expected} +- ${tolerance}`);
  }
}

/** Tolerances of the goldens' README. */
const CASES = [
  { name: "stories260K", nll: 5e-5, kl: 5e-5 },
  { name: "stories15M", nll: 1e-4, kl: 5e-4 },
];

for (const { name, nll, kl } of CASES) {
  sharedTest(`subsets of ${name}'s layers are measured as the goldens say, and planned exactly`, async () => {
    const golden: Golden = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}/depth_${name}.json`)));
    const samples = await samplesOf(name);
    const gpu = await testGpu();
    const model = await Model.open(sharedPath(`models/${name}`), { category: "weights" });
    const tokensPerMicroBatch = samples.reduce((sum, { ids }) => sum + ids.length, 0);
    const sizes = headChunks(
      { tokensPerMicroBatch, headChunk: "auto" },
      model.config.vocabularySize,
      gpu.description,
    );
    const program = await SubsetProgram.create(gpu, model, new Registry().addAll(builtins), {
      ...sizes,
      positions: samples[0]!.ids.length,
    });
    try {
      const evaluator = new SubsetEvaluator(program, golden.layers, samples);
      assertEquals(evaluator.supervised, golden.supervised_tokens);
      const measured = new Map<string, { loss: number; kl?: number }>();
      const begun = performance.now();
      for (const expected of golden.subsets) {
        const found = await evaluator.measure(expected.kept, "divergence");
        measured.set(subsetKey(expected.kept), found);
        near(found.loss, expected.nll, nll, `nll of ${expected.kept}`);
        near(found.kl!, expected.kl, kl, `kl of ${expected.kept}`);
      }
      console.log(name, performance.now() - begun);
      const cosines = await evaluator.cosines();
      cosines.forEach((c, layer) => near(c, golden.cosine.mean[layer]!, 1e-5, `cosine of layer ${layer}`));
      assertEquals(cosineOrder(cosines), golden.cosine.removal_order);
      for (const [key, tables] of Object.entries(golden.dp)) {
        const keepLast = key.endsWith("_keep_last_1") ? 1 : 0;
        const { plans, decisions } = await depthProgram(
          { layers: golden.layers, keepLast, mostRemoved: golden.layers - 1 },
          (kept) => {
            const found = measured.get(subsetKey(kept))!;
            return Promise.resolve(key.startsWith("nll") ? found.loss : found.kl!);
          },
        );
        assertEquals(plans.map((row) => row.map((p) => p ?? null)), tables.plan);
        assertEquals(
          decisions.map(({ n, m, removed, keep }) => ({ n, m, removed, keep })),
          tables.evaluations.map(({ n, m, removed, keep }) => ({ n, m, removed, keep })),
        );
      }
    } finally {
      program.destroy();
      model.close();
    }
  });
}
