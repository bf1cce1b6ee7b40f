// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError } from "../../src/base/errors.ts";
import { compile } from "../../src/tensor/executable.ts";
import { fill } from "../../src/tensor/ops/fill.ts";
import { gatedSilu } from "../../src/tensor/ops/gated.ts";
import { matmul } from "../../src/tensor/ops/matmul.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest } from "./harness.ts";

gpuTest("Executable refuses a scalar that no block of the program reads", async (gpu) => {
  const program = new Program();
  for (const name of ["first", "second"]) {
    const graph = program.block(name);
    graph.output("y", fill(graph, [4], graph.scalar(`${name}.value`)));
  }
  const executable = await compile(gpu, plan(program, gpu.description));
  try {
    const read = async (block: string) => {
      executable.run(block);
      return [...(await executable.read(["y"], block)).get("y")!.data];
    };
    // One step buffer for all blocks.
    executable.setScalar("second.value", 3);
    executable.setScalar("first.value", 2);
    assertEquals([await read("first"), await read("second")], [[2, 2, 2, 2], [3, 3, 3, 3]]);
    for (const set of ["setScalar", "setScalarWord"] as const) {
      assertThrows(
        () => executable[set]("frist.value", 5),
        DeviceError,
        'the program reads no step scalar "frist.value", only: first.value, second.value',
      );
    }
    assertEquals(["first.value", "frist.value"].map((name) => executable.hasScalar(name)), [true, false]);
    // What a program may do without.
    executable.setScalars(new Map([["first.value", 7], ["third.value", 8]]));
    assertEquals([await read("first"), await read("second")], [[7, 7, 7, 7], [3, 3, 3, 3]]);
  } finally {
    executable.destroy();
  }
});

gpuTest(
  "a block that is left for later is compiled when it is asked for, and does the same then",
  async (gpu) => {
    const program = new Program();
    for (const [i, name] of ["now", "later"].entries()) {
      const graph = program.block(name);
      graph.output("y", fill(graph, [4], graph.scalar(`${i}.value`)));
    }
    const executable = await compile(gpu, plan(program, gpu.description), { later: ["later"] });
    try {
      executable.setScalars(new Map([["0.value", 2], ["1.value", 3]]));
      executable.run("now");
      assertThrows(() => executable.run("later"), DeviceError, '"later" was left for later');
      await executable.ready("now");
      await executable.ready("later");
      executable.run("later");
      assertEquals([...(await executable.read(["y"], "later")).get("y")!.data], [3, 3, 3, 3]);
      await assertRejects(() => executable.ready("never"), DeviceError, 'the program has no block "never"');
    } finally {
      executable.destroy();
    }
  },
);

gpuTest("a block is cut into slices as it is asked for, whatever it was cut into before", async (gpu) => {
  const program = new Program();
  const graph = program.block("block");
  for (const i of [0, 1, 2]) graph.output(`y${i}`, fill(graph, [4], graph.scalar(`${i}.value`)));
  const executable = await compile(gpu, plan(program, gpu.description));
  try {
    for (let turn = 0; turn < 2; turn++) {
      assertEquals(executable.slices("block", 0), [[0, 1], [1, 2], [2, 3]]);
      assertEquals(executable.slices("block", 1), [[0, 3]]);
      assertEquals(executable.slices("block", 0, new Set(["a layer"])), [[0, 1], [1, 2], [2, 3]]);
    }
    executable.setScalars([["0.value", 5], ["1.value", 6], ["2.value", 7]]);
    executable.run("block");
    // What a slice leaves out keeps its numbers.
    executable.setScalars([["0.value", 8], ["1.value", 9], ["2.value", 10]]);
    executable.runSlice("block", 1, 2);
    const back = await executable.read(["y0", "y1", "y2"], "block");
    assertEquals([...back.values()].map((y) => y.data[0]), [5, 9, 7]);
  } finally {
    executable.destroy();
  }
});

gpuTest(
  "on a software device a kernel is one text, whichever of its bindings share a buffer",
  async (gpu) => {
    const program = new Program();
    const graph = program.block("test");
    const x = graph.input("x", [4, 4], "f32");
    const up = graph.input("up", [4, 4], "f32");
    const once = gatedSilu(x, up);
    graph.output("once", once);
    // Reads the buffer that it writes to, where the other reads those of the inputs.
    graph.output("twice", gatedSilu(once, up));
    // Two bindings that overlap: one buffer may be bound so only where both are read.
    graph.output("square", matmul("NT", x, x));
    const planned = plan(program, gpu.description);
    const { dispatches } = planned.blocks.get("test")!;
    assertEquals(new Set(dispatches.map(({ wgsl }) => wgsl)).size, 2);
    assertEquals(dispatches.map(({ writable }) => writable.size), [0, 1, 0]);
    const before = gpu.pipelineCount;
    const executable = await compile(gpu, planned);
    try {
      assertEquals(gpu.pipelineCount - before, gpu.software ? 2 : 3);
      executable.poison();
      executable.write("x", Float32Array.from({ length: 16 }, (_, i) => i % 5));
      executable.write("up", new Float32Array(16).fill(2));
      executable.run("test");
      const back = await executable.read(["twice", "square"], "test");
      const gated = (v: number) => 2 * v / (1 + Math.exp(-v));
      assertWithin(back.get("twice")!.data, Array.from({ length: 16 }, (_, i) => gated(gated(i % 5))), 1e-5);
      const square = (i: number, j: number) =>
        [0, 1, 2, 3].reduce((sum, k) => sum + ((4 * i + k) % 5) * ((4 * j + k) % 5), 0);
      assertEquals(
        [...back.get("square")!.data],
        Array.from({ length: 16 }, (_, n) => square(Math.floor(n / 4), n % 4)),
      );
    } finally {
      executable.destroy();
    }
  },
);
