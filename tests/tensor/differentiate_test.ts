// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { compile } from "../../src/tensor/executable.ts";
import { type Graph, type Tensor } from "../../src/tensor/graph.ts";
import { attention } from "../../src/tensor/ops/attention.ts";
import { gatherRows } from "../../src/tensor/ops/cache.ts";
import { add } from "../../src/tensor/ops/combine.ts";
import { dropout } from "../../src/tensor/ops/dropout.ts";
import { gatedSilu } from "../../src/tensor/ops/gated.ts";
import { linear } from "../../src/tensor/ops/matmul.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, randomArray } from "./harness.ts";

function block(): Graph {
  const program = new Program();
  return program.block("main");
}

const opNames = (graph: Graph, from = 0) => graph.nodes.slice(from).map((node) => node.op.name);

Deno.test("gradients() follows only the paths that lead to what is wanted", () => {
  const graph = block();
  const x = graph.input("x", [8, 16], "f32");
  const frozen = graph.weight("frozen", [16, 16], "bf16");
  const trained = graph.state("trained", [16, 16], "f32");
  const elsewhere = graph.state("elsewhere", [16, 16], "f32");
  const before = linear(x, frozen);
  const y = linear(gatedSilu(before, linear(before, trained)), frozen);
  linear(x, elsewhere);
  const forward = graph.nodes.length;
  const [dTrained, dElsewhere] = gradients(graph, [[y, graph.input("dy", [8, 16], "f32")]], [
    trained,
    elsewhere,
  ]);
  assertEquals(dTrained!.shape, [16, 16]);
  assertEquals(dElsewhere, undefined);
  // Back through the frozen layer to the activation, and once to the weight: nothing before it, no frozen weight.
  assertEquals(opNames(graph, forward), ["matmul", "gatedSiluBackward", "matmul"]);
  const orientations = graph.nodes.slice(forward).map((n) =>
    (n.attributes as { orientation?: string })?.orientation
  );
  assertEquals(orientations, ["NN", undefined, "TN"]);
});

Deno.test("gradients() adds what arrives at a tensor from several uses, and takes several objectives", () => {
  const graph = block();
  const w = graph.state("w", [4, 4], "f32");
  const [x, dy, dz] = ["x", "dy", "dz"].map((name) => graph.input(name, [4, 4], "f32")) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const y = linear(x, w);
  const z = linear(y, w);
  const forward = graph.nodes.length;
  gradients(graph, [[y, dy], [z, dz]], [w]);
  assertEquals(opNames(graph, forward).toSorted(), ["combine", "combine", "matmul", "matmul", "matmul"]);
  assertThrows(
    () => gradients(graph, [[y, graph.input("wrong", [4, 5], "f32")]], [w]),
    ShapeError,
    'the gradient of f32[4, 4] has another shape: f32[4, 5] "wrong"',
  );
});

Deno.test("gradients() names an op without a gradient rule that stands between objective and parameter", () => {
  for (const tail of [(t: Tensor) => t, (t: Tensor) => gatedSilu(t, t)]) {
    const graph = block();
    const w = graph.state("w", [16, 16], "f32");
    const x = linear(graph.input("x", [8, 16], "f32"), w);
    const some = graph.within("student", () => gatherRows(x, graph.input("rows", [4], "i32")));
    const seeds = [[tail(some), graph.input("dy", [4, 16], "f32")]] as const;
    const error = assertThrows(() => gradients(graph, seeds, [w]), ShapeError);
    assertMatch(
      error.message,
      /gatherRows at student has no gradient, but a trainable tensor lies behind it/,
    );
    // Nothing trainable behind it: nothing to complain about.
    assertEquals(gradients(graph, seeds, [graph.state("unused", [2], "f32")]), [undefined]);
  }
});

const [T, H] = [40, 32];
const LAYERS = 3;

/** A small residual network of attention and gated units with dropout, its parameters, and a gradient for its result. */
function network(recompute: boolean): Program {
  const program = new Program();
  const graph = program.block("step");
  const ranges = { start: graph.input("start", [T], "i32"), end: graph.input("end", [T], "i32") };
  const heads = { heads: 2, keyValueHeads: 2, headDim: H / 2, scale: 0.25 };
  const parameters: Tensor[] = [];
  let x = graph.input("x", [T, H], "f32");
  for (let l = 0; l < LAYERS; l++) {
    const weight = (name: string) => {
      const w = graph.state(`${l}.${name}`, [H, H], "f32");
      parameters.push(w);
      return w;
    };
    x = graph.layer(`layers.${l}`, recompute, () => {
      const h = rmsNorm(x, graph.weight(`${l}.norm`, [H], "f32"), 1e-5);
      const [q, k, v] = ["q", "k", "v"].map((name) => linear(h, weight(name))) as [Tensor, Tensor, Tensor];
      const attended = add(x, attention(q, k, v, ranges, heads));
      const thinned = dropout(attended, { rate: 0.25, site: l, key: graph.scalar("key") });
      return add(attended, gatedSilu(linear(thinned, weight("gate")), linear(thinned, weight("up"))));
    });
  }
  const found = gradients(graph, [[x, graph.input("dy", [T, H], "f32")]], parameters);
  graph.output("y", x);
  found.forEach((g, i) => graph.output(`gradient ${i}`, g!));
  return program;
}

/** All outputs of the network, and the most bytes of intermediates alive at once. */
async function runNetwork(gpu: Gpu, recompute: boolean) {
  const planned = plan(network(recompute), gpu.description);
  const executable = await compile(gpu, planned);
  try {
    executable.poison();
    let seed = 1;
    for (const { name, kind, shape, dtype } of planned.storages.values()) {
      if (kind === "input" && dtype === "i32") continue;
      executable.write(
        name,
        randomArray(shape.reduce((a, b) => a * b, 1), seed++, name.includes(".") ? 0.3 : 1),
      );
    }
    executable.write("start", Int32Array.from({ length: T }, (_, i) => (i < 24 ? 0 : 24)));
    executable.write("end", Int32Array.from({ length: T }, (_, i) => i + 1));
    executable.setScalarWord("key", 12345);
    executable.run("step");
    const { outputs, liveBytes } = planned.blocks.get("step")!;
    const back = await executable.read([...outputs.keys()], "step");
    gpu.check();
    return { values: new Map([...back].map(([name, r]) => [name, r.data as Float32Array])), liveBytes };
  } finally {
    executable.destroy();
  }
}

gpuTest("recomputed layers give the same gradients bit for bit, in less memory", async (gpu) => {
  const kept = await runNetwork(gpu, false);
  const recomputed = await runNetwork(gpu, true);
  assertEquals([...recomputed.values.keys()], [...kept.values.keys()]);
  assertEquals(kept.values.size, 1 + 5 * LAYERS);
  for (const [name, values] of kept.values) {
    assert(values.some((v) => v !== 0) && values.every(Number.isFinite), `${name} has been computed`);
    assertEquals(new Uint32Array(recomputed.values.get(name)!.buffer), new Uint32Array(values.buffer), name);
  }
  assert(
    recomputed.liveBytes < 0.75 * kept.liveBytes,
    `${recomputed.liveBytes} bytes with, ${kept.liveBytes} without recomputation`,
  );
});

gpuTest("gradients of the network agree with finite differences of its result", async (gpu) => {
  const program = network(false);
  const executable = await compile(gpu, plan(program, gpu.description));
  try {
    const count = H * H;
    const direction = randomArray(count, 99);
    const base = randomArray(count, 7, 0.3);
    const dy = randomArray(T * H, 8);
    let seed = 20;
    for (const { name, shape, dtype } of executable.plan.storages.values()) {
      if (dtype === "f32") executable.write(name, randomArray(shape.reduce((a, b) => a * b, 1), seed++, 0.3));
    }
    executable.write("start", new Int32Array(T));
    executable.write("end", Int32Array.from({ length: T }, (_, i) => i + 1));
    executable.write("dy", dy);
    const at = async (step: number) => {
      executable.write("0.gate", base.map((w, i) => w + step * direction[i]!));
      executable.run("step");
      const back = await executable.read(["y", "gradient 3"], "step");
      const [y, gradient] = ["y", "gradient 3"].map((name) => back.get(name)!.data as Float32Array);
      return { objective: y!.reduce((sum, v, i) => sum + v * dy[i]!, 0), gradient: gradient! };
    };
    const epsilon = 1e-2;
    const [above, below, here] = [await at(epsilon), await at(-epsilon), await at(0)];
    const slope = here.gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
    const difference = (above.objective - below.objective) / (2 * epsilon);
    assertWithin([slope], [difference], 2e-3 * Math.max(1, Math.abs(difference)), "directional derivative");
    assert(Math.abs(slope) > 0.05, `a slope of ${slope} tells nothing`);
  } finally {
    executable.destroy();
  }
});
