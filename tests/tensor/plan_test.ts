// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { DeviceError, ShapeError } from "../../src/base/errors.ts";
import { accessVariant, parseBindings } from "../../src/gpu/bindings.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import { type DType, type Graph, type Tensor } from "../../src/tensor/graph.ts";
import { type Dispatch, type Op, type Window } from "../../src/tensor/op.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { gatherRows, scatterRows } from "../../src/tensor/ops/cache.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { gatedSilu } from "../../src/tensor/ops/gated.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { part, reshape, rows } from "../../src/tensor/ops/views.ts";
import { type Plan, plan, Program } from "../../src/tensor/plan.ts";
import { syntheticModel } from "../kernels/models.ts";
import { trainingPlans } from "../kernels/programs.ts";

function planned(
  trace: (graph: Graph) => Record<string, Tensor> | void,
  device: Partial<DeviceDescription> = {},
): Plan {
  const program = new Program();
  const graph = program.block("main");
  for (const [name, tensor] of Object.entries(trace(graph) ?? {})) graph.output(name, tensor);
  return plan(program, { ...DEFAULT_DEVICE, ...device });
}

/** Buffer, offset and bytes of each output of the block. */
function ranges(p: Plan): Record<string, [number, number, number]> {
  const { outputs } = p.blocks.get("main")!;
  return Object.fromEntries([...outputs].map(([name, r]) => [name, [r.buffer, r.offset, r.bytes]]));
}

const dispatches = (p: Plan) => p.blocks.get("main")!.dispatches;

Deno.test("plan() places views in the memory of what they show, at their offset", () => {
  const { x, low, flat, inner, weights, slice } = ranges(planned((graph) => {
    const x = gatedSilu(graph.input("a", [128, 64], "f32"), graph.input("b", [128, 64], "f32"));
    const weights = graph.state("weights", [1024], "f32");
    const low = rows(x, 64, 64);
    const flat = reshape(low, [4096]);
    return { x, low, flat, inner: part(flat, 128, [2, 64]), weights, slice: part(weights, 64, [8, 8]) };
  }));
  const [buffer, offset] = x!;
  assertEquals(low, [buffer, offset + 64 * 64 * 4, 64 * 64 * 4]);
  assertEquals(flat, low);
  assertEquals(inner, [buffer, offset + 64 * 64 * 4 + 512, 512]);
  assertEquals([weights![1], weights![2]], [0, 4096]);
  assertEquals(slice, [weights![0], 256, 256]);
});

Deno.test("plan() binds a tensor once that a kernel reads twice beside an output in its buffer", () => {
  const last = (p: Plan) => {
    const { wgsl, writable, bindings } = dispatches(p).at(-1)!;
    const declared = parseBindings(accessVariant(wgsl, writable)).filter(({ group }) => group === 0);
    return declared.map(({ binding, kind }) => `${kind} ${bindings[binding]!.offset}`);
  };
  // Deno's WebGPU takes writable bindings that overlap; the standard does not.
  const twice = last(planned((graph) => {
    const x = scale(graph.input("x", [8, 64], "f32"), 2);
    return { y: gatedSilu(x, x) };
  }));
  assertEquals(new Set(twice).size, twice.length);
  const two = last(planned((graph) => {
    const [a, b] = [2, 3].map((factor) => scale(graph.input(`x${factor}`, [8, 64], "f32"), factor));
    return { y: gatedSilu(a!, b!) };
  }));
  assertEquals([new Set(two).size, two.length, twice.length], [3, 3, 2]);
});

Deno.test("plan() keeps what a view shows alive until the view's last use", () => {
  const p = planned((graph) => {
    const x = graph.input("x", [128, 64], "f32");
    const view = rows(scale(x, 2), 64, 64);
    const others = [3, 4, 5].map((factor) => scale(x, factor));
    return { y: add(view, rows(others.reduce(add), 0, 64)) };
  });
  const [first] = dispatches(p);
  const made = first!.bindings.at(-1)!;
  for (const later of dispatches(p).slice(1, -1)) {
    const written = later.bindings.at(-1)!;
    const apart = written.buffer !== made.buffer || written.offset >= made.offset + made.bytes ||
      made.offset >= written.offset + written.bytes;
    assert(apart, `${later.kernel} writes into memory that a view still shows`);
  }
});

Deno.test("plan() updates states in place", () => {
  const p = planned((graph) => {
    const sum = graph.state("sum", [4, 64], "f32");
    const cache = graph.state("cache", [8, 64], "f32");
    const x = graph.input("x", [4, 64], "f32");
    return {
      sum: accumulate(sum, x, graph.scalar("keep")),
      cache: scatterRows(cache, x, graph.input("slots", [4], "i32")),
    };
  });
  for (const name of ["sum", "cache"]) {
    const { buffer, offset, bytes } = p.storages.get(name)!;
    assertEquals(ranges(p)[name], [buffer, offset, bytes]);
    assertEquals(p.buffers[buffer]!.label, name);
  }
});

Deno.test("plan() puts all inputs into one buffer and gives each weight and state its own", () => {
  const p = planned((graph) => {
    const [a, b] = [graph.input("a", [3, 5], "f32"), graph.input("b", [3, 5], "f32")];
    const index = graph.input("index", [70], "i32");
    graph.weight("w", [9], "bf16");
    return { y: add(add(a, b), graph.state("s", [3, 5], "f32")), index };
  });
  const at = (name: string) => p.storages.get(name)!;
  assertEquals([at("a"), at("b"), at("index")].map((r) => [r.buffer, r.offset, r.bytes]), [
    [at("a").buffer, 0, 64],
    [at("a").buffer, 256, 64],
    [at("a").buffer, 512, 288],
  ]);
  assertEquals(p.buffers[at("a").buffer]!.bytes, 512 + 512);
  assertEquals(new Set([at("a").buffer, at("w").buffer, at("s").buffer]).size, 3);
  // 18 bytes, padded to whole vectors.
  assertEquals(p.buffers[at("w").buffer]!.bytes, 32);
});

Deno.test("plan() says what it allocates: totals and categories are sums of the buffers, arenas serve every block", () => {
  const program = new Program();
  const chain = (name: string, width: number) => {
    const graph = program.block(name);
    const x = graph.input(`${name}.x`, [64, width], "f32");
    graph.output("y", gatedSilu(gatedSilu(x, x), x));
  };
  chain("wide", 640);
  chain("narrow", 64);
  const p = plan(program, DEFAULT_DEVICE);
  assertEquals(p.totalBytes, p.buffers.reduce((sum, b) => sum + b.bytes, 0));
  for (const [category, bytes] of p.bytesByCategory) {
    assertEquals(
      bytes,
      p.buffers.filter((b) => b.category === category).reduce((sum, b) => sum + b.bytes, 0),
    );
  }
  assertEquals([...p.bytesByCategory.values()].reduce((a, b) => a + b, 0), p.totalBytes);
  // The larger block's need, not the sum of both.
  assertEquals(p.bytesByCategory.get("activations"), 2 * 64 * 640 * 4);
  assertEquals(p.blocks.get("narrow")!.liveBytes, 2 * 64 * 64 * 4);
  assertThrows(() => chain("wide", 64), ShapeError, 'two blocks are named "wide"');
});

Deno.test("plan() stays within 1 % of what lives at once in training programs", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const sizes = { headDim: 48, heads: 6, keyValueHeads: 2, hidden: 288, intermediate: 768 };
    for (const layers of [1, 3]) {
      const model = await syntheticModel(`${folder}/${layers}`, {
        ...sizes,
        layers,
        dtype: "f16",
        vocabulary: 2048,
        tied: true,
      });
      for (const p of trainingPlans(model, DEFAULT_DEVICE)) {
        const live = Math.max(...[...p.blocks.values()].map((b) => b.liveBytes));
        const bytes = p.bytesByCategory.get("activations")!;
        assert(bytes >= live && bytes <= 1.01 * live, `${bytes} bytes for ${live} that live at once`);
      }
      model.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("plan() makes a read binding writable exactly where the dispatch writes to the same buffer", () => {
  const p = planned((graph) => {
    const x = scale(graph.input("x", [64, 64], "f32"), 2);
    return { y: gatedSilu(x, graph.input("gate", [64, 64], "f32")) };
  });
  const [first, second] = dispatches(p);
  // Inputs lie in another buffer than intermediates; x and y share an arena.
  assertEquals([...first!.writable], []);
  assertEquals([...second!.writable], [0]);
  const [x, gate, y] = second!.bindings;
  assertEquals(x!.buffer, y!.buffer);
  assert(gate!.buffer !== y!.buffer);
});

Deno.test("plan() makes the same bindings writable for every use of a kernel on a software device, of floats that do not overlap", () => {
  const p = planned((graph) => {
    const [x, table] = [graph.input("x", [4, 4], "f32"), graph.input("table", [4, 4], "f32")];
    const once = gatedSilu(x, table);
    const chosen = gatherRows(table, graph.input("positions", [3], "i32"));
    return { once, twice: gatedSilu(once, table), square: matmul("NT", x, x), chosen };
  });
  const found = dispatches(p).map(({ kernel, writable, writableTogether }) =>
    [kernel.split(" ")[0]!, [...writable], [...writableTogether]] as const
  );
  const of = (kernel: string) => found.filter(([name]) => name === kernel).map(([, ...sets]) => sets);
  assertEquals(of("gatedSilu"), [[[], [0, 1]], [[0], [0, 1]]]);
  // x twice in one buffer, which may be bound so only where it is read; what stands for an absent addend lies elsewhere.
  const [[exact, together]] = of("matmul") as [[number[], number[]]];
  assertEquals([exact, together.includes(0), together.includes(1)], [[], false, false]);
  // Which rows, and the rows: integers and floats in one buffer.
  assertEquals(of("gatherRows"), [[[], []]]);
});

Deno.test("plan() stores equal size structs once, each at a multiple of 256 bytes", () => {
  const p = planned((graph) => {
    const x = graph.input("x", [64, 64], "f32");
    const [a, b] = [gatedSilu(x, x), gatedSilu(x, x)];
    return { a, b, c: gatedSilu(rows(a, 0, 32), rows(b, 0, 32)) };
  });
  const [a, b, c] = dispatches(p).map((d) => d.sizeOffset);
  assertEquals([a, b, c], [0, 0, 256]);
  assertEquals(p.sizeWords.byteLength, 512);
  assertEquals([...p.sizeWords.subarray(0, 2)], [1024, 4]);
});

Deno.test("plan() refuses a binding larger than the device allows, with the path and the numbers", () => {
  const large = (graph: Graph) => {
    const x = graph.input("x", [64, 64], "f32");
    const y = graph.within("student", () => graph.within("layers.3", () => gatedSilu(x, x)));
    return { y };
  };
  planned(large, { maxBindingSize: 16_384 });
  const error = assertThrows(() => planned(large, { maxBindingSize: 16_383 }), DeviceError);
  assertMatch(error.message, /kernel gatedSilu at student\/layers\.3: f32\[64, 64\] "x"/);
  assertMatch(error.message, /16384 bytes; this device allows 16383/);
  assertMatch(error.hint ?? "", /train\.tokensPerMicroBatch or train\.headChunk/);
});

Deno.test("plan() refuses what is larger than a buffer may be, or binds more buffers than allowed", () => {
  assertThrows(
    () => planned((graph) => ({ w: graph.weight("w", [64, 64], "f16") }), { maxBufferSize: 8191 }),
    DeviceError,
    'f16[64, 64] "w" needs 8192 bytes; this device allows 8191 in one buffer',
  );
  const wide = (graph: Graph) => ({
    y: graph.within("mlp", () => scale(reshape(graph.input("x", [64], "f32"), [64]), 2)),
  });
  assertThrows(
    () => planned(wide, { maxStorageBuffers: 1 }),
    DeviceError,
    "kernel combine 1 at mlp binds 2 buffers",
  );
  assertThrows(
    () => planned((graph) => ({ y: scale(graph.input("x", [4096], "f32"), 2) }), { maxBufferSize: 16_383 }),
    DeviceError,
    "f32[4096] takes 16384 bytes; a buffer of this device holds at most",
  );
});

/** An op that launches what the test says. */
function opThat(launch: (x: Tensor, y: Tensor) => Partial<Dispatch>, mutates = false): Op<null> {
  return {
    name: "planted",
    ...(mutates ? { mutates, alias: () => ({ input: 0, byteOffset: 0 }) } : {}),
    infer: ([x]) => [{ shape: x!.shape, dtype: x!.dtype as DType }],
    lower: ({ inputs, outputs, dispatch }) =>
      dispatch({
        kernel: "planted",
        wgsl: `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;`,
        tensors: [inputs[0]!, outputs[0]!],
        size: [],
        groups: [1, 1, 1],
        ...launch(inputs[0]!, outputs[0]!),
      }),
  };
}

function plannedOp(op: Op<null>): Plan {
  return planned((graph) => ({ y: graph.add(op, [graph.state("x", [256], "f32")], null)[0]! }));
}

Deno.test("plan() refuses a dispatch that writes into memory it also reads", () => {
  const overlap = "kernel planted at : bindings 1 and 0 overlap and one is written; this is a bug";
  assertThrows(() => plannedOp(opThat(() => ({}), true)), ShapeError, overlap);
  const windows = (read: number, write: number) =>
    opThat((x, y) => {
      const window = (tensor: Tensor, byteOffset: number): Window => ({
        tensor,
        byteOffset,
        byteLength: 512,
      });
      return { tensors: [window(x, read), window(y, write)] };
    }, true);
  assertThrows(() => plannedOp(windows(0, 256)), ShapeError, overlap);
  // Two halves of one state lie apart.
  assertEquals([...dispatches(plannedOp(windows(0, 512)))[0]!.writable], [0]);
});

Deno.test("plan() refuses a dispatch with a wrong number of tensors, a misaligned window or an impossible grid", () => {
  const refuses = (launch: Parameters<typeof opThat>[0], message: string) =>
    assertThrows(() => plannedOp(opThat(launch)), ShapeError, message);
  refuses((x) => ({ tensors: [x] }), "declares 2 storage bindings, 1 tensors are given");
  refuses(
    (x, y) => ({ tensors: [{ tensor: x, byteOffset: 16, byteLength: 64 }, y] }),
    "binding 0 begins at byte 16, which is not a multiple of 256",
  );
  refuses(() => ({ groups: [65_536, 1, 1] }), "a grid of 65536 x 1 x 1 workgroups is not possible");
  refuses(() => ({ groups: [0, 1, 1] }), "a grid of 0 x 1 x 1");
});
