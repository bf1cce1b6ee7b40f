// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { type Tensor } from "../../src/tensor/graph.ts";
import { add } from "../../src/tensor/ops/combine.ts";
import { detach } from "../../src/tensor/ops/detach.ts";
import { maskRows } from "../../src/tensor/ops/mask_rows.ts";
import { Program } from "../../src/tensor/plan.ts";
import { gpuTest, randomArray, run, testGpu } from "./harness.ts";
import { indices } from "./oracle.ts";
import { plant } from "./planted.ts";

const FLAGS = [1, 0, 2, 3, -1, 0, -2147483648];

gpuTest(
  "maskRows() keeps what is flagged and lets no NaN through, forward and backward",
  async (gpu, family) => {
    const folded = await testGpu(family, { maxWorkgroupsPerDimension: 3 });
    for (const [device, repeats] of [[gpu, 1], [gpu, 37], [folded, 61]] as const) {
      const flags = Array.from({ length: repeats }, () => FLAGS).flat();
      for (const bit of [0, 1, 31]) {
        const kept = flags.map((f) => ((f >> bit) & 1) === 1);
        const x = randomArray(flags.length, 1).map((v, i) => (kept[i] ? v : NaN));
        const above = randomArray(flags.length, 2).map((v, i) => (kept[i] ? v : Infinity));
        const shape = [flags.length];
        const once = async (change = (t: Tensor) => t) => {
          const inputs = [{ shape, data: x }, { shape, data: above }, indices(flags)];
          const { outputs } = await run(device, inputs, (graph, x, above, flags) => {
            const y = change(maskRows(x!, flags!, bit));
            return [y, gradients(graph, [[y, above!]], [x!])[0]!];
          });
          return outputs;
        };
        const expected = [x, above].map((t) => t.map((v, i) => (kept[i] ? v : 0)));
        assertEquals(await once(), expected);
        assertNotEquals(await once((t) => plant(t, "!= 0)", "== 0)")), expected);
      }
    }
  },
);

Deno.test("maskRows() refuses other shapes and bits", () => {
  const g = new Program().block("test");
  const [x, flags] = [g.input("x", [4], "f32"), g.input("flags", [4], "i32")];
  assertThrows(() => maskRows(x, x), ShapeError, "flags must be i32");
  assertThrows(() => maskRows(g.input("m", [4, 1], "f32"), flags), ShapeError, "expected f32 [T]");
  assertThrows(() => maskRows(x, flags, 32), ShapeError, "no bit 32");
});

gpuTest("detach() passes values on and stops gradients", async (gpu) => {
  const data = randomArray(8, 1);
  const { outputs } = await run(gpu, [{ shape: [8], data }, { shape: [8], data: data.map(() => 1) }], (
    graph,
    x,
    above,
  ) => {
    const y = add(detach(add(x!, x!)), x!);
    const forward = graph.nodes.length;
    const [dx] = gradients(graph, [[y, above!]], [x!]);
    // Nothing is differentiated behind it.
    assertEquals(graph.nodes.length, forward);
    return [y, add(dx!, dx!)];
  });
  assertEquals(outputs, [data.map((v) => 3 * v), data.map(() => 2)]);
});
