// @ts-types="../../types/std_assert.d.ts"
import { assert, assertThrows } from "@std/assert";
import { assertWithin, gpuTest, maxDifference, run, testGpu } from "./harness.ts";
import { indices, numericGradient, operand } from "./oracle.ts";
import { plant } from "./planted.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { rope } from "../../src/tensor/ops/rope.ts";
import { Program } from "../../src/tensor/plan.ts";
import { ShapeError } from "../../src/base/errors.ts";

const POSITIONS = [0, 1, 5, 5, 16, 2, 0];

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
  const gpu = await testGpu(family, { maxWorkgroupsPerDimension: 3 });
  const all = [[1, 2], [3, 6], [8, 8], [6, 48], [2, 64], [5, 20]];
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

gpuTest("neighbouring pairs (2i, 2i + 1), or a wrong sign, do not pass", async (gpu) => {
  const x = operand([POSITIONS.length, 16], 1);
  const angles = { shape: [17, 16], kind: "weight", data: table(16) } as const;
  for (
    const [right, wrong] of [["let b = x[at + 2u]", "let b = x[at + 1u]"], [
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
