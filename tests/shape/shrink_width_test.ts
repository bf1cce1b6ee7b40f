/** From calibration text to a narrower model, on a model made on the spot. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { evaluateModel } from "../../src/distill/evaluate/evaluate_model.ts";
import { writeModelFolder } from "../../src/distill/export/exports.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { traceModel } from "../../src/distill/program/traced_model.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { Registry } from "../../src/registry/registry.ts";
import { keepBestOfAll, unitCosts } from "../../src/shape/width/flap.ts";
import { measureInputs } from "../../src/shape/width/input_statistics.ts";
import { compensate, scoreUnits } from "../../src/shape/width/output_projections.ts";
import { shrinkWidth } from "../../src/shape/width/shrink_width.ts";
import { compile } from "../../src/tensor/executable.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { builtins } from "../../plugins/mod.ts";
import { runHere } from "../distill/tiny_run.ts";
import {
  type TinyFiles,
  type TinyModelOptions,
  tinyRecipe,
  tinySample,
  withTiny,
} from "../distill/tiny_model.ts";
import { assertWithin, maxDifference, modelTest } from "../tensor/harness.ts";

/** More than one pass holds, of lengths that leave filler. */
const SAMPLES: readonly EncodedSample[] = Array.from(
  { length: 30 },
  (_, i) => tinySample(21 + (i * 13) % 40, 3, i),
);

function tinyTest(
  name: string,
  fn: (gpu: Gpu, model: Model, files: TinyFiles) => Promise<void>,
  options: TinyModelOptions = {},
): void {
  modelTest(name, (gpu) =>
    withTiny(async (files) => {
      const model = await Model.open(files.teacher, { category: "weights" });
      try {
        await fn(gpu, model, files);
      } finally {
        model.close();
      }
    }, options));
}

/** The inputs of some linear layers over single samples, one row a token. */
async function inputsOf(gpu: Gpu, model: Model, names: readonly string[]): Promise<Map<string, number[][]>> {
  const length = 64;
  const program = new Program();
  const graph = program.block("inputs");
  traceModel(graph, "model", model, length, { length }, {
    attach: () => ({
      onLinear(name, x, _weight, base) {
        if (names.includes(name)) graph.output(name, x);
        return base();
      },
    }),
  });
  const planned = plan(program, gpu.description);
  const weights = await uploadWeights(gpu, planned, [model]);
  const executable = await compile(gpu, planned, { weights });
  const rows = new Map(names.map((name): [string, number[][]] => [name, []]));
  for (const { ids } of SAMPLES) {
    const column = (value: (t: number) => number) => Int32Array.from({ length }, (_, t) => value(t));
    executable.write("tokens", column((t) => ids[t] ?? 0));
    executable.write("positions", column((t) => t));
    executable.write("start", column(() => 0));
    executable.write("end", column((t) => t + 1));
    executable.run("inputs");
    for (const [name, { shape, data }] of await executable.read(names, "inputs")) {
      for (let t = 0; t < ids.length; t++) {
        rows.get(name)!.push([...data.subarray(t * shape[1]!, (t + 1) * shape[1]!)]);
      }
    }
  }
  executable.destroy();
  for (const buffer of weights.values()) buffer.destroy();
  return rows;
}

function meanOf(rows: readonly number[][]): number[] {
  return rows[0]!.map((_, j) => rows.reduce((sum, row) => sum + row[j]!, 0) / rows.length);
}

tinyTest("measureInputs() takes every token of every sample, and no filler", async (gpu, model) => {
  const statistics = await measureInputs(gpu, model, SAMPLES);
  const parts = { attention: "self_attn.o_proj", mlp: "mlp.down_proj" };
  const name = (layer: number, part: string) => `model.layers.${layer}.${part}`;
  const rows = await inputsOf(
    gpu,
    model,
    [0, 1, 2].flatMap((l) => Object.values(parts).map((p) => name(l, p))),
  );
  for (const [layer, of] of statistics.entries()) {
    for (const part of ["attention", "mlp"] as const) {
      const seen = rows.get(name(layer, parts[part]))!;
      const mean = meanOf(seen);
      const variance = meanOf(seen.map((row) => row.map((x, j) => (x - mean[j]!) ** 2)));
      assertEquals(of[part].count, seen.length);
      assertWithin(of[part].mean, mean, 1e-5, `means of ${part}`);
      assertWithin(
        of[part].variance.map((v, j) => v / variance[j]!),
        variance.map(() => 1),
        1e-4,
        "variances",
      );
    }
  }
});

tinyTest(
  "compensation keeps the mean output of the layers where it can be seen",
  async (gpu, model, { teacher }) => {
    const { cut } = await shrinkWidth(gpu, model, SAMPLES, { ratio: 0.5, structure: "uniform" });
    assertEquals(cut.groups.map((kept) => kept.length), [1, 1, 1]);
    assertEquals(cut.channels.map((kept) => kept.length), [22, 22, 22]);
    const narrow = await Model.open(teacher, { category: "weights", width: cut });
    const name = "model.layers.0.self_attn.o_proj";
    const outputs = async (of: Model) => {
      const { data: weight, shape } = await of.read(`${name}.weight`);
      const mean = meanOf((await inputsOf(gpu, of, [name])).get(name)!);
      return Array.from(
        { length: shape[0]! },
        (_, i) => mean.reduce((sum, m, j) => sum + m * (weight as Float32Array)[i * mean.length + j]!, 0),
      );
    };
    const [before, without] = [await outputs(model), await outputs(narrow)];
    const { data: bias } = await narrow.read(`${name}.bias`);
    narrow.close();
    assertWithin(
      without.map((y, i) => y + bias[i]!),
      before,
      1e-5,
      "mean outputs of attention",
    );
    assert(Math.hypot(...bias) > 0.01, "there was nothing to compensate");
  },
);

tinyTest(
  "biases stand for what is cut, of attention and MLP alike, and for nothing that is kept",
  async (gpu, model) => {
    const statistics = await measureInputs(gpu, model, SAMPLES);
    // Of each layer another unit stays.
    const units = statistics.map((_, layer) => ({ group: layer % 2, channel: layer }));
    const compensation = await compensate(model, statistics, {
      groups: units.map(({ group }) => [group]),
      channels: units.map(({ channel }) => [channel]),
    });
    for (const [layer, { group, channel }] of units.entries()) {
      const { attention, mlp } = statistics[layer]!;
      const perGroup = attention.mean.length / model.config.keyValueHeads;
      const parts = [
        [
          "self_attn.o_proj",
          attention,
          compensation[layer]!.attention,
          (j: number) => Math.floor(j / perGroup) === group,
        ],
        ["mlp.down_proj", mlp, compensation[layer]!.mlp, (j: number) => j === channel],
      ] as const;
      for (const [name, { mean }, bias, stays] of parts) {
        const { data: weight, shape } = await model.read(`model.layers.${layer}.${name}.weight`);
        const expected = Array.from(
          { length: shape[0]! },
          (_, i) =>
            mean.reduce(
              (sum, m, j) => stays(j) ? sum : sum + m * (weight as Float32Array)[i * mean.length + j]!,
              0,
            ),
        );
        assertWithin(bias, expected, 1e-9, `${name} of layer ${layer}`);
        assert(Math.hypot(...expected) > 1e-3, "there was nothing to compensate");
      }
    }
  },
);

for (const biases of [false, true]) {
  tinyTest(
    `the parameters of a cut ${biases ? "with" : "without"} biases are those of its model`,
    async (gpu, model, files) => {
      const { cut, parameters, threshold } = await shrinkWidth(gpu, model, SAMPLES, {
        ratio: 0.6,
        compensation: false,
      });
      assertEquals(cut.compensation, undefined);
      assert(threshold !== undefined);
      const narrow = await Model.open(files.teacher, { category: "weights", width: cut });
      narrow.close();
      assertEquals(parameters.full, model.architecture.parameterCount);
      assertEquals(parameters.stored, narrow.architecture.parameterCount);
      // Of 3 layers of 2 groups (of 2 heads of 8) and 44 channels, at a hidden size of 32.
      const [group, channel] = biases ? [32 * 8 * 6 + 8 * 4, 3 * 32 + 2] : [32 * 8 * 6, 3 * 32];
      const lost = [cut.groups.flat().length, cut.channels.flat().length];
      assertEquals(parameters.kept, parameters.full - (6 - lost[0]!) * group - (132 - lost[1]!) * channel);
      assert(parameters.kept < parameters.stored && parameters.stored <= parameters.full);
    },
    { biases },
  );
}

tinyTest("a width of 1 changes nothing", async (gpu, model, { teacher }) => {
  for (const structure of ["global", "uniform"] as const) {
    const { cut, parameters } = await shrinkWidth(gpu, model, SAMPLES, { ratio: 1, structure });
    assertEquals(cut.compensation, undefined);
    assertEquals([parameters.kept, parameters.stored], [parameters.full, parameters.full]);
    const same = await Model.open(teacher, { category: "weights", width: cut });
    assertEquals(same.tensors(), model.tensors());
    same.close();
  }
});

tinyTest("AmoebaLLM's slips are followed when asked for", async (gpu, model) => {
  const shrink = (faithful: boolean) => shrinkWidth(gpu, model, SAMPLES, { ratio: 0.5, faithful });
  const [own, theirs] = [await shrink(false), await shrink(true)];
  assert(JSON.stringify(own.cut.channels) !== JSON.stringify(theirs.cut.channels));
  const running = await measureInputs(gpu, model, SAMPLES, { faithful: true });
  const scores = await scoreUnits(model, running);
  const { groups, channels, threshold } = keepBestOfAll(scores, unitCosts(model.config), 0.5, true);
  assertEquals([theirs.cut.groups, theirs.cut.channels, theirs.threshold], [groups, channels, threshold]);
  const exactMeans = await compensate(model, running, { groups, channels });
  const apart = theirs.cut.compensation!.map(({ mlp }, l) => maxDifference(mlp, exactMeans[l]!.mlp));
  // Means in half precision.
  assert(apart.every((difference) => difference > 0 && difference < 1e-2), `${apart}`);
  const [of, twice] = [SAMPLES.slice(0, 1), [SAMPLES[0]!, SAMPLES[0]!]];
  // Their first sample adds nothing: after one, nothing has varied.
  const first = await measureInputs(gpu, model, of, { faithful: true });
  assertEquals(Math.hypot(...first[0]!.mlp.variance), 0);
  const second = await measureInputs(gpu, model, twice, { faithful: true });
  const exact = await measureInputs(gpu, model, of);
  const tokens = SAMPLES[0]!.ids.length;
  assertWithin(
    second[1]!.mlp.variance.map((v, j) => v / exact[1]!.mlp.variance[j]!),
    exact[1]!.mlp.variance.map(() => tokens / 2),
    1e-3,
    "fluctuations",
  );
});

tinyTest("what cannot be measured is refused, what is thin is said", async (gpu, model) => {
  const refused = (samples: readonly EncodedSample[], ratio: number, message: string) =>
    assertRejects(() => shrinkWidth(gpu, model, samples, { ratio }), InputError, message);
  await refused(SAMPLES, 0, "must be above 0 and at most 1");
  await refused(SAMPLES, 1.5, "must be above 0 and at most 1");
  await refused(SAMPLES, NaN, "must be above 0 and at most 1");
  await refused([], 0.5, "the calibration text has 0 tokens");
  await refused([tinySample(1, 0, 3)], 0.5, "the calibration text has 1 tokens");
  const thin = await shrinkWidth(gpu, model, SAMPLES.slice(0, 1), { ratio: 0.9 });
  assertEquals(thin.calibrationTokens, 21);
  assert(thin.warnings.some(({ message }) => message.includes("21 tokens for 44 channels")));
  const little = await shrinkWidth(gpu, model, SAMPLES, { ratio: 0.02 });
  assert(
    little.warnings.some(({ message }) => /keeps? nothing of the attention/.test(message)),
  );
});

tinyTest("a layer whose inputs all score alike is refused by its name", async (gpu, _, { folder }) => {
  await writeSilent(`${folder}/teacher`, `${folder}/silent`);
  const silent = await Model.open(`${folder}/silent`, { category: "weights" });
  try {
    await assertRejects(
      () => shrinkWidth(gpu, silent, SAMPLES, { ratio: 0.5 }),
      InputError,
      "layer 1's MLP output all vary alike",
    );
  } finally {
    silent.close();
  }
});

/** The model with a layer whose MLP gives nothing. */
async function writeSilent(from: string, to: string): Promise<void> {
  const model = await Model.open(from, { category: "weights" });
  const read = model.read.bind(model);
  model.read = async (name, ...rows) => {
    const tensor = await read(name, ...rows);
    return name === "model.layers.1.mlp.down_proj.weight"
      ? { ...tensor, data: new Float32Array(tensor.data.length) }
      : tensor;
  };
  await writeModelFolder(to, model);
  model.close();
}

tinyTest(
  "a cut student learns from the model it was cut from, and its merged folder is what was measured",
  async (gpu, model, files) => {
    const { cut } = await shrinkWidth(gpu, model, SAMPLES, { ratio: 0.6 });
    const narrow = await Model.open(files.teacher, { category: "weights", width: cut });
    const folder = `${files.folder}/narrow`;
    await writeModelFolder(folder, narrow);
    narrow.close();
    const recipe = tinyRecipe(files, {
      student: { model: folder },
      train: { steps: 8, checkpointEvery: 0, evaluateEvery: 0, learningRate: 0.03 },
    });
    const { heldOut } = await runHere(recipe, `${files.folder}/run`);
    assert(heldOut.after! < heldOut.before!, `${heldOut.before} became ${heldOut.after}`);
    const loss = async (path: string) =>
      (await evaluateModel({
        model: path,
        data: files.heldOut,
        contextLength: 64,
        registry: new Registry().addAll(builtins),
      })).loss;
    assertAlmostEquals(await loss(folder), heldOut.before!, 1e-4);
    assertAlmostEquals(await loss(`${files.folder}/run/merged`), heldOut.after!, 1e-4);
  },
);
