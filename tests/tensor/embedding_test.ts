// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { gpuTest, run, testGpu } from "./harness.ts";
import { indices, operand } from "./oracle.ts";
import { plant } from "./planted.ts";
import { embedding } from "../../src/tensor/ops/embedding.ts";
import { plan, Program } from "../../src/tensor/plan.ts";
import { DEFAULT_DEVICE } from "../../src/gpu/description.ts";
import { ShapeError } from "../../src/base/errors.ts";

const TOKENS = [3, 0, 10, -1, 3, 11, 7, 2 ** 31 - 1, 9, -(2 ** 31)];

function expected(table: Float32Array, width: number, rows: number): number[] {
  return TOKENS.flatMap((token) =>
    Array.from({ length: width }, (_, h) => token >= 0 && token < rows ? table[token * width + h]! : 0)
  );
}

gpuTest("embedding() copies rows exactly, and zeros for tokens outside the table", async (gpu) => {
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (const width of [1, 3, 4, 36, 300]) {
      const table = operand([11, width], width, dtype, "weight");
      const { outputs } = await run(gpu, [table, indices(TOKENS)], (_, t, i) => embedding(t!, i!));
      assertEquals([...outputs[0]!], expected(table.values, width, 11), `${dtype} ${width}`);
    }
  }
});

gpuTest("embedding() reads a table larger than a binding in parts, on a folded grid", async (_, family) => {
  for (const [dtype, width] of [["f32", 24], ["bf16", 24], ["f16", 5]] as const) {
    const gpu = await testGpu(family, { maxBindingSize: 1 << 14, maxWorkgroupsPerDimension: 10 });
    const table = operand([2000, width], 1, dtype, "weight");
    const rows = Array.from({ length: 53 }, (_, i) => i * 38);
    const { outputs } = await run(gpu, [table, indices(rows)], (_, t, i) => embedding(t!, i!));
    assertEquals([...outputs[0]!], rows.flatMap((r) => [...table.values.slice(r * width, (r + 1) * width)]));
  }
});

Deno.test("embedding() launches one kernel for each part of the table", () => {
  const program = new Program();
  const g = program.block("test");
  g.output("x", embedding(g.weight("table", [2000, 24], "bf16"), g.input("tokens", [9], "i32")));
  // A row has 48 bytes, so parts of at most 16384 bytes that begin at multiples of 256 have 336 rows.
  const planned = plan(program, { ...DEFAULT_DEVICE, maxBindingSize: 1 << 14 }).blocks.get("test")!;
  assertEquals(planned.dispatches.map((d) => d.bindings[1]!.bytes), [...Array(5).fill(336 * 48), 320 * 48]);
  assertEquals(plan(program, DEFAULT_DEVICE).blocks.get("test")!.dispatches.length, 1);
});

gpuTest("a wrong row in the kernel does not pass", async (gpu) => {
  const table = operand([11, 8], 1, "f32", "weight");
  const { outputs } = await run(
    gpu,
    [table, indices(TOKENS)],
    (_, t, i) => plant(embedding(t!, i!), "index - size.first)", "index - size.first + 1u)"),
  );
  assertNotEquals([...outputs[0]!], expected(table.values, 8, 11));
});

Deno.test("embedding() refuses tokens that are not i32", () => {
  const program = new Program();
  const g = program.block("test");
  assertThrows(
    () => embedding(g.weight("table", [4, 4], "f32"), g.input("tokens", [2], "f32")),
    ShapeError,
    'gatherRows(f32[4, 4] "table", f32[2] "tokens"): the indices must be i32',
  );
});
