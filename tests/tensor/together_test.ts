// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { planCase } from "../../bench/roofline.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { compile } from "../../src/tensor/executable.ts";
import type { Graph, Node, StepScalar, Tensor } from "../../src/tensor/graph.ts";
import { alone, join, type Launch } from "../../src/tensor/join.ts";
import { type Dispatch, MOST_TOGETHER } from "../../src/tensor/op.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { combine, scale } from "../../src/tensor/ops/combine.ts";
import { linear, matmul } from "../../src/tensor/ops/matmul.ts";
import { BEGINS } from "../../src/tensor/ops/matmul/kernels.ts";
import { part } from "../../src/tensor/ops/views.ts";
import { optimise } from "../../src/tensor/optimise.ts";
import { type Plan, plan, type PlannedDispatch, Program } from "../../src/tensor/plan.ts";
import { type Schedule, schedule } from "../../src/tensor/together.ts";
import { gpuTest, randomArray, relativeError } from "./harness.ts";

/** Three projections of one input that have only A and B, of several widths. */
interface Adapted {
  readonly tokens: number;
  readonly width: number;
  readonly rank: number;
  readonly outs: readonly number[];
}

const align = (count: number) => Math.ceil(count / 64) * 64;

/** Where A and B of each lie in one flat tensor, and how long that is. */
function layout({ width, rank, outs }: Adapted) {
  let at = 0;
  const parts = outs.map((out) => {
    const a = { first: at, shape: [rank, width] };
    const b = { first: at + align(rank * width), shape: [out, rank] };
    at = b.first + align(out * rank);
    return { a, b };
  });
  return { parts, length: at };
}

/** Forward and backward pass, in a layer or in none, which is when nothing is brought together. */
function adapted(sizes: Adapted, inLayer: boolean): Program {
  const program = new Program();
  const graph = program.block("step");
  const { parts, length } = layout(sizes);
  const [flat, sums] = ["parameters", "gradients"].map((name) => graph.state(name, [length], "f32")) as [
    Tensor,
    Tensor,
  ];
  const x = graph.input("x", [sizes.tokens, sizes.width], "f32");
  const wanted = parts.flatMap(({ a, b }) => [a, b].map(({ first, shape }) => part(flat, first, shape)));
  const trace = () => sizes.outs.map((_, i) => linear(linear(x, wanted[2 * i]!), wanted[2 * i + 1]!));
  const ys = inLayer ? graph.layer("layer", false, trace) : trace();
  const seeds = ys.map((y, i) => [y, graph.input(`dy${i}`, [sizes.tokens, sizes.outs[i]!], "f32")] as const);
  const found = gradients(graph, seeds, [x, ...wanted]);
  graph.output("dx", found[0]!);
  ys.forEach((y, i) => graph.output(`y${i}`, y));
  parts.flatMap(({ a, b }) => [a, b]).forEach(({ first, shape }, i) =>
    accumulate(part(sums, first, shape), found[i + 1]!, graph.scalar("keep"))
  );
  // Of a program as small as this one, memory kept apart would be too much.
  const other = program.block("other");
  other.output("large", scale(scale(other.input("many", [1 << 13, 1 << 10], "f32"), 2), 3));
  return program;
}

/** A storage's own numbers. */
const numbers = (name: string, count: number) =>
  randomArray(count, [...name].reduce((sum, c) => 31 * sum + c.charCodeAt(0), 7));

/** Everything that a step makes, by name, from the same numbers each time. */
async function runStep(gpu: Gpu, planned: Plan): Promise<Map<string, Float32Array>> {
  const executable = await compile(gpu, planned, { later: ["other"] });
  try {
    executable.poison();
    for (const { name, shape } of planned.storages.values()) {
      if (name === "many") continue;
      const count = shape.reduce((a, b) => a * b, 1);
      executable.write(name, numbers(name, count));
    }
    executable.setScalar("keep", 0.5);
    executable.run("step");
    const outputs = [...planned.blocks.get("step")!.outputs.keys()];
    const [made, states] = [await executable.read(outputs, "step"), await executable.read(["gradients"])];
    gpu.check();
    return new Map([...made, ...states].map(([name, { data }]) => [name, data as Float32Array]));
  } finally {
    executable.destroy();
  }
}

/** In f64: A and B's gradients, added to half of what was there. */
function expectedGradients(sizes: Adapted): Float64Array {
  const { tokens, width, rank, outs } = sizes;
  const { parts, length } = layout(sizes);
  const [flat, sums] = ["parameters", "gradients"].map((name) => numbers(name, length));
  const x = numbers("x", tokens * width);
  const result = Float64Array.from(sums!, (v) => 0.5 * v);
  parts.forEach(({ a, b }, i) => {
    const out = outs[i]!;
    const dy = numbers(`dy${i}`, tokens * out);
    for (let t = 0; t < tokens; t++) {
      for (let r = 0; r < rank; r++) {
        let [h, dh] = [0, 0];
        for (let k = 0; k < width; k++) h += x[t * width + k]! * flat![a.first + r * width + k]!;
        for (let o = 0; o < out; o++) dh += dy[t * out + o]! * flat![b.first + o * rank + r]!;
        for (let k = 0; k < width; k++) result[a.first + r * width + k]! += dh * x[t * width + k]!;
        for (let o = 0; o < out; o++) result[b.first + o * rank + r]! += dy[t * out + o]! * h;
      }
    }
  });
  return result;
}

const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);
const dispatchesOf = (planned: Plan) => planned.blocks.get("step")!.dispatches;
const isJoined = ({ kernel }: PlannedDispatch) => kernel.endsWith(", several");

/** Sizes in whole vectors for kernels of subgroups; for the others sizes that nothing divides, and a depth that is split. */
const SIZES = {
  subgroup8: { tokens: 36, width: 20, rank: 4, outs: [24, 20, 40] },
  tiled: { tokens: 1030, width: 21, rank: 3, outs: [25, 13, 17] },
} as const satisfies Record<string, Adapted>;

gpuTest(
  "products made together are those made alone, bit for bit, in fewer dispatches",
  async (gpu, family) => {
    const sizes = SIZES[family];
    const [apart, together] = [false, true].map((inLayer) =>
      plan(adapted(sizes, inLayer), gpu.description)
    ) as [
      Plan,
      Plan,
    ];
    const [expected, actual] = [await runStep(gpu, apart), await runStep(gpu, together)];
    for (const [name, values] of expected) assertEquals(bits(actual.get(name)!), bits(values), name);
    const trained = layout(sizes).parts.flatMap(({ a, b }) => [a, b]);
    const reference = expectedGradients(sizes);
    for (const { first, shape: [rows, columns] } of trained) {
      const [from, to] = [first, first + rows! * columns!];
      const error = relativeError(actual.get("gradients")!.slice(from, to), reference.slice(from, to));
      assert(error < 1e-5, `the gradient at ${first} is off by ${error}`);
    }
    // h, dh, dA and dB of all three, and the parts of the last two where K is split.
    const joined = dispatchesOf(together).filter(isJoined).map(({ groups }) => groups[2]);
    assertEquals(joined, new Array(family === "tiled" ? 6 : 4).fill(3));
    assertEquals(dispatchesOf(together).length, dispatchesOf(apart).length - 2 * joined.length);
    assertEquals(dispatchesOf(apart).filter(isJoined), []);
  },
);

gpuTest("a member of a launch that begins elsewhere does not pass", async (gpu, family) => {
  const planned = plan(adapted(SIZES[family], true), gpu.description);
  const expected = await runStep(gpu, planned);
  const words = dispatchesOf(planned).filter(isJoined)
    .flatMap(({ kernel, sizeOffset }) => {
      const begins = kernel.startsWith("matmul parts") ? [BEGINS.x, BEGINS.out] : Object.values(BEGINS);
      return begins.map((word) => sizeOffset / 4 + 20 + word);
    });
  assert(words.length >= 12);
  for (const word of words) {
    const sizeWords = planned.sizeWords.slice();
    sizeWords[word] = sizeWords[word] === 0 ? 64 : 0;
    const mistaken = await runStep(gpu, { ...planned, sizeWords });
    const noticed = [...expected].some(([name, values]) =>
      bits(mistaken.get(name)!).some((bit, i) => bit !== bits(values)[i])
    );
    assert(noticed, `size word ${word} of a second member`);
  }
});

const SMALL = [16, 8] as const;

/** The order of a block traced by `trace`, in a program with so many bytes of room. */
function scheduled(trace: (graph: Graph) => void, room = 1 << 24): Schedule {
  const program = new Program();
  const graph = program.block("block");
  trace(graph);
  const other = program.block("other");
  const large = other.input("large", [room / 4], "f32");
  other.output("large", scale(large, 2));
  const blocks = program.blocks.map((graph) => ({ graph, nodes: optimise(graph) }));
  const [made] = schedule(blocks);
  assertPossible(made!, blocks[0]!.nodes);
  return made!;
}

/** Each node once, after all that it needs. */
function assertPossible({ order }: Schedule, nodes: readonly Node[]): void {
  const place = new Map(order.flatMap((together, i) => together.map((node) => [node, i] as const)));
  assertEquals(place.size, nodes.length);
  const madeAt = new Map(nodes.flatMap((node) => node.outputs.map((t) => [t, place.get(node)!] as const)));
  for (const node of nodes) {
    for (const t of node.inputs) {
      assert((madeAt.get(t) ?? -1) < place.get(node)!, `${node.op.name} comes too early`);
    }
  }
}

const sizesOf = ({ order }: Schedule) => order.map((together) => together.length).filter((n) => n > 1);

Deno.test("schedule() brings together what needs nothing of each other, in a layer, and no more than a launch takes", () => {
  const siblings = (count: number, inLayer = true) => (graph: Graph) => {
    const x = graph.input("x", SMALL, "f32");
    const trace = () =>
      Array.from(
        { length: count },
        (_, i) => graph.output(`${i}`, linear(x, graph.state(`w${i}`, [4, 8], "f32"))),
      );
    if (inLayer) graph.layer("layer", false, trace);
    else trace();
  };
  assertEquals(sizesOf(scheduled(siblings(3))), [3]);
  assertEquals(sizesOf(scheduled(siblings(MOST_TOGETHER + 2))), [MOST_TOGETHER, 2]);
  assertEquals(sizesOf(scheduled(siblings(3, false))), []);
  // One after the other.
  const chain = scheduled((graph) =>
    graph.layer("layer", false, () => {
      const w = graph.state("w", [8, 8], "f32");
      graph.output("y", linear(linear(linear(graph.input("x", SMALL, "f32"), w), w), w));
    })
  );
  assertEquals([sizesOf(chain), chain.apart.size], [[], 0]);
});

Deno.test("schedule() keeps to layers that may be left out, and moves nothing past a write to what it reads", () => {
  const gated = scheduled((graph) => {
    const x = graph.input("x", SMALL, "f32");
    const gate = (name: string): StepScalar => graph.scalar(name);
    for (const name of ["a", "b"]) {
      graph.layer(name, false, () => {
        for (const i of [0, 1]) graph.output(name + i, linear(x, graph.state(name + i, [4, 8], "f32")));
      }, gate(name));
    }
  });
  assertEquals(sizesOf(gated), [2, 2]);
  assert(gated.order.every((together) => new Set(together.map((node) => node.layer)).size === 1));

  const written = scheduled((graph) =>
    graph.layer("layer", false, () => {
      const [x, w] = [graph.input("x", SMALL, "f32"), graph.state("w", [4, 8], "f32")];
      graph.output("before", linear(x, w));
      accumulate(w, graph.input("more", [4, 8], "f32"), 1);
      graph.output("after", linear(x, w));
    })
  );
  assertEquals(written.order.map(([node]) => node!.op.name), ["matmul", "accumulate", "matmul"]);
});

Deno.test("schedule() puts nothing off that would need more memory", () => {
  // Three small products of large tensors, each of which the next is made of.
  const large = (graph: Graph) =>
    graph.layer("layer", false, () => {
      const few = graph.input("few", [1024, 4], "f32");
      let y = graph.input("x", [1024, 256], "f32");
      for (const i of [0, 1, 2]) {
        y = combine([y, graph.input(`x${i}`, [1024, 256], "f32")], [1, 2]);
        graph.output(`${i}`, matmul("TN", y, few));
      }
    });
  const bytes = 4 * 1024 * 256;
  assertEquals(sizesOf(scheduled(large, 4 * bytes)), [3]);
  assertEquals(sizesOf(scheduled(large, 2.5 * bytes)), [2]);
  assertEquals(sizesOf(scheduled(large, bytes)), [2]);
});

Deno.test("schedule() keeps apart only what lies apart anyway, where more would take more memory", () => {
  const step = (graph: Graph) => {
    const x = graph.input("x", [64, 8], "f32");
    graph.layer("layer", false, () => {
      for (const i of [0, 1, 2]) {
        const h = linear(x, graph.state(`w${i}`, [4, 8], "f32"));
        accumulate(graph.state(`dw${i}`, [4, 8], "f32"), matmul("TN", h, x), 1);
        graph.output(`y${i}`, scale(h, 2));
      }
    });
  };
  const madeTogether = ({ order }: Schedule) =>
    order.filter((together) => together.length > 1).map((together) => together.map((node) => node.op.name));
  const sums = ["matmulAccumulate", "matmulAccumulate", "matmulAccumulate"];
  const all = scheduled(step);
  assertEquals(madeTogether(all), [["matmul", "matmul", "matmul"], sums]);
  // Nothing else takes memory, and what three products make lives longer than they would have to one by one.
  const few = scheduled(step, 4);
  assertEquals(madeTogether(few), [sums]);
  assertEquals([...few.apart].map((node) => node.op.name), sums);
});

Deno.test("join() makes one launch of those that one binding reaches, and of no others", () => {
  const wgsl = `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;`;
  const dispatch = (more: Partial<Dispatch> = {}): Dispatch => ({
    ...{ kernel: "k", wgsl, tensors: [], size: [7, 0, 0, 0], groups: [2, 1, 1], begins: [1, 2], flops: 5 },
    ...more,
  });
  const launch = (x: number, out: number, more: Partial<Dispatch> = {}, buffers = [0, 1]): Launch =>
    alone(dispatch(more), [x, out].map((offset, i) => ({ buffer: buffers[i]!, offset, bytes: 256 })));
  const device = { ...DEFAULT_DEVICE, maxBindingSize: 4096 };
  const first = launch(1024, 0);

  const joined = join([first, launch(512, 256, { groups: [5, 1, 1] })], device)!;
  assertEquals(joined.bindings.map(({ offset, bytes }) => [offset, bytes]), [[512, 768], [0, 512]]);
  assertEquals(joined.dispatch.size, [7, 128, 0, 0, 7, 0, 64, 0]);
  assertEquals([joined.dispatch.groups, joined.dispatch.flops, joined.bytes], [[5, 1, 2], 10, 1024]);
  assertEquals(joined.dispatch.kernel, "k, several");

  const { begins: _, ...stands } = dispatch();
  const refused: Record<string, Launch> = {
    "another text": launch(0, 256, { wgsl: `${wgsl} ` }),
    "another buffer": launch(0, 256, {}, [2, 1]),
    "what lies too far away": launch(8192, 256),
    "one output": launch(0, 0),
    "what stands alone": { ...first, dispatch: stands },
  };
  for (const [what, other] of Object.entries(refused)) {
    assertEquals(join([first, other], device), undefined, what);
  }
  // What both read would be bound around what both write.
  assertEquals(join([launch(0, 512, {}, [1, 1]), launch(1024, 768, {}, [1, 1])], device), undefined);
  const shared = (x: number) => launch(x, x, { begins: [undefined, 2] });
  assertEquals(join([shared(0), shared(256)], device), undefined, "an operand that all should share");
  assertEquals(join([first], device), undefined);
});

Deno.test("a layer's products of A and B are a few dispatches of a training step", async () => {
  const software = { ...DEFAULT_DEVICE, family: "subgroup8", subgroupSize: 8 } as const;
  for (const device of [DEFAULT_DEVICE, software]) {
    const { blocks } = await planCase("stories260K", device);
    const dispatches = blocks.get("microBatch")!.dispatches;
    const members = (orientation: string) =>
      dispatches.filter((d) => d.kernel.startsWith(`matmul ${orientation} f32`) && isJoined(d))
        .map(({ groups }) => groups[2]).toSorted();
    // Four layers: dA and dB of all seven projections, and where several read one input what leads to them, back and forth.
    assertEquals(members("TN"), new Array(8).fill(7));
    assertEquals(dispatches.filter((d) => d.kernel.startsWith("matmul TN")).length, 8);
    for (const orientation of ["NT", "NN"]) assertEquals(members(orientation), [2, 2, 2, 2, 3, 3, 3, 3]);
  }
});
