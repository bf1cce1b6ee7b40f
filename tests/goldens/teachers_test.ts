/** Several teachers, the student itself and texts of teachers as target, against PyTorch and PEFT: goldens/teachers. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import { Trainer } from "../../src/distill/program/trainer.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import type { RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { readPeftAdapter } from "../../src/formats/peft/peft.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import type { EncodedSample } from "../../src/text/encode.ts";
import { packBatch, type PackedBatch } from "../../src/text/packing.ts";
import { insertion } from "../../src/text/privileged.ts";
import type { PrivilegedTeacher } from "../../src/distill/inputs/privileged_teacher.ts";
import { type Adapted, Reader } from "../distill/logits.ts";
import { type AdaptedRecipe, tinySetup } from "../distill/tiny_model.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { FAMILIES, testGpu } from "../tensor/harness.ts";
import { type GoldenArray, goldenArrays } from "./arrays.ts";
import { goldenBatch, near, relative } from "./trajectory.ts";

const FOLDER = "goldens/teachers/";
const PREFIX = "base_model.model.";

/** Steps of stories260K with an adapter that is there already: what is measured of each, and the gradients of each window. */
async function stepsWith(
  family: KernelFamily,
  adapter: string,
  { teacher, objective }: Pick<RecipeInput, "teacher" | "objective">,
  windows: readonly (readonly PackedBatch[])[],
  privileged?: PrivilegedTeacher,
) {
  const tokens = windows[0]![0]!.tokens.length;
  const recipe = parseRecipe({
    teacher,
    student: { model: sharedPath("models/stories260K") },
    data: { train: "unread.jsonl", contextLength: 72 },
    objective,
    adapter: { rank: 4, alpha: 8 },
    train: { steps: 1, tokensPerMicroBatch: tokens, headChunk: 64 },
  }) as AdaptedRecipe;
  using opened = await tinySetup(recipe);
  const setup = privileged ? { ...opened, privileged } : opened;
  const gpu = await testGpu(family);
  const trainer = await Trainer.create(gpu, setup, planTraining(setup, gpu.description));
  try {
    const { tensors } = await readPeftAdapter(sharedPath(`${FOLDER}${adapter}/adapter`));
    const { layout } = setup.trainables;
    const flat = new Float32Array(layout.total);
    layout.scatter(flat, new Map([...tensors].map(([name, { data }]) => [name, data as Float32Array])));
    assertEquals(trainer.planned.choices.tokens, tokens);
    const found = [];
    for (const window of windows) {
      trainer.executable.poison();
      trainer.setState(flat);
      await trainer.step(0, window);
      const gradients = await trainer.readGradients();
      found.push({ metrics: (await trainer.collect())[0]!, gradients });
    }
    return found;
  } finally {
    trainer.destroy();
  }
}

async function compareGradients(
  actual: ReadonlyMap<string, Float32Array>,
  path: string,
): Promise<void> {
  const expected = await goldenArrays(`${FOLDER}${path}`);
  assertEquals(actual.size, expected.size);
  for (const [name, wanted] of expected) {
    const { l2, norm } = relative(actual.get(name.replace(PREFIX, ""))!, wanted);
    assert(l2 <= 2e-4 * norm, `the gradient of ${name} is off by ${l2 / norm}`);
  }
}

for (const family of FAMILIES) {
  sharedTest(`the model without its adapter teaches it as in PEFT [${family}]`, async () => {
    const { same_context: expected, N } = JSON.parse(
      await Deno.readTextFile(sharedPath(`${FOLDER}self/self.json`)),
    );
    const arrays = await goldenArrays(`${FOLDER}self/self.safetensors`);
    const [ids, labels] = ["ids", "labels"].map((name) => arrays.get(name) as Int32Array) as [
      Int32Array,
      Int32Array,
    ];
    const recipe = {
      teacher: { model: "student" },
      objective: [{ loss: "forward-kl" }, { loss: "forward-kl", weight: 0, tokens: "all" as const }],
    };
    const batch = goldenBatch(ids, labels, ids.length / 2);
    const [step] = await stepsWith(family, "self", recipe, [[batch]]);
    const { metrics, gradients } = step!;
    assertEquals(metrics.supervisedTokens, N);
    near(metrics.losses["forward-kl 1"]!, expected.loss, 2e-5, "the loss");
    near(metrics.losses["forward-kl 2"]!, expected.fkl_all_rows_mean, 2e-5, "the mean over all rows");
    near(metrics.gradientNorm, expected.grad_norm, 1e-4 * expected.grad_norm, "the gradient's norm");
    await compareGradients(gradients, "self/grads_same_context.safetensors");
  });
}

for (const family of FAMILIES) {
  sharedTest(
    `the model teaches itself what it would say if it were told more, as in PEFT [${family}]`,
    async () => {
      const golden = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}self/self.json`)));
      const { privileged: expected, N, spec: { prefix } } = golden;
      const arrays = await goldenArrays(`${FOLDER}self/self.safetensors`);
      const get = (name: string) => arrays.get(name) as Int32Array<ArrayBuffer>;
      const [ids, labels, told] = [get("ids"), get("labels"), get("privileged_ids")];
      const width = ids.length / 2;
      const whole = width + prefix - 1;
      const samples = [0, 1].map((row): EncodedSample => {
        const own = ids.slice(row * width, (row + 1) * width);
        // What the golden's teacher reads is BOS, some tokens more, and the student's text.
        const privileged = insertion(own, told.slice(row * whole, (row + 1) * whole), {
          file: "golden",
          line: row,
        });
        assertEquals([privileged.at, privileged.ids.length], [1, prefix - 1]);
        return {
          ...{ ids: own, privileged, source: { file: "golden", line: row + 1 } },
          supervised: Uint8Array.from(
            labels.subarray(row * width, (row + 1) * width),
            (l) => Number(l !== -100),
          ),
        };
      });
      const recipe = {
        teacher: { model: "student", privileged: true },
        objective: [{ loss: "forward-kl" }, { loss: "forward-kl", weight: 0, tokens: "all" as const }],
      };
      const tokens = Math.ceil(ids.length / 64) * 64;
      const right = packBatch(samples, tokens);
      // Planted mistake: the text is another.
      const wrong = packBatch(
        samples.map((s) => ({ ...s, privileged: { at: 0, ids: s.privileged!.ids.slice(0, -1) } })),
        tokens,
      );
      const [step, off] = await stepsWith(family, "self", recipe, [[right], [wrong]], {
        ...{ longest: prefix - 1, ratio: 0.3, samples: 2 },
      });
      const { metrics, gradients } = step!;
      assertEquals(metrics.supervisedTokens, N);
      near(metrics.losses["forward-kl 1"]!, expected.loss, 2e-5, "the loss");
      near(metrics.losses["forward-kl 2"]!, expected.fkl_all_rows_mean, 2e-5, "the mean over all rows");
      near(metrics.gradientNorm, expected.grad_norm, 1e-4 * expected.grad_norm, "the gradient's norm");
      await compareGradients(gradients, "self/grads_privileged.safetensors");
      assert(
        Math.abs(off!.metrics.losses["forward-kl 1"]! - expected.loss) > 1e-3,
        "another text, another loss",
      );
    },
  );
}

/** Rows of a model of which an adapter is a part, unless that is left out, as log-probabilities in f64. */
async function logProbabilities(adapter: string | undefined, texts: readonly Int32Array[]) {
  const recipe = parseRecipe({
    teacher: { model: "student" },
    student: { model: sharedPath("models/stories260K") },
    data: { train: "unread.jsonl", contextLength: 72 },
    adapter: { rank: 4, alpha: 8 },
  }) as AdaptedRecipe;
  using setup = await tinySetup(recipe);
  const gpu = await testGpu();
  let adapted: Adapted | undefined;
  if (adapter) {
    const { tensors } = await readPeftAdapter(sharedPath(`${FOLDER}${adapter}/adapter`));
    const { layout } = setup.trainables;
    const parameters = new Float32Array(layout.total);
    layout.scatter(parameters, new Map([...tensors].map(([name, { data }]) => [name, data as Float32Array])));
    adapted = { adapter: setup.adapter, parameters };
  }
  using reader = await Reader.open(gpu, setup.student, 72, adapted);
  const found: { logits: Float32Array; logP: Float64Array }[][] = [];
  for (const ids of texts) {
    const all = await reader.logits(ids);
    const width = all.length / ids.length;
    found.push(Array.from(ids, (_, t) => {
      const logits = all.slice(t * width, (t + 1) * width);
      const most = logits.reduce((a, b) => Math.max(a, b));
      const log = most + Math.log(logits.reduce((sum, z) => sum + Math.exp(z - most), 0));
      return { logits, logP: Float64Array.from(logits, (z) => z - log) };
    }));
  }
  return found;
}

sharedTest(
  "each row of a model and of itself without its adapter, told more or not, is that of PEFT",
  async () => {
    const { spec: { prefix } } = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}self/self.json`)));
    const arrays = await goldenArrays(`${FOLDER}self/self.safetensors`);
    const get = (name: string) => arrays.get(name)!;
    const texts = (name: string) => {
      const ids = get(name) as Int32Array;
      return [ids.slice(0, ids.length / 2), ids.slice(ids.length / 2)];
    };
    const student = await logProbabilities("self", texts("ids"));
    const teacher = await logProbabilities(undefined, [...texts("ids"), ...texts("privileged_ids")]);
    for (const i of [0, 1]) {
      const sides = { same_context: [teacher[i]!, 0], privileged: [teacher[2 + i]!, prefix - 1] } as const;
      for (const [name, [rows, more]] of Object.entries(sides)) {
        const expected = get(`${name}.fkl`);
        const count = expected.length / 2;
        for (let t = 0; t < count; t++) {
          const [p, q] = [rows[t + more]!.logP, student[i]![t]!.logP];
          const divergence = p.reduce((sum, log, v) => sum + Math.exp(log) * (log - q[v]!), 0);
          near(divergence, expected[i * count + t]!, 2e-4, `${name}, row ${t} of text ${i}`);
        }
      }
      const last = { student: student[i]!, teacher: teacher[i]!, privileged: teacher[2 + i]! };
      for (const [name, rows] of Object.entries(last)) {
        // The last row that predicts a token.
        const { logits } = rows.at(-2)!;
        const expected = get(`${name}_logits_last`).subarray(i * logits.length, (i + 1) * logits.length);
        logits.forEach((z, v) =>
          near(z, expected[v]!, 2e-4, `${name}, the last row of text ${i}, entry ${v}`)
        );
      }
    }
  },
);

sharedTest("each token of answers and rationales costs what it does in TinyLLM's passes", async () => {
  const { ce, losses } = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}tinyllm/tinyllm.json`)));
  const arrays = await goldenArrays(`${FOLDER}tinyllm/batches.safetensors`);
  const samples = TASKS.flatMap((task) => taskSamples(arrays, task));
  const rows = await logProbabilities("tinyllm", samples.map(({ ids }) => ids));
  const means = TASKS.map((task, k) => {
    const nll = arrays.get(`${task}.nll`)!;
    const width = nll.length / 2;
    let [sum, count] = [0, 0];
    for (const i of [0, 1]) {
      const { ids, supervised } = samples[2 * k + i]!;
      for (let t = 0; t + 1 < ids.length; t++) {
        if (!supervised[t + 1]) continue;
        const found = -rows[2 * k + i]![t]!.logP[ids[t + 1]!]!;
        near(found, nll[i * width + t]!, 2e-4, `${task}, token ${t + 1} of row ${i}`);
        [sum, count] = [sum + found, count + 1];
      }
    }
    near(sum / count, ce[task], 5e-5, task);
    return sum / count;
  });
  for (const [key, { loss }] of Object.entries<{ loss: number }>(losses)) {
    const weighted = key.split("_").reduce((sum, weight, k) => sum + Number(weight) * means[k]!, 0);
    near(weighted, loss, 2e-4, `weights ${key}`);
  }
});

const TASKS = ["answer", "rationale_1", "rationale_2"] as const;

/** The samples of a task, without their padding. */
function taskSamples(arrays: ReadonlyMap<string, GoldenArray>, task: string): EncodedSample[] {
  const get = (what: string) => arrays.get(`${task}.${what}`) as Int32Array;
  const [ids, labels, mask] = [get("ids"), get("labels"), get("attention_mask")];
  const width = ids.length / 2;
  return [0, 1].map((row) => {
    const length = mask.subarray(row * width, (row + 1) * width).reduce((a, b) => a + b);
    const own = (all: Int32Array) => all.slice(row * width, row * width + length);
    return {
      ids: own(ids),
      supervised: Uint8Array.from(own(labels), (l) => Number(l !== -100)),
      source: { file: task, line: row + 1 },
      origin: task,
    };
  });
}

for (const family of FAMILIES) {
  sharedTest(`answers and rationales in one batch are the three passes of TinyLLM [${family}]`, async () => {
    const golden = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}tinyllm/tinyllm.json`)));
    const arrays = await goldenArrays(`${FOLDER}tinyllm/batches.safetensors`);
    const samples = TASKS.map((task) => taskSamples(arrays, task));
    const weights = [1, 2, 2];
    const recipe = {
      // Nothing looks at it.
      teacher: { model: "student" },
      objective: TASKS.map((source, i) => ({ loss: "cross-entropy", source, weight: weights[i]! })),
    };
    const tokens = 384;
    const all = samples.flat();
    const pass = (some: readonly EncodedSample[]) => packBatch(some, tokens);
    /** The same batch, of which one task alone is learnt. */
    const only = (task: string) =>
      pass(all.map((s) => (s.origin === task ? s : { ...s, supervised: s.supervised.map(() => 0) })));
    // The tiles of the other family take seconds a batch on a CPU.
    const passes = family === "tiled" ? [] : TASKS.map((task) => [only(task)]);
    const [together, ...alone] = await stepsWith(family, "tinyllm", recipe, [[pass(all)], ...passes]);
    const { metrics, gradients } = together!;
    const expected = golden.losses["1_2_2"];
    near(metrics.loss, expected.loss, 2e-4, "the loss");
    near(metrics.gradientNorm, expected.grad_norm, 2e-4 * expected.grad_norm, "the gradient's norm");
    await compareGradients(gradients, "tinyllm/grads_1_2_2.safetensors");
    assert(
      Math.abs(expected.loss - expected.loss_if_all_tokens_are_averaged_together) > 1,
      "means kept apart",
    );
    for (const [i, task] of TASKS.entries()) {
      near(metrics.losses[`cross-entropy ${i + 1}`]!, golden.ce[task], 5e-5, task);
    }
    for (const [i, pass] of alone.entries()) {
      const name = `cross-entropy ${i + 1}`;
      assertEquals(pass.metrics.losses, { [name]: metrics.losses[name] }, "bit for bit");
    }
    if (alone.length === 0) return;
    for (const [name, gradient] of gradients) {
      const sum = gradient.map((_, i) => alone.reduce((sum, pass) => sum + pass.gradients.get(name)![i]!, 0));
      const { l2, norm } = relative(gradient, sum);
      assert(l2 <= 2e-6 * norm, `the gradient of ${name} is off by ${l2 / norm} from that of three passes`);
    }
  });
}
