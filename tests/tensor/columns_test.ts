// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { type Tensor } from "../../src/tensor/graph.ts";
import { joinColumns, narrowColumns, splitColumns, widenColumns } from "../../src/tensor/ops/columns.ts";
import { Program } from "../../src/tensor/plan.ts";
import { gpuTest, run, testGpu } from "./harness.ts";
import { operand } from "./oracle.ts";
import { plant } from "./planted.ts";

/** Rows of `width` columns: a matrix cut into its groups. */
function grouped(x: ArrayLike<number>, width: number): number[][] {
  return Array.from({ length: x.length / width }, (_, i) => Array.from(x).slice(i * width, (i + 1) * width));
}

const ROWS = 5;
const sum = (a: readonly number[]) => a.reduce((x, y) => x + y, 0);

// One piece each, heads that hold their own parts, and widths in vectors of four and not.
for (
  const [widths, groups] of [[[96, 32, 32], 1], [[5, 1, 7], 1], [[8, 8, 8], 3], [[3, 2], 7], [
    [4],
    2,
  ]] as const
) {
  gpuTest(`splitColumns() into ${widths} of ${groups} groups, and back`, async (_, family) => {
    // So few workgroups in a dimension that the grid is folded.
    const gpu = await testGpu(family, { maxWorkgroupsPerDimension: 2 });
    const width = sum(widths);
    const x = operand([ROWS, groups * width], 1);
    const above = widths.map((w, i) => operand([ROWS, groups * w], i + 2));
    const work = (change: (t: Tensor) => Tensor) =>
      run(gpu, [x, ...above], (g, x, ...above) => {
        const parts = splitColumns(x!, widths, groups);
        change(parts[0]!);
        const joined = joinColumns(above, groups);
        // The gradient of a part that nothing reads is 0.
        const some = parts.flatMap((p, i) => (i === 1 ? [] : [[p, above[i]!] as [Tensor, Tensor]]));
        const [dx] = gradients(g, some, [x!]);
        const dParts = gradients(g, [[joined, x!]], above);
        return [...parts, joined, dx!, ...dParts.map((t) => t!)];
      });
    const { outputs } = await work((t) => t);
    const rows = grouped(x.values, width);
    const first = (i: number) => sum(widths.slice(0, i));
    const expected = widths.map((w, i) => rows.flatMap((row) => row.slice(first(i), first(i) + w)));
    const joinedOf = (list: readonly ArrayLike<number>[]) =>
      rows.flatMap((_, r) =>
        widths.flatMap((w, i) => Array.from({ length: w }, (_, c) => list[i]![r * w + c]!))
      );
    const zeroed = above.map((a, i) => (i === 1 ? a.values.map(() => 0) : a.values));
    const wanted = [...expected, joinedOf(above.map((a) => a.values)), joinedOf(zeroed), ...expected];
    assertEquals(outputs.map((t) => [...t]), wanted);
    for (const [right, wrong] of [["+ size.from_column", ""], ["i / size.width", "i / size.in_width"]]) {
      if (widths.length === 1) continue;
      const { outputs } = await work((t) => plant(t, right!, wrong!));
      assertNotEquals(outputs.slice(0, widths.length).map((t) => [...t]), expected, right);
    }
  });
}

gpuTest("widenColumns() and narrowColumns() undo each other, forward and backward", async (gpu) => {
  const [x, wide, narrow] = [
    operand([ROWS, 3 * 14], 1),
    operand([ROWS, 3 * 16], 2),
    operand([ROWS, 3 * 14], 3),
  ];
  const { outputs } = await run(gpu, [x, wide, narrow], (g, x, wide, narrow) => {
    const [up, down] = [widenColumns(x!, 3, 16), narrowColumns(wide!, 3, 14)];
    const [dx] = gradients(g, [[up, wide!]], [x!]);
    const [dWide] = gradients(g, [[down, narrow!]], [wide!]);
    return [up, down, dx!, dWide!];
  });
  const widened = (t: ArrayLike<number>) => grouped(t, 14).flatMap((row) => [...row, 0, 0]);
  const narrowed = (t: ArrayLike<number>) => grouped(t, 16).flatMap((row) => row.slice(0, 14));
  assertEquals(outputs.map((t) => [...t]), [
    widened(x.values),
    narrowed(wide.values),
    narrowed(wide.values),
    widened(narrow.values),
  ]);
});

Deno.test("columns are refused where they do not fill the matrix", () => {
  const g = new Program().block("test");
  const x = g.input("x", [4, 24], "f32");
  assertThrows(() => splitColumns(x, [8, 8]), ShapeError, "x must be f32 [T, 1 * 16]");
  assertThrows(() => splitColumns(x, [4, 4], 2), ShapeError, "x must be f32 [T, 2 * 8]");
  assertThrows(
    () => joinColumns([x, g.input("y", [5, 24], "f32")]),
    ShapeError,
    "part 1 must be f32 [4, 1 * 24]",
  );
  assertThrows(() => joinColumns([x], 7), ShapeError, "no 7 groups");
});
