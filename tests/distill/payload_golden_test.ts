/**
 * Cached hidden states and largest logits of a real model against an independent f64 implementation: what is stored, the logits that the
 * head makes of it, the divergences to them and their gradients.
 */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertLess } from "@std/assert";
import { builtins } from "../../plugins/mod.ts";
import { Model, uploadWeights } from "../../src/distill/inputs/models.ts";
import { type CachedRows, chunkedLoss, type Target } from "../../src/distill/objective/chunked_loss.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import { hiddenTarget } from "../../src/distill/program/fed/hidden_target.ts";
import { cachedInputs, cacheScalars, teacherRows } from "../../src/distill/program/fed/teacher_rows.ts";
import { headInput, traceHead } from "../../src/distill/program/traced_model.ts";
import type { HiddenPrecision, TeacherCacheRecipe } from "../../src/distill/recipe/recipe.ts";
import { RowCodec } from "../../src/distill/teacher/cached_rows.ts";
import { HiddenCodec } from "../../src/distill/teacher/hidden_rows.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import { referenceSparseRow } from "../../src/losses/sparse_reference.ts";
import { initialScalars } from "../../src/losses/traced.ts";
import { Registry } from "../../src/registry/registry.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Graph } from "../../src/tensor/graph.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { FAMILIES, freeing, maxDifference, testGpu } from "../tensor/harness.ts";

const GOLDEN = "goldens/teachers/payload.safetensors";
const [POSITIONS, WIDTH, VOCABULARY] = [64, 288, 32000];
const registry = new Registry().addAll(builtins);

type Golden = (name: string) => Float32Array;

async function golden(): Promise<Golden> {
  const file = await SafetensorsFile.open(await openFile(sharedPath(GOLDEN)));
  const found = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) found.set(name, (await file.readArray(name)).data as Float32Array);
  file.close();
  return (name) => found.get(name)!;
}

function row(data: Float32Array, t: number, width = WIDTH): Float32Array {
  return data.subarray(t * width, (t + 1) * width);
}

sharedTest(
  "hidden states are stored as the reference stores them: bf16 bit for bit, int8 codes and scales",
  async () => {
    const get = await golden();
    const hidden = get("hidden_f32");
    const [bf16, int8] = (["bf16", "int8"] as const).map((precision) =>
      new HiddenCodec({ width: WIDTH, precision })
    );
    const expected = {
      bf16: get("hidden_bf16") as unknown as Uint16Array,
      int8: get("hidden_int8") as unknown as Int8Array,
      scale: get("int8_scale"),
    };
    let near = 0;
    for (let t = 0; t < POSITIONS; t++) {
      const bytes = new ArrayBuffer(bf16!.bytes);
      assert(bf16!.write(row(hidden, t), bytes, 0));
      assertEquals(new Uint16Array(bytes), expected.bf16.slice(t * WIDTH, (t + 1) * WIDTH));
      assert(int8!.write(row(hidden, t), bytes, 0));
      const scale = new Float32Array(bytes, 0, 1)[0]!;
      assertEquals(scale, expected.scale[t]!);
      new Int8Array(bytes, 4, WIDTH).forEach((code, c) => {
        const exact = row(hidden, t)[c]! / scale;
        // Where the quotient lies at a half, its own rounding decides.
        if (Math.abs(Math.abs(exact - Math.trunc(exact)) - 0.5) < 1e-4) near++;
        else assertEquals(code, expected.int8[t * WIDTH + c]!);
      });
    }
    assertLess(near, 10);
  },
);

sharedTest("hidden states take the bytes that the reference counts", async () => {
  const { payloads } = JSON.parse(await Deno.readTextFile(sharedPath("goldens/teachers/payload.json")));
  for (const precision of ["f32", "bf16", "int8"] as const) {
    const { bytes } = new HiddenCodec({ width: WIDTH, precision });
    assertEquals(bytes, payloads[`${precision}.tau1`].bytes_per_position, precision);
  }
});

sharedTest("a student's logits, and what a bucket of them weighs, are the reference's in f64", async () => {
  const get = await golden();
  const model = await Model.open(sharedPath("models/stories15M"), { category: "teacher weights" });
  const { data } = await model.source.read("model.embed_tokens.weight");
  model.close();
  const head = data as Float32Array;
  const hidden = get("student_hidden");
  const terms = objectiveOf(["forward-kl"]).passes[0]!.terms;
  // Every row takes 10 million products; some stand for all.
  for (const t of [0, 21, 42, 63]) {
    const h = row(hidden, t);
    const z = Float64Array.from({ length: VOCABULARY }, (_, v) => {
      let sum = 0;
      for (let c = 0; c < WIDTH; c++) sum += h[c]! * head[v * WIDTH + c]!;
      return sum;
    });
    const sampled = get("sample_ids");
    const expected = row(get("student.logits_sample"), t, sampled.length);
    assertLess(maxDifference(Array.from(sampled, (id) => z[id]!), expected), 2e-4);
    const logSum = (tau: number) => {
      const most = z.reduce((a, b) => Math.max(a, b));
      return most / tau + Math.log(z.reduce((sum, x) => sum + Math.exp((x - most) / tau), 0));
    };
    assertLess(Math.abs(logSum(1) - get("student.lse")[t]!), 2e-4);
    for (const entries of [8, 64]) {
      for (const [k, temperature] of [1, 2].entries()) {
        const name = `top${entries}.tau${temperature}`;
        const ids = row(get(`${name}.ids`), t, entries);
        const inside = ids.reduce((sum, id) => sum + Math.exp(z[id]! / temperature - logSum(temperature)), 0);
        assertLess(Math.abs(1 - inside - get(`${name}.student_tail`)[t]!), 1e-5, name);
        // Logits are known up to a constant; here those at the temperature, times it.
        const logs = row(get(`${name}.logprobs`), t, entries);
        const highest = logs.reduce((a, b) => Math.max(a, b));
        const cached = {
          ids,
          logits: Array.from(logs, (l) => (l - highest) * temperature),
          tails: [Math.log(get(`${name}.tail`)[t]!) - highest],
        };
        const target = { kind: "top-k", entries, temperatures: [temperature] } as const;
        const { values } = referenceSparseRow([terms[k]!], z, cached, target, 0);
        assertLess(Math.abs(values[0]! - get(`${name}.bucket_fkl`)[t]!), 1e-3, name);
      }
    }
  }
});

/** Tells whether a comparison would notice: run once as it is, once with the target's rows turned by one position. */
interface Turned {
  readonly by: 0 | 1;
}

const DIVERGENCES = { fkl: "forward-kl", rkl: "reverse-kl", js: "jensen-shannon" } as const;
const NAMES = Object.keys(DIVERGENCES) as (keyof typeof DIVERGENCES)[];

function objectiveOf(losses: readonly string[], cache?: Partial<TeacherCacheRecipe>): Objective {
  const terms = [1, 2].flatMap((temperature) =>
    losses.map((loss) => ({ loss, weight: 1, temperature, options: {} }))
  );
  return Objective.of(
    registry,
    terms,
    VOCABULARY,
    cache ? { cache: { seed: 1, precision: "f32", ...cache } } : {},
  );
}

/** Values of all losses [K, T] and the gradient of the hidden states [T, H], of one weight at a time. */
interface Losses {
  readonly values: Float32Array;
  /** By the place of the loss. */
  readonly gradients: ReadonlyMap<number, Float32Array>;
  readonly outputs: ReadonlyMap<string, Float32Array | Uint32Array>;
}

/** Compiles losses against a target and runs them, for the gradient of some. */
async function lossesOf(
  gpu: Gpu,
  teacher: Model,
  objective: Objective,
  studentHidden: Float32Array,
  inputs: ReadonlyMap<string, Float32Array | Uint32Array>,
  wanted: readonly number[],
  targetOf: (graph: Graph) => Target,
  trace: (graph: Graph) => void = () => {},
): Promise<Losses> {
  const program = new Program();
  const graph = program.block("loss");
  trace(graph);
  const head = traceHead(graph, "teacher", teacher, POSITIONS, { length: POSITIONS });
  const hidden = graph.input("student", [POSITIONS, WIDTH], "f32");
  const losses = objective.rowLosses(objective.passes[0]!, graph);
  const { values, weighted } = chunkedLoss(graph, {
    learner: headInput({ hidden, ...head }, false),
    target: targetOf(graph),
    labels: graph.input("labels", [POSITIONS], "i32"),
    ...{ losses, chunkRows: POSITIONS, gradient: true },
  });
  const seed = graph.input("above", [POSITIONS], "f32");
  graph.output("values", values);
  graph.output("gradient", gradients(graph, [[weighted!, seed]], [hidden])[0]!);
  const planned = plan(program, gpu.description);
  const weights = await uploadWeights(gpu, planned, [teacher]);
  const executable = await compile(gpu, planned, { weights });
  try {
    executable.poison();
    executable.write("student", studentHidden);
    executable.write("labels", new Int32Array(POSITIONS));
    executable.write("above", new Float32Array(POSITIONS).fill(1));
    for (const [name, data] of inputs) if (planned.storages.has(name)) executable.write(name, data);
    if (objective.target) executable.setScalars(cacheScalars(objective.target));
    const found = new Map<number, Float32Array>();
    let all = new Float32Array();
    for (const place of wanted) {
      const terms = objective.passes[0]!.terms.map((term, k) => ({ ...term, weight: Number(k === place) }));
      executable.setScalars(initialScalars(terms));
      executable.run("loss");
      const back = await executable.read(["values", "gradient"], "loss");
      all = back.get("values")!.data as Float32Array<ArrayBuffer>;
      found.set(place, back.get("gradient")!.data as Float32Array);
    }
    gpu.check();
    const names = planned.blocks.get("loss")!.outputs.keys();
    const outputs = await executable.read([...names], "loss");
    return {
      values: all,
      gradients: found,
      outputs: new Map([...outputs].map(([name, { data }]) => [name, data as Float32Array])),
    };
  } finally {
    executable.destroy();
    for (const buffer of weights.values()) buffer.destroy();
  }
}

function relativeError(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [error, length] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    error += (found[i]! - expected[i]!) ** 2;
    length += expected[i]! ** 2;
  }
  return Math.sqrt(error / length);
}

function mean(x: ArrayLike<number>): number {
  return Array.from(x).reduce((sum, v) => sum + v, 0) / x.length;
}

/** Rows of a payload as inputs of a program. */
function stored(hidden: Float32Array, precision: HiddenPrecision, { by }: Turned = { by: 0 }) {
  const codec = new HiddenCodec({ width: WIDTH, precision });
  const feed = codec.feed(POSITIONS);
  const bytes = new ArrayBuffer(codec.bytes);
  for (let t = 0; t < POSITIONS; t++) {
    codec.write(row(hidden, t), bytes, 0);
    feed.read(bytes, 0, (t + by) % POSITIONS);
  }
  return feed.inputs;
}

/** A test of each of some kernel families, with the teacher's files open. */
function goldenTest(
  name: string,
  families: readonly KernelFamily[],
  fn: (gpu: Gpu, teacher: Model, get: Golden) => Promise<void>,
): void {
  for (const family of families) {
    sharedTest(`${name} [${family}]`, async () => {
      const gpu = await openFamily(family);
      if (!gpu) return;
      const get = await golden();
      const teacher = await Model.open(sharedPath("models/stories15M"), { category: "teacher weights" });
      try {
        await freeing(gpu, () => fn(gpu, teacher, get));
      } finally {
        teacher.close();
      }
    });
  }
}

async function openFamily(family: KernelFamily): Promise<Gpu | undefined> {
  const gpu = await testGpu(family);
  if (family !== "subgroup8" || gpu.description.subgroupSize === 8) return gpu;
  console.log("skip: this device's subgroups do not have 8 lanes");
  return undefined;
}

goldenTest(
  "stored hidden states give the reference's logits, divergences and gradients",
  FAMILIES,
  async (gpu, teacher, get) => {
    const objective = objectiveOf(NAMES.map((name) => DIVERGENCES[name]));
    const student = get("student_hidden");
    const place = (temperature: number, name: keyof typeof DIVERGENCES) =>
      (temperature - 1) * NAMES.length + NAMES.indexOf(name);
    // The tiled kernels take their time here; what they share with the other family is the unpacking, the head and the losses.
    const all = ["f32", "bf16", "int8"] as const;
    for (const precision of gpu.description.family === "tiled" ? all.slice(2) : all) {
      const gradientsAt: readonly number[] = { f32: [1, 2], bf16: [], int8: [1] }[precision];
      const wanted = gradientsAt.includes(2) ? [0, 3] : [0];
      const run = (turned: Turned) =>
        lossesOf(
          gpu,
          teacher,
          objective,
          student,
          stored(get("hidden_f32"), precision, turned),
          wanted,
          (graph) => {
            const target = hiddenTarget(
              graph,
              teacher,
              { tokens: POSITIONS, positions: POSITIONS },
              precision,
            );
            const logits = target.logits(0, POSITIONS);
            graph.output("logits", logits);
            return target;
          },
        );
      const { values, gradients, outputs } = await run({ by: 0 });
      const logits = outputs.get("logits")!;
      const sampled = get("sample_ids");
      const [lse, argmax] = [get(`${precision}.lse`), get(`${precision}.argmax`)];
      let worst = 0;
      for (let t = 0; t < POSITIONS; t++) {
        const own = logits.subarray(t * VOCABULARY, (t + 1) * VOCABULARY) as Float32Array;
        const expected = row(get(`${precision}.logits_sample`), t, sampled.length);
        worst = Math.max(worst, maxDifference(Array.from(sampled, (id) => own[id]!), expected));
        const highest = own.reduce((a, b) => Math.max(a, b));
        assertLess(
          Math.abs(highest + Math.log(own.reduce((s, z) => s + Math.exp(z - highest), 0)) - lse[t]!),
          2e-4,
        );
        assertEquals(own.indexOf(highest), argmax[t]);
      }
      assertLess(worst, 2e-4);
      for (const temperature of [1, 2]) {
        for (const name of NAMES) {
          const k = place(temperature, name);
          const found = values.subarray(k * POSITIONS, (k + 1) * POSITIONS);
          const expected = get(`${precision}.tau${temperature}.${name}`);
          assertLess(maxDifference(found, expected), 1e-3, `${precision}, ${name} at ${temperature}`);
          assertLess(Math.abs(mean(found) - mean(expected)), 5e-4);
        }
        if (!gradientsAt.includes(temperature)) continue;
        const found = gradients.get(place(temperature, "fkl"))!;
        assertLess(relativeError(found, get(`${precision}.tau${temperature}.fkl_grad_hidden`)), 2e-4);
      }
      console.log(`${precision}: logits at most ${worst.toExponential(1)} off`);
      if (precision !== "f32") continue;
      const full = get("full_logits");
      Array.from(get("full_positions"), (t, i) => {
        const own = logits.subarray(t * VOCABULARY, (t + 1) * VOCABULARY) as Float32Array;
        assertLess(maxDifference(own, row(full, i, VOCABULARY)), 2e-4, `all logits of position ${t}`);
      });
      const mistaken = await run({ by: 1 });
      assert(maxDifference(mistaken.values.subarray(0, POSITIONS), get("f32.tau1.fkl")) > 0.1);
    }
  },
);

goldenTest(
  "the largest logits and the weight of the rest give the reference's buckets",
  // The tiled kernels of it agree with f64 and smaller goldens: teacher_rows_test.ts, sparse_test.ts, sparse_goldens_test.ts.
  ["subgroup8"],
  async (gpu, teacher, get) => {
    for (const entries of [8, 64]) {
      const cache = { topK: entries, precision: "f32" as const };
      const objective = objectiveOf(["forward-kl"], cache);
      const target = objective.target!;
      // What the pass of the teacher keeps, through the bytes of its rows.
      const made = await keptRows(gpu, teacher, get("hidden_f32"), objective);
      const codec = new RowCodec({ target, precision: "f32", vocabulary: VOCABULARY });
      const feed = codec.feed(POSITIONS);
      const bytes = new ArrayBuffer(codec.bytes);
      for (let t = 0; t < POSITIONS; t++) {
        const own = <A extends Float32Array | Uint32Array>(x: A) =>
          x.slice(t * entries, (t + 1) * entries) as A;
        const tails = [0, 1].map((c) => made.tails[c * POSITIONS + t]!);
        codec.write({ ids: own(made.ids), values: own(made.values), tails }, bytes, 0);
        feed.read(bytes, 0, t);
      }
      for (const temperature of [1, 2]) {
        const name = `top${entries}.tau${temperature}`;
        assertEquals(Array.from(made.ids), Array.from(get(`${name}.ids`)));
        for (let t = 0; t < POSITIONS; t++) {
          const tail = made.tails[(temperature - 1) * POSITIONS + t]!;
          const z = Array.from(
            row(made.values, t, entries),
            (v) => (v - made.values[t * entries]!) / temperature,
          );
          const whole = Math.log(z.reduce((sum, x) => sum + Math.exp(x), Math.exp(tail)));
          assertLess(Math.abs(Math.exp(tail - whole) - get(`${name}.tail`)[t]!), 1e-5);
          assertLess(maxDifference(z.map((x) => x - whole), row(get(`${name}.logprobs`), t, entries)), 3e-4);
        }
      }
      const { values, gradients } = await lossesOf(
        ...[gpu, teacher, objective, get("student_hidden"), feed.inputs, [0, 1]] as const,
        (graph): CachedRows => cachedInputs(graph, POSITIONS, target),
      );
      for (const temperature of [1, 2]) {
        const k = temperature - 1;
        const name = `top${entries}.tau${temperature}.bucket_fkl`;
        const found = values.subarray(k * POSITIONS, (k + 1) * POSITIONS);
        assertLess(maxDifference(found, get(name)), 1e-3, name);
        assertLess(Math.abs(mean(found) - mean(get(name))), 5e-4, name);
        assertLess(relativeError(gradients.get(k)!, get(`${name}_grad_hidden`)), 2e-4, name);
        // Without the bucket it is another number.
        for (const biased of ["truncated", "renormalised"]) {
          assert(maxDifference(found, get(name.replace("bucket_fkl", biased))) > 0.02, biased);
        }
      }
    }
  },
);

/** What a cache keeps of hidden states, as the teacher's pass traces it. */
async function keptRows(gpu: Gpu, teacher: Model, hidden: Float32Array, { target }: Objective) {
  const program = new Program();
  const graph = program.block("kept");
  const head = traceHead(graph, "teacher", teacher, POSITIONS, { length: POSITIONS });
  const kept = graph.input("kept", [POSITIONS], "i32");
  const logits = head.logits(graph.input("hidden", [POSITIONS, WIDTH], "f32"));
  teacherRows(kept, logits, target!, undefined).forEach((t, i) => graph.output(PARTS[i]!, t));
  const planned = plan(program, gpu.description);
  const weights = await uploadWeights(gpu, planned, [teacher]);
  const executable = await compile(gpu, planned, { weights });
  try {
    executable.poison();
    executable.write("hidden", hidden);
    executable.write("kept", new Int32Array(POSITIONS));
    executable.setScalars(cacheScalars(target!));
    executable.run("kept");
    const back = await executable.read([...PARTS], "kept");
    gpu.check();
    return {
      ids: back.get("ids")!.data as Uint32Array,
      values: back.get("values")!.data as Float32Array,
      tails: back.get("tails")!.data as Float32Array,
    };
  } finally {
    executable.destroy();
    for (const buffer of weights.values()) buffer.destroy();
  }
}

const PARTS = ["ids", "values", "tails"] as const;
