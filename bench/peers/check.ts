/**
 * Holds a library's program against a recorded PyTorch + PEFT run, whose batches and gradients lie beside the checkout: loss and
 * gradients of its first step and of its sixth, reached here by an AdamW in f64 with the run's own learning rates; then the
 * program's own optimiser against that AdamW for three steps.
 *
 * Run with `deno run --no-lock -A bench/peers/check.ts <peer>`.
 *
 * @module
 */
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { packBatch } from "../../src/text/packing.ts";
import { SETTINGS, type StepCase } from "./case.ts";
import { type AdapterValues } from "./peer.ts";
import { PEERS } from "./peers.ts";

const SHARED = decodeURIComponent(new URL("../../../shared/", import.meta.url).pathname);
const RUN = `${SHARED}goldens/lora_kd_trajectory/stories260K_lora`;

const LOSS_TOLERANCE = 2e-5;
/** Relative L2 error of a gradient. */
const GRADIENT_TOLERANCE = 1e-4;
/** A gradient of a smaller norm is zero, as A's is while B is. */
const ZERO_GRADIENT = 2e-6;
/** L2 over all parameters. A missing weight decay would show as 1e-5 of their norm a step. */
const PARAMETER_TOLERANCE = 3e-5;

interface Recorded {
  ids: Int32Array;
  labels: Int32Array;
  segments: number;
  length: number;
  steps: { lr: number; loss: number; tokens: number }[];
  initial: Map<string, { shape: [number, number]; data: Float32Array<ArrayBuffer> }>;
}

async function readTensors(
  name: string,
): Promise<Map<string, { shape: [number, number]; data: Float32Array<ArrayBuffer> }>> {
  const file = await SafetensorsFile.open(await openFile(`${RUN}/${name}`));
  const tensors = new Map<string, { shape: [number, number]; data: Float32Array<ArrayBuffer> }>();
  for (const [key, { shape: [rows, columns] }] of file.tensors) {
    const { data } = await file.readArray(key);
    if (!(data instanceof Float32Array)) throw new Error(`${name}: ${key} is not f32`);
    // PEFT's names begin with two wrappers that the case's names leave out.
    tensors.set(key.replace(/^base_model\.model\./, ""), {
      shape: [rows, columns],
      data: data as Float32Array<ArrayBuffer>,
    });
  }
  file.close();
  return tensors;
}

async function readRun(): Promise<Recorded> {
  const file = await SafetensorsFile.open(await openFile(`${RUN}/batches.safetensors`));
  const [, , segments, length] = file.entry("ids").shape;
  const ids = (await file.readArray("ids")).data as Int32Array;
  const labels = (await file.readArray("labels")).data as Int32Array;
  file.close();
  const { steps } = JSON.parse(await Deno.readTextFile(`${RUN}/trajectory.json`));
  const initial = await readTensors("adapter_init/adapter_model.safetensors");
  return { ids, labels, segments, length, steps, initial };
}

/** The case of one recorded step: its batch, and the adapter given. Recorded labels are not shifted. */
function caseOfStep(run: Recorded, step: number, adapter: AdapterValues): StepCase {
  const { segments, length } = run;
  const samples = Array.from({ length: segments }, (_, segment) => {
    const start = (step * segments + segment) * length;
    return {
      ids: run.ids.slice(start, start + length),
      supervised: Uint8Array.from(run.labels.slice(start, start + length), (label) => label >= 0 ? 1 : 0),
      source: { file: "batches.safetensors", line: segment },
    };
  });
  return {
    name: `recorded step ${step}`,
    modelFolder: `${SHARED}models/stories260K`,
    keptLayers: [0, 1, 2, 4],
    segments,
    segmentLength: length,
    batch: packBatch(samples, segments * length),
    adapter: new Map(
      [...run.initial].map(([name, { shape }]) => [name, { shape, data: adapter.get(name)! }]),
    ),
  };
}

/** Clipping and AdamW in f64, after Loshchilov and Hutter, arXiv 1711.05101. */
class ReferenceAdamW {
  #step = 0;
  readonly #m = new Map<string, Float64Array>();
  readonly #v = new Map<string, Float64Array>();

  /** Changes the parameters in place. */
  update(parameters: AdapterValues, gradients: AdapterValues, learningRate: number): void {
    const { beta1, beta2, epsilon, weightDecay, maxNorm } = SETTINGS;
    this.#step++;
    let squares = 0;
    for (const gradient of gradients.values()) for (const g of gradient) squares += g * g;
    const clip = Math.min(1, maxNorm / (Math.sqrt(squares) + 1e-6));
    for (const [name, values] of parameters) {
      const gradient = gradients.get(name)!;
      const m = this.#m.get(name) ?? new Float64Array(values.length);
      const v = this.#v.get(name) ?? new Float64Array(values.length);
      this.#m.set(name, m);
      this.#v.set(name, v);
      for (let i = 0; i < values.length; i++) {
        const g = gradient[i] * clip;
        m[i] = beta1 * m[i] + (1 - beta1) * g;
        v[i] = beta2 * v[i] + (1 - beta2) * g * g;
        const mean = m[i] / (1 - beta1 ** this.#step);
        const variance = v[i] / (1 - beta2 ** this.#step);
        values[i] = values[i] * (1 - learningRate * weightDecay) -
          learningRate * mean / (Math.sqrt(variance) + epsilon);
      }
    }
  }
}

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < a.length; i++) squares += (a[i] - b[i]) ** 2;
  return Math.sqrt(squares);
}

function norm(a: Float32Array): number {
  return distance(a, new Float32Array(a.length));
}

let failures = 0;

function report(what: string, error: number, tolerance: number): void {
  // Written so that NaN fails.
  const ok = error <= tolerance;
  if (!ok) failures++;
  console.log(
    `${ok ? "ok  " : "FAIL"} ${what}: ${error.toExponential(2)} (at most ${tolerance.toExponential(0)})`,
  );
}

async function compareGradients(file: string, actual: AdapterValues): Promise<void> {
  let worst = 0;
  let where = "";
  let zeros = 0;
  for (const [name, { data: expected }] of await readTensors(file)) {
    const size = norm(expected);
    const gradient = actual.get(name);
    if (gradient === undefined) throw new Error(`the program gives no gradient for ${name}`);
    const apart = distance(gradient, expected);
    if (size < ZERO_GRADIENT) {
      zeros++;
      if (!(apart <= ZERO_GRADIENT)) report(`${file}: ${name} should be zero`, apart, ZERO_GRADIENT);
    } else if (!(apart / size <= worst)) {
      [worst, where] = [apart / size, name];
    }
  }
  report(`${file}: relative error of ${where} (${zeros} are zero)`, worst, GRADIENT_TOLERANCE);
}

if (import.meta.main) {
  const load = PEERS[Deno.args[0]];
  if (!load) {
    console.error(`usage: deno run --no-lock -A bench/peers/check.ts <${Object.keys(PEERS).join(" | ")}>`);
    Deno.exit(2);
  }
  try {
    Deno.statSync(RUN);
  } catch {
    console.error(`skip: there is no recorded run in ${RUN}`);
    Deno.exit(0);
  }
  const { createPeer } = await load();
  const run = await readRun();
  const parameters: AdapterValues = new Map(
    [...run.initial].map(([name, { data }]) => [name, data.slice()]),
  );

  const recorded = new ReferenceAdamW();
  for (let step = 0; step <= 5; step++) {
    const peer = await createPeer(caseOfStep(run, step, parameters));
    const { loss, gradients } = await peer.gradients();
    const { lr, loss: expected } = run.steps[step];
    report(`step ${step}: loss`, Math.abs(loss - expected), LOSS_TOLERANCE);
    if (step === 0 || step === 5) await compareGradients(`grads_step${step}.safetensors`, gradients);
    recorded.update(parameters, gradients, lr);
  }

  // From here, where no gradient is zero, the program's own optimiser.
  const peer = await createPeer(caseOfStep(run, 6, parameters));
  const optimiser = new ReferenceAdamW();
  for (let step = 0; step < 3; step++) {
    const { loss, gradients } = await peer.gradients();
    optimiser.update(parameters, gradients, SETTINGS.learningRate);
    const own = await peer.step();
    report(`own step ${step}: loss`, Math.abs(own - loss), LOSS_TOLERANCE);
    let squares = 0;
    const actual = await peer.parameters();
    for (const [name, expected] of parameters) squares += distance(actual.get(name)!, expected) ** 2;
    report(`own step ${step}: parameters`, Math.sqrt(squares), PARAMETER_TOLERANCE);
  }
  Deno.exit(failures > 0 ? 1 : 0);
}
