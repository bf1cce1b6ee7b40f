// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { indices, numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { rope, ropeOp } from "../../src/tensor/ops/rope.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { scale } from "../../src/tensor/ops/combine.ts";
import { optimise } from "../../src/tensor/optimise.ts";
import { Program } from "../../src/tensor/plan.ts";
import { ShapeError } from "../../src/base/errors.ts";

// More than one workgroup of software devices makes.
const POSITIONS = [0, 1, 5, 5, 16, 2, 0, 9, 3, 11];

/** Angles as a model has them: position times 100^(-2i/d). */
const angle = (position: number, i: number, d: number) => position * 100 ** (-2 * i / d);

function table(d: number): Float32Array {
  return Float32Array.from({ length: 17 * d }, (_, k) => {
    const [p, i] = [Math.floor(k / d), k % d];
    return i < d / 2 ? Math.cos(angle(p, i, d)) : Math.sin(angle(p, i - d / 2, d));
  });
}

/** Each pair is a complex number, turned by the angle; what follows the d rotated columns of a head of `width` stays. */
function reference(x: ArrayLike<number>, heads: number, d: number, width = d): Float64Array {
  const y = Float64Array.from(x);
  POSITIONS.forEach((position, t) => {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < d / 2; i++) {
        const a = (t * heads + head) * width + i;
        const b = a + d / 2;
        const turn = angle(position, i, d);
        y[a] = x[a]! * Math.cos(turn) - x[b]! * Math.sin(turn);
        y[b] = x[a]! * Math.sin(turn) + x[b]! * Math.cos(turn);
      }
    }
  });
  return y;
}

gpuTest("rope() turns pairs (i, i + d/2) and its gradient turns back", async (_, family) => {
  // So few workgroups in a dimension that the grid is folded.
  const gpu = await testGpu(family, { maxWorkgroupsPerDimension: family === "tiled" ? 4 : 2 });
  const all = [[1, 2], [3, 6], [8, 8], [3, 48], [1, 64], [5, 20]];
  // A quarter of GPT-NeoX's heads, three quarters of Phi's, one beside which no vectors fit.
  const some = [[3, 4, 16], [4, 24, 32], [2, 16, 18]];
  for (const [heads, d, width = d] of [...all, ...some] as [number, number, number?][]) {
    const x = operand([POSITIONS.length, heads * width], 1);
    const dy = operand(x.shape, 2);
    const angles = { shape: [17, d], kind: "weight", data: table(d) } as const;
    const { outputs } = await run(gpu, [x, indices(POSITIONS), angles, dy], (graph, x, p, t, dy) => {
      const y = rope(x!, p!, t!, heads, width, d);
      return [y, gradients(graph, [[y, dy!]], [x!])[0]!];
    });
    assertWithin(outputs[0]!, reference(x.values, heads, d, width), 3e-7, `${heads} x ${d} of ${width}`);
    const dx = numericGradient((v) => reference(v, heads, d, width), x.values, dy.values);
    assertWithin(outputs[1]!, dx, 3e-7, `gradient ${heads} x ${d} of ${width}`);
  }
});

gpuTest("rope() gives NaN for a position outside the table", async (gpu) => {
  const x = operand([3, 16], 1);
  const angles = { shape: [17, 8], kind: "weight", data: table(8) } as const;
  const { outputs } = await run(
    gpu,
    [x, indices([17, -1, 16]), angles],
    (_, x, p, t) => rope(x!, p!, t!, 2, 8),
  );
  assert(outputs[0]!.slice(0, 32).every(Number.isNaN));
  assert(outputs[0]!.slice(32).every(Number.isFinite));
  const wide = operand([3, 32], 1);
  const { outputs: partly } = await run(
    gpu,
    [wide, indices([17, -1, 16]), angles],
    (_, x, p, t) => rope(x!, p!, t!, 2, 16, 8),
  );
  assert(partly[0]!.slice(0, 64).every(Number.isNaN));
  assert(partly[0]!.slice(64).every(Number.isFinite));
});

gpuTest(
  "queries and keys that one kernel turns, with other numbers of heads, are turned as each alone",
  async (_, family) => {
    const gpu = await testGpu(family, { maxWorkgroupsPerDimension: family === "tiled" ? 4 : 2 });
    for (const [d, width] of [[8, 8], [6, 6], [8, 12]] as const) {
      const [q, k] = [operand([POSITIONS.length, 3 * width], 1), operand([POSITIONS.length, width], 2)];
      const [dq, dk] = [operand(q.shape, 3), operand(k.shape, 4)];
      const angles = { shape: [17, d], kind: "weight", data: table(d) } as const;
      const values = [q, k, indices(POSITIONS), angles, dq, dk];
      const { outputs } = await run(gpu, values, (graph, q, k, p, t, dq, dk) => {
        const [a, b] = [rope(q!, p!, t!, 3, width, d), rope(k!, p!, t!, 1, width, d)];
        const turnedBack = gradients(graph, [[a, dq!], [b, dk!]], [q!, k!]).map((g) => g!);
        // The same node, as tracing does not make it, with a mistake.
        const attributes = { heads: 3, otherHeads: 1, headDim: width, rotated: d, inverse: false };
        const wrong = graph.add(ropeOp, [q!, p!, t!, k!], attributes);
        plant(wrong[0]!, "out1[at] = a * cosine", "out1[at] = a * sine");
        return [a, b, ...turnedBack, ...wrong];
      });
      const what = `${d} of ${width}`;
      assertWithin(outputs[0]!, reference(q.values, 3, d, width), 3e-7, `queries ${what}`);
      assertWithin(outputs[1]!, reference(k.values, 1, d, width), 3e-7, `keys ${what}`);
      const back = (v: ArrayLike<number>, heads: number) => reference(v, heads, d, width);
      assertWithin(outputs[2]!, numericGradient((v) => back(v, 3), q.values, dq.values), 3e-7, `dq ${what}`);
      assertWithin(outputs[3]!, numericGradient((v) => back(v, 1), k.values, dk.values), 3e-7, `dk ${what}`);
      assertWithin(outputs[4]!, reference(q.values, 3, d, width), 3e-7, `queries beside wrong keys ${what}`);
      assert(maxDifference(outputs[5]!, reference(k.values, 1, d, width)) > 0.1);
    }
  },
);

gpuTest("neighbouring pairs (2i, 2i + 1), or a wrong sign, do not pass", async (gpu) => {
  const x = operand([POSITIONS.length, 16], 1);
  const angles = { shape: [17, 16], kind: "weight", data: table(16) } as const;
  for (
    const [right, wrong] of [["let b = x0[at + 2u]", "let b = x0[at + 1u]"], [
      "let sine = sign *",
      "let sine = -sign *",
    ]]
  ) {
    const { outputs } = await run(
      gpu,
      [x, indices(POSITIONS), angles],
      (_, x, p, t) => plant(rope(x!, p!, t!, 1, 16), right!, wrong!),
    );
    assert(maxDifference(outputs[0]!, reference(x.values, 1, 16)) > 0.1);
  }
  const half = { shape: [17, 8], kind: "weight", data: table(8) } as const;
  for (const [right, wrong] of [["/ 1u * 4u + i", "/ 1u * 2u + i"], ["+ 2u + p % 2u", "+ p % 2u"]]) {
    const { outputs } = await run(
      gpu,
      [x, indices(POSITIONS), half],
      (_, x, p, t) => plant(rope(x!, p!, t!, 1, 16, 8), right!, wrong!),
    );
    assert(maxDifference(outputs[0]!, reference(x.values, 1, 8, 16)) > 0.1, right);
  }
});

Deno.test("queries and keys are turned by one kernel, forward and back, if their angles are the same", () => {
  const names = (trace: (g: Graph, q: Tensor, k: Tensor, p: Tensor) => void) => {
    const g = new Program().block("test");
    const positions = g.input("positions", [4], "i32");
    trace(g, g.input("q", [4, 16], "f32"), g.input("k", [4, 8], "f32"), positions);
    return optimise(g).map((n) => `${n.op.name}/${n.inputs.length}`);
  };
  const angles = (g: Graph, name = "table") => g.weight(name, [17, 8], "f32");
  const want = (g: Graph, ...ts: Tensor[]) => ts.forEach((t, i) => g.output(`y${i}`, t));
  const both = (g: Graph, q: Tensor, k: Tensor, p: Tensor) =>
    [rope(q, p, angles(g), 2, 8), rope(k, p, angles(g), 1, 8)] as const;
  assertEquals(names((g, q, k, p) => want(g, ...both(g, q, k, p))), ["rope/4"]);
  assertEquals(
    names((g, q, k, p) => {
      const [a, b] = both(g, q, k, p);
      want(g, ...gradients(g, [[a, g.input("da", [4, 16], "f32")], [b, b]], [q, k]).map((t) => t!));
    }),
    ["rope/3", "rope/4"],
  );
  // Another table, the same tensor, and keys that are made of turned queries.
  assertEquals(
    names((g, q, k, p) => want(g, rope(q, p, angles(g), 2, 8), rope(k, p, angles(g, "other"), 1, 8))),
    ["rope/3", "rope/3"],
  );
  assertEquals(
    names((g, q, _, p) => want(g, rope(q, p, angles(g), 2, 8), rope(q, p, angles(g), 2, 8))),
    ["rope/3", "rope/3"],
  );
  assertEquals(
    names((g, q, _, p) => {
      const a = rope(q, p, angles(g), 2, 8);
      want(g, a, rope(scale(a, 2), p, angles(g), 2, 8));
    }),
    ["rope/3", "combine/1", "rope/3"],
  );
});

Deno.test("rope() refuses a table of another width, and to rotate more than there is", () => {
  const program = new Program();
  const g = program.block("test");
  const [x, positions] = [g.input("x", [4, 32], "f32"), g.input("positions", [4], "i32")];
  assertThrows(
    () => rope(x, positions, g.weight("table", [17, 16], "f32"), 4, 8),
    ShapeError,
    "the table must be f32 [P, 8]",
  );
  const table = g.weight("table", [17, 16], "f32");
  for (const rotated of [3, 0, 10]) {
    assertThrows(
      () => rope(x, positions, table, 4, 8, rotated),
      ShapeError,
      `can be rotated, not ${rotated}`,
    );
  }
});
