/** What a plan says its kernels move, against what they do: every access counted as they run. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { countAccesses, type Counted, countingKernel } from "../../bench/counted.ts";
import { byKernel, planCase, variantsOf } from "../../bench/roofline.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Executable } from "../../src/tensor/executable.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { adamw } from "../../src/tensor/ops/adamw.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { attention } from "../../src/tensor/ops/attention.ts";
import { embedding } from "../../src/tensor/ops/embedding.ts";
import { gatedSilu } from "../../src/tensor/ops/gated.ts";
import { layerNorm } from "../../src/tensor/ops/layer_norm.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { gradientNorm } from "../../src/tensor/ops/norms.ts";
import { pointwise } from "../../src/tensor/ops/pointwise.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { rope } from "../../src/tensor/ops/rope.ts";
import { rowLogSumExp } from "../../src/tensor/ops/row_log_sum_exp.ts";
import { type Plan, plan, Program } from "../../src/tensor/plan.ts";
import { gpuTest, testGpu } from "../tensor/harness.ts";

/** A kernel may move so many times the bytes that its tiling must. */
const MOST = 1.25;

const TOKENS = 70;

/** A block with the kernels of a decoder's step, at sizes that no tile divides. */
function traceStep(graph: Graph): void {
  const want = (...tensors: (Tensor | undefined)[]) =>
    tensors.forEach((t) => t && graph.output(`y${graph.outputs.size}`, t));
  const f32 = (name: string, ...shape: number[]) => graph.input(name, shape, "f32");
  const i32 = (name: string) => graph.input(name, [TOKENS], "i32");
  const [q, k, v] = [f32("q", TOKENS, 40), f32("k", TOKENS, 20), f32("v", TOKENS, 20)];
  const ranges = { start: i32("start"), end: i32("end") };
  const y = attention(q, k, v, ranges, { heads: 2, keyValueHeads: 1, headDim: 20, scale: 1 });
  want(y, ...gradients(graph, [[y, f32("dy", TOKENS, 40)]], [q, k, v]));

  // Four sequences, each with 128 keys in a cache.
  const [one, keys, values] = [f32("one", 4, 40), f32("keys", 512, 20), f32("values", 512, 20)];
  const own = { start: graph.input("first", [4], "i32"), end: graph.input("last", [4], "i32") };
  want(attention(one, keys, values, own, { heads: 2, keyValueHeads: 1, headDim: 20, scale: 1, apart: true }));

  const x = f32("x", TOKENS, 124);
  const weight = graph.input("w", [124], "f32");
  const dx = f32("dx", TOKENS, 124);
  for (const normed of [rmsNorm(x, weight, 1e-5), layerNorm(x, weight, weight, 1e-5)]) {
    want(normed, ...gradients(graph, [[normed, dx]], [x, weight]));
  }
  const wide = f32("wide", 3, 8200);
  want(rmsNorm(wide, graph.input("wide weight", [8200], "f32"), 1e-5), rowLogSumExp(wide));
  want(addRow(x, graph.weight("row", [124], "f16")), gatedSilu(x, dx));
  want(embedding(graph.weight("table", [300, 124], "bf16"), i32("position")));
  want(rope(q, i32("position"), f32("angles", 128, 20), 2, 20));
  want(pointwise([x, weight, f32("column", TOKENS, 1)], (a, b, c) => a!.mul(b!).add(c!)));
  want(linear(f32("rows", 94, 124), graph.weight("linear", [62, 124], "f32")));
  const flat = ["p", "g", "m", "v2"].map((name) => graph.state(name, [5000], "f32"));
  const [p, g, m, v2] = flat as [Tensor, Tensor, Tensor, Tensor];
  adamw(p, g, m, v2, gradientNorm(g), {
    ...{ beta1: 0.9, beta2: 0.999, epsilon: 1e-8, clip: 1, first: 0, count: 5000, weightDecay: 0 },
  });
}

function stepPlan(device: DeviceDescription): Plan {
  const program = new Program();
  traceStep(program.block("step"));
  return plan(program, device);
}

function fill(executable: Executable): void {
  const counting = Int32Array.from({ length: TOKENS }, (_, i) => i);
  executable.write("start", new Int32Array(TOKENS));
  executable.write("end", counting.map((i) => i + 1));
  executable.write("position", counting);
  executable.write("first", Int32Array.of(0, 128, 256, 384));
  executable.write("last", Int32Array.of(128, 256, 384, 512));
}

function assertMoves(counted: readonly Counted[]): void {
  const wrong = counted.filter(({ dispatch, bytes }) => {
    const ratio = bytes / dispatch.traffic;
    return !(ratio > 0.8 && ratio <= MOST);
  });
  const lines = wrong.map(({ dispatch, bytes, byBinding }) =>
    `${dispatch.kernel} moves ${bytes} bytes, not ${dispatch.traffic}: ${
      [...byBinding].map((b) => b.join(" ")).join(", ")
    }`
  );
  assertEquals(lines, []);
}

gpuTest("kernels move the bytes that their plan says", async (gpu) => {
  assertMoves(await countAccesses(gpu, stepPlan(gpu.description), "step", fill));
});

Deno.test({
  name: "a kernel that reads what it has read is noticed",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const program = new Program();
    const graph = program.block("step");
    const [x, y] = ["x", "y"].map((name) => graph.input(name, [9, 64], "f32"));
    graph.output("out", gatedSilu(x!, y!));
    const gpu = await testGpu("tiled");
    const planned = plan(program, gpu.description);
    assertMoves(await countAccesses(gpu, planned, "step", () => {}));
    const { dispatches, ...block } = planned.blocks.get("step")!;
    const wasteful = dispatches.map((d) => ({
      ...d,
      wgsl: d.wgsl.replaceAll("let g = gate[i];", "let g = 0.5 * (gate[i] + gate[i]);"),
    }));
    const blocks = new Map([["step", { ...block, dispatches: wasteful }]]);
    const counted = await countAccesses(gpu, { ...planned, blocks }, "step", () => {});
    assertThrows(() => assertMoves(counted), Error, "gatedSilu moves 9216 bytes, not 6912");
  },
});

Deno.test("countingKernel() counts reads within an index, and refuses what it cannot", () => {
  const kernel = `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> max: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>) { let y = x[max[2] + 1u]; max[i32(1)] = u32(y); } // x[3] is none
`;
  const counting = countingKernel(kernel);
  const calls = counting.match(/\bcounted\d\(u32/g);
  assertEquals(calls?.sort(), ["counted0(u32", "counted1(u32", "counted1(u32"]);
  assert(
    counting.includes("fn uncounted_main( group: vec3<u32>)") && counting.includes("uncounted_main(group);"),
  );
  assert(counting.includes("@binding(2) var<storage, read_write> accesses"));
  assertThrows(() => countingKernel(kernel.replace("max[2]", "u32(x[0])")), Error, "x is read to find");
});

Deno.test("what a choice says that its variants move is what their plans say", async () => {
  const software = { ...DEFAULT_DEVICE, family: "subgroup8", subgroupSize: 8 } as const;
  for (const device of [DEFAULT_DEVICE, software]) {
    const planned = await planCase("stories260K", device);
    for (const choice of planned.kernels.values()) {
      const variants = variantsOf(choice, planned.device);
      assertEquals(variants.map((v) => v.name), choice.candidates.map((c) => c.name));
      variants.forEach((v, i) => {
        const said = choice.candidates[i]!.traffic;
        assert(Math.abs(v.moved / said - 1) < 1e-9, `${choice.key}: ${v.name} moves ${v.moved}, not ${said}`);
        // A chosen kernel computes something, and moves no less than each operand once.
        assert(v.flops > 0 && v.moved > 0.99 * v.needed, `${choice.key}: ${v.name}`);
      });
    }
  }
});

Deno.test("the table of a plan has each of its dispatches once", async () => {
  const planned = await planCase("stories260K", DEFAULT_DEVICE);
  const { dispatches } = planned.blocks.get("microBatch")!;
  const kernels = byKernel(dispatches);
  const total = (get: (k: typeof kernels[number]) => number) => kernels.reduce((sum, k) => sum + get(k), 0);
  const all = (get: (d: typeof dispatches[number]) => number) =>
    dispatches.reduce((sum, d) => sum + get(d), 0);
  assertEquals(total((k) => k.dispatches), dispatches.length);
  assertEquals(total((k) => k.needed), all((d) => d.bytes));
  assert(Math.abs(total((k) => k.moved) / all((d) => d.traffic) - 1) < 1e-9);
  assert(Math.abs(total((k) => k.flops) / all((d) => d.flops) - 1) < 1e-9);
});
