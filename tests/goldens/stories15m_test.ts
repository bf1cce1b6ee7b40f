import { builtins } from "../../plugins/mod.ts";
import { Model } from "../../src/distill/inputs/models.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { Registry } from "../../src/registry/registry.ts";
import { packBatch } from "../../src/text/packing.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { FAMILIES, randomArray, relativeError } from "../tensor/harness.ts";
import {
  ReferenceAdamw,
  type ReferenceModel,
  type ReferenceStep,
  referenceStep,
} from "./decoder_reference.ts";

// A vocabulary of 32,000: what comes back through the head is a sum over that many tokens.
const MODEL = "models/stories15M";
const [STEPS, TOKENS, RANK, ALPHA] = [2, 64, 4, 8];
const LENGTHS = [20, 27];
const OPTIMISER = { learningRate: 1e-3, weightDecay: 0.01, clip: 1 };

const recipe = parseRecipe({
  teacher: { model: sharedPath(MODEL) },
  student: { model: "teacher", layers: [0, 1, 3, 5] },
  data: { train: "none", contextLength: TOKENS },
  objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
  adapter: { rank: RANK, alpha: ALPHA },
  train: { ...OPTIMISER, steps: STEPS, tokensPerMicroBatch: TOKENS, schedule: "constant", warmup: 0 },
});

/**
 * Two samples of the model's own kind of text: ids of "Once upon a time, there was a little ...", other tokens after them; without filler
 * unless it is asked for.
 */
function batchOf(step: number, tokens = LENGTHS[0]! + LENGTHS[1]!) {
  const begin = [1, 9038, 2501, 263, 931, 29892, 727, 471, 263, 2217];
  const noise = randomArray(TOKENS, step + 1);
  const samples = LENGTHS.map((length, s) => ({
    ids: Int32Array.from(
      { length },
      (_, i) => begin[i] ?? 259 + Math.floor((noise[s * 20 + i]! + 1) * 4000),
    ),
    supervised: Uint8Array.from({ length }, (_, i) => Number(i > 2 + s)),
    source: { file: "made", line: 1 },
  }));
  return packBatch(samples, tokens);
}

async function weightsOf(model: Model): Promise<ReferenceModel> {
  const weights = new Map<string, Float32Array>();
  for (const name of model.tensors().keys()) weights.set(name, (await model.read(name)).data as Float32Array);
  return { config: model.config, weights };
}

function openModels(): Promise<Model[]> {
  return Promise.all(
    [undefined, recipe.student.layers!].map((layers) =>
      Model.open(recipe.teacher.model, { category: "weights", ...(layers ? { layers } : {}) })
    ),
  );
}

/** Where training begins: A and B are both small numbers, so that every gradient is there from the first step on. */
function startOf(parameters: readonly { name: string; count: number }[]): Map<string, Float32Array> {
  return new Map(parameters.map(({ name, count }, i) => [name, randomArray(count, i + 1, 0.05)]));
}

type Expected = (ReferenceStep & { readonly norm: number })[];
let expected: Promise<Expected> | undefined;

async function reference(
  teacher: Model,
  student: Model,
  start: Map<string, Float32Array>,
): Promise<Expected> {
  const parameters = new Map([...start].map(([name, values]) => [name, Float64Array.from(values)]));
  const whole = await weightsOf(teacher);
  const learner = { ...await weightsOf(student), lora: { scale: ALPHA / RANK, parameters } };
  const optimiser = new ReferenceAdamw();
  return Array.from({ length: STEPS }, (_, step) => {
    const result = referenceStep(whole, learner, batchOf(step));
    return { ...result, norm: optimiser.update(parameters, result.gradients, OPTIMISER) };
  });
}

for (const family of FAMILIES) {
  sharedTest(`Trainer's first steps on stories15M are those in f64 [${family}]`, async () => {
    const [teacher, student] = await openModels() as [Model, Model];
    const gpu = await openGpu({ describe: { family } });
    try {
      const setup = setUp({ recipe, teacher, student }, new Registry().addAll(builtins));
      const { layout } = setup.trainables;
      const start = startOf(layout.parameters);
      const steps = await (expected ??= reference(teacher, student, start));
      const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
      const flat = new Float32Array(layout.total);
      layout.scatter(flat, start);
      trainer.setState(flat);
      for (const [step, { crossEntropy, forwardKl, gradients, norm }] of steps.entries()) {
        await trainer.step(step, [batchOf(step, TOKENS)]);
        const [m] = await trainer.collect();
        const near = (actual: number, expected: number, tolerance: number, what: string) => {
          if (!(Math.abs(actual - expected) <= tolerance)) {
            throw new Error(`step ${step}: ${what} is ${actual}, expected ${expected} +- ${tolerance}`);
          }
        };
        near(m!.losses["cross-entropy"]!, crossEntropy, 2e-5, "cross-entropy");
        near(m!.losses["forward-kl"]!, forwardKl, 2e-5, "forward KL");
        near(m!.gradientNorm, norm, 1e-4 * norm, "gradient norm");
        const actual = await trainer.readGradients();
        for (const [name, gradient] of gradients) {
          const error = relativeError(actual.get(name)!, gradient);
          near(error, 0, 1e-4, `the relative error of the gradient of ${name}`);
        }
      }
      trainer.destroy();
    } finally {
      teacher.close();
      student.close();
      gpu.destroy();
    }
  });
}
