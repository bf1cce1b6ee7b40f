// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals } from "@std/assert";
import { gpuTest, run } from "./harness.ts";
import { indices, operand } from "./oracle.ts";
import { plant } from "./planted.ts";
import { gatherRows, scatterRows } from "../../src/tensor/ops/cache.ts";

const SLOTS = [4, -1, 0, 7, 6];

function written(state: Float32Array, rows: Float32Array, width: number): number[] {
  const result = [...state];
  SLOTS.forEach((slot, b) => {
    if (slot < 0 || slot >= 7) return;
    for (let w = 0; w < width; w++) result[slot * width + w] = rows[b * width + w]!;
  });
  return result;
}

gpuTest("scatterRows() writes the rows of valid slots and nothing else", async (gpu) => {
  for (const width of [1, 7, 8, 64, 260]) {
    const state = operand([7, width], 1, "f32", "state");
    const rows = operand([SLOTS.length, width], 2);
    const { inputs, outputs } = await run(
      gpu,
      [state, rows, indices(SLOTS)],
      (_, s, r, i) => scatterRows(s!, r!, i!),
    );
    const expected = written(state.values, rows.values, width);
    assertEquals([...inputs[0]!], expected, `width ${width}`);
    assertEquals([...outputs[0]!], expected, `width ${width}`);
  }
});

gpuTest("gatherRows() sees rows that scatterRows() wrote before it", async (gpu) => {
  const state = operand([7, 12], 1, "f32", "state");
  const rows = operand([SLOTS.length, 12], 2);
  const wanted = [6, 1, 0, 7];
  const { outputs } = await run(
    gpu,
    [state, rows, indices(SLOTS), indices(wanted)],
    (_, s, r, i, j) => gatherRows(scatterRows(s!, r!, i!), j!),
  );
  const after = written(state.values, rows.values, 12);
  assertEquals(
    [...outputs[0]!],
    wanted.flatMap((r) => r < 7 ? after.slice(r * 12, (r + 1) * 12) : new Array(12).fill(0)),
  );
});

gpuTest("a kernel that ignores the slot's bound does not pass", async (gpu) => {
  const state = operand([7, 8], 1, "f32", "state");
  const rows = operand([SLOTS.length, 8], 2);
  const { inputs } = await run(
    gpu,
    [state, rows, indices(SLOTS)],
    (_, s, r, i) => plant(scatterRows(s!, r!, i!), "let slot = bitcast<u32>(slots[row]);", "let slot = row;"),
  );
  assertNotEquals([...inputs[0]!], written(state.values, rows.values, 8));
});
