/** Teachers whose layers come from disk: against teachers that are there, as planned, resumed, read ahead. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertLess, assertRejects, assertStringIncludes } from "@std/assert";
import { DeviceError, InputError } from "../../src/base/errors.ts";
import type { TeacherCacheRecipe } from "../../src/distill/recipe/recipe.ts";
import type { RunEventBody } from "../../src/distill/run/events.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { type PlannedTraining, planTraining } from "../../src/distill/program/plan_training.ts";
import { BatchStream } from "../../src/text/batch_stream.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { fromFloat32, toFloat32 } from "../../src/formats/dtype.ts";
import { openModel } from "../../src/formats/open_model.ts";
import { writeSafetensors } from "../../src/formats/safetensors/write.ts";
import { StreamedLayers } from "../../src/distill/program/streamed/streamed_layers.ts";
import { tinyConfig } from "../models/tiny_configs.ts";
import { testGpu } from "../tensor/harness.ts";
import {
  type RecipeChanges,
  TINY_VOCABULARY,
  type TinyFiles,
  tinyRecipe,
  tinySample,
  tinySetup,
  withTiny,
  writeTinyModel,
} from "./tiny_model.ts";
import { runHere } from "./tiny_run.ts";

const SAMPLES = Array.from({ length: 12 }, (_, i) => tinySample(10 + 5 * i % 40, 6 + i % 3, i + 1));

const OBJECTIVE = [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }];

/** Three steps and measurements of both models, and what they took on the GPU. */
async function trained(files: TinyFiles, changes: RecipeChanges, waiting?: number) {
  const gpu = await testGpu();
  const { accumulation = 2 } = changes.train ?? {};
  const recipe = tinyRecipe(files, {
    objective: OBJECTIVE,
    ...changes,
    train: { accumulation, ...changes.train },
  });
  using setup = await tinySetup(recipe);
  const free = planTraining(setup, gpu.description);
  const choices = { ...free.choices, ...(waiting ? { streamed: { waiting } } : {}) };
  const planned = planTraining(setup, gpu.description, { choices });
  const before = gpu.allocatedBytes;
  gpu.forgetPeak();
  const trainer = await Trainer.create(gpu, setup, planned);
  try {
    const bytes = gpu.allocatedBytes - before;
    trainer.setState((await setup.trainables.initialValues(1)).trained);
    const stream = new BatchStream(SAMPLES, { tokensPerBatch: planned.choices.tokens, seed: 1 });
    const measured = [await trainer.evaluateTeacher(SAMPLES), await trainer.evaluate(SAMPLES)];
    for (let step = 0; step < 3; step++) {
      await trainer.step(step, Array.from({ length: accumulation }, () => stream.next()));
    }
    const metrics = await trainer.collect();
    measured.push(await trainer.evaluate(SAMPLES));
    gpu.check();
    return { planned, bytes, measured, metrics, parameters: (await trainer.readState()).parameters };
  } finally {
    trainer.destroy();
    assertEquals(gpu.allocatedBytes, before);
  }
}

function assertSame(a: Awaited<ReturnType<typeof trained>>, b: typeof a) {
  assertEquals(a.measured, b.measured);
  assertEquals(a.metrics, b.metrics);
  assertEquals(a.parameters, b.parameters);
}

/** Both ways of training. @param waiting Micro-batches that go through a layer; as planned when absent */
async function bothWays(files: TinyFiles, changes: RecipeChanges = {}, waiting?: number) {
  const { teacher } = changes;
  const there = await trained(files, { ...changes, teacher: { ...teacher, stream: false } });
  const streamed = await trained(files, { ...changes, teacher: { ...teacher, stream: true } }, waiting);
  assertEquals(there.planned.streamed, undefined);
  assertEquals(streamed.bytes, streamed.planned.plan.totalBytes);
  return { there, streamed };
}

function bytesOf({ planned: { plan } }: Awaited<ReturnType<typeof trained>>, category: string) {
  return plan.bytesByCategory.get(category) ?? 0;
}

/** A student of its own: where it is cut from the teacher, the two share weights. */
function ownStudent(files: TinyFiles): Promise<void> {
  return writeTinyModel(`${files.folder}/student`, { layers: 1, seed: 7 });
}

Deno.test("a streamed teacher gives what one that is there gives, bit for bit", () =>
  withTiny(async (files) => {
    await ownStudent(files);
    for (const quantize of ["nf4", undefined] as const) {
      const changes = {
        ...(quantize ? { teacher: { quantize } } : {}),
        student: { model: `${files.folder}/student` },
      };
      const { there, streamed } = await bothWays(files, changes);
      assertSame(streamed, there);
      assertEquals(streamed.planned.choices.streamed, { waiting: 8 });
      assertEquals(new Set(streamed.planned.streamed!.layers.kinds), new Set([0]));
      // Two layers of five, and the states of eight micro-batches of 64 tokens.
      const layers = streamed.planned.streamed!.layers.contents(0, "A").reduce((sum, t) => sum + t.bytes, 0);
      assertEquals(bytesOf(there, "teacher weights") - bytesOf(streamed, "teacher weights"), 3 * layers);
      assertEquals(bytesOf(streamed, "hidden states"), 8 * 64 * 32 * 4);
    }
  }, { layers: 5 }));

Deno.test("layers of several types, inner values and layers that the student has are streamed alike", () =>
  withTiny(async (files) => {
    await mixTypes(files.teacher);
    const { there, streamed } = await bothWays(files, {
      objective: [...OBJECTIVE, {
        loss: "hidden-state-mse",
        weight: 0.3,
        options: { layers: [[0, 0], [1, 3]] },
      }],
      student: { model: "teacher", layers: [1, 4] },
      train: { accumulation: 3 },
    }, 2);
    assertSame(streamed, there);
    const { kinds } = streamed.planned.streamed!.layers;
    // 1 and 2 have other types than the others; 0 and 3 show inner values.
    assertEquals(kinds, [0, 1, 1, 3, 4]);
  }, { layers: 5 }));

/** Puts two of the layers in another type. */
async function mixTypes(folder: string): Promise<void> {
  const source = await openModel(folder);
  const path = `${folder}/model.safetensors`;
  const halved = (name: string) => /layers\.[12]\..*_proj/.test(name);
  const tensors = new Map(
    await Promise.all(
      [...source.tensors.keys()].map(async (name) => [name, await source.read(name)] as const),
    ),
  );
  source.close();
  await writeSafetensors(
    path,
    [...tensors].map(([name, { shape }]) => ({ name, dtype: halved(name) ? "BF16" : "F32", shape })),
    ({ name }) => {
      const { dtype, data } = tensors.get(name)!;
      return halved(name) ? fromFloat32("bf16", toFloat32(dtype, data)) : data;
    },
  );
}

/** Configs of three layers. */
function threeLayers(architecture: string): Readonly<Record<string, unknown>> {
  return { ...tinyConfig(architecture, TINY_VOCABULARY), num_hidden_layers: 3 };
}

Deno.test("layers of every family share blocks where they compute alike", async () => {
  const kinds: Readonly<Record<string, readonly number[]>> = {
    LlamaForCausalLM: [0, 0, 0],
    Qwen3MoeForCausalLM: [0, 1, 0],
    SmolLM3ForCausalLM: [0, 1, 0],
    Phi3ForCausalLM: [0, 0, 0],
    Gemma2ForCausalLM: [0, 1, 0],
    Gemma3ForCausalLM: [0, 1, 0],
    GPT2LMHeadModel: [0, 0, 0],
  };
  for (const [architecture, expected] of Object.entries(kinds)) {
    await withTiny(async ({ teacher }) => {
      const model = await Model.open(teacher, { category: "teacher weights" });
      const layers = new StreamedLayers(model, { tokens: 64, positions: 64 }, DEFAULT_DEVICE, new Set());
      assertEquals(layers.kinds, expected, architecture);
      model.close();
    }, {
      config: architecture === "GPT2LMHeadModel"
        ? { ...tinyConfig(architecture, TINY_VOCABULARY), n_layer: 3 }
        : threeLayers(architecture),
    });
  }
});

// Windows by layer, a head that bends its logits; experts, one weight after another.
for (const architecture of ["Gemma2ForCausalLM", "Qwen3MoeForCausalLM"]) {
  Deno.test(`a ${architecture} is streamed alike`, () =>
    withTiny(async (files) => {
      await ownStudent(files);
      const { there, streamed } = await bothWays(files, { student: { model: `${files.folder}/student` } });
      assertSame(streamed, there);
    }, { config: threeLayers(architecture) }));
}

/** How often each layer is read by {@linkcode trained} with a teacher of so many layers. */
async function readings(layers: number): Promise<(number | undefined)[]> {
  const counts = new Map<string, number>();
  let path = "";
  await withTiny(async (files) => {
    path = files.teacher;
    await ownStudent(files);
    const changes = { student: { model: `${files.folder}/student` }, teacher: { stream: true } };
    await withReading(
      (weight) => counts.set(weight, (counts.get(weight) ?? 0) + 1),
      () => trained(files, changes),
    );
  }, { layers });
  return Array.from(
    { length: layers },
    (_, i) => counts.get(`${path}: model.layers.${i}.input_layernorm.weight`),
  );
}

/** Calls `fn` while `seen` is told of every weight that is read. */
async function withReading<T>(seen: (weight: string) => void, fn: () => Promise<T>): Promise<T> {
  const { pieces } = Model.prototype;
  Model.prototype.pieces = function* (weight, shape) {
    seen(weight);
    yield* pieces.call(this, weight, shape);
  };
  try {
    return await fn();
  } finally {
    Model.prototype.pieces = pieces;
  }
}

Deno.test("each pass reads a layer once; a teacher of one or two layers is read once", async () => {
  // Six passes: the teacher is measured, the student twice, and there are three steps. Then the first layer is on its way again.
  assertEquals(await readings(3), [7, 6, 6]);
  assertEquals(await readings(2), [1, 1]);
  assertEquals(await readings(1), [1]);
});

Deno.test("what cannot be read is told, whether it was asked for or read ahead", () =>
  withTiny(async (files) => {
    await ownStudent(files);
    for (const [layer, after] of [[0, 0], [1, 0], [2, 4], [0, 6]] as const) {
      let [left, passed] = [after, false];
      const damage = (weight: string) => {
        if (weight !== `${files.teacher}: model.layers.${layer}.input_layernorm.weight`) return;
        if (left-- === 0) {
          passed = true;
          throw new InputError("the disk is gone");
        }
      };
      const run = () =>
        withReading(
          damage,
          () => trained(files, { student: { model: `${files.folder}/student` }, teacher: { stream: true } }),
        );
      // The last is read ahead for a pass that never comes.
      if (after === 6) await run();
      else await assertRejects(run, InputError, "the disk is gone");
      assert(passed);
    }
  }, { layers: 3 }));

Deno.test("a teacher is streamed where the run does not fit otherwise, unless the recipe says no", () =>
  withTiny(async (files) => {
    await ownStudent(files);
    const planOf = async (stream: boolean | undefined, gpuBytes?: number, availableBytes?: number) => {
      using setup = await tinySetup(tinyRecipe(files, {
        student: { model: `${files.folder}/student` },
        teacher: stream === undefined ? {} : { stream },
        train: { activationCheckpointing: "off", accumulation: 4 },
        limits: gpuBytes === undefined ? {} : { gpuBytes },
      }));
      return planTraining(setup, DEFAULT_DEVICE, { availableBytes });
    };
    const total = ({ plan }: PlannedTraining) => plan.totalBytes;
    const waiting = ({ choices }: PlannedTraining) => choices.streamed?.waiting;
    const there = await planOf(undefined);
    assertEquals(waiting(there), undefined);
    const streamed = await planOf(true);
    assertEquals(waiting(streamed), 8);
    assertLess(total(streamed), total(there));
    assertEquals(waiting(await planOf(undefined, total(there))), undefined);
    for (const limit of [[total(there) - 1], [undefined, total(there) - 1]]) {
      assertEquals(waiting(await planOf(undefined, ...limit)), 8);
    }
    // Fewer micro-batches wait where there is room for no more.
    const least = await planOf(undefined, total(streamed) - 1);
    assertEquals(waiting(least), 4);
    assertEquals(total(streamed) - total(least), 4 * 64 * 32 * 4);
    await assertRejects(() => planOf(undefined, 1e5), DeviceError, "limits.gpuBytes");
    const refused = await assertRejects(() => planOf(false, total(there) - 1), DeviceError);
    assertStringIncludes(refused.hint!, "leave out teacher.stream: false");
  }, { layers: 6 }));

Deno.test("a run with a streamed teacher tells what it costs, goes on bit for bit and leaves what one with its teacher there leaves", () =>
  withTiny(async (files) => {
    const recipe = (stream: boolean, cached = false) =>
      tinyRecipe(files, {
        teacher: { stream, ...(cached ? { cache: { topK: 8 } as TeacherCacheRecipe } : {}) },
        objective: OBJECTIVE,
        train: { steps: 4, accumulation: 2, checkpointEvery: 0, evaluateEvery: 2 },
        samples: { tokens: 2 },
      });
    const adapter = (name: string) =>
      Deno.readFile(`${files.folder}/${name}/adapter/adapter_model.safetensors`);
    const [events, toldThere]: [RunEventBody[], RunEventBody[]] = [[], []];
    const texts = (events: readonly RunEventBody[]) =>
      events.flatMap((e) => e.type === "sample" ? [`${e.model} ${e.step}: ${e.text}`] : []);
    const there = await runHere(recipe(false), `${files.folder}/there`, {}, toldThere);
    const whole = await runHere(recipe(true), `${files.folder}/whole`, {}, events);
    assertEquals(whole.heldOut, there.heldOut);
    assertEquals(whole.peakBytes.allocated, whole.peakBytes.planned);
    assertEquals(await adapter("whole"), await adapter("there"));
    const stages = events.flatMap((e) => e.type === "stage" ? [`${e.stage}: ${e.message}`] : []);
    const cost = stages.findIndex((stage) =>
      stage.startsWith("stream: the teacher's 3 layers come from disk")
    );
    assert(cost >= 0 && cost < stages.findIndex((stage) => stage.startsWith("compile:")), stages.join("\n"));
    assertEquals(events.flatMap((e) => e.type === "warning" ? [e.code] : []), []);
    assertEquals(texts(events), texts(toldThere));
    assert(texts(events).some((text) => text.startsWith("teacher ")), texts(events).join("\n"));
    await runHere(recipe(true), `${files.folder}/parts`, { control: (step) => step === 3 ? "stop" : "run" });
    await runHere(recipe(true), `${files.folder}/parts`, { resume: true });
    assertEquals(await adapter("parts"), await adapter("whole"));

    // The pass that makes a cache.
    const told: RunEventBody[] = [];
    const kept = await runHere(recipe(false, true), `${files.folder}/kept`);
    assertEquals(
      await runHere(recipe(true, true), `${files.folder}/kept-streamed`, {}, told).then((r) => r.heldOut),
      kept.heldOut,
    );
    assertEquals(await adapter("kept-streamed"), await adapter("kept"));
    assert(told.some((e) => e.type === "stage" && e.stage === "stream"));
    assertEquals(texts(told), texts(toldThere));
  }));
