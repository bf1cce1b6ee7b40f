/** Which projections turn what they store. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertThrows } from "@std/assert";
import { planCase } from "../../bench/roofline.ts";
import { ShapeError } from "../../src/base/errors.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { addRow } from "../../src/tensor/ops/add_row.ts";
import { assign } from "../../src/tensor/ops/assign.ts";
import { add } from "../../src/tensor/ops/combine.ts";
import { linear, matmul } from "../../src/tensor/ops/matmul.ts";
import { matmulVariants } from "../../src/tensor/ops/matmul/variants.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { rope } from "../../src/tensor/ops/rope.ts";
import { rotatedMatmulOp } from "../../src/tensor/ops/rotated_matmul.ts";
import { Program } from "../../src/tensor/plan.ts";
import { kernelsOf } from "./harness.ts";

Deno.test("projections turn what they store where their kernels can, and only there", () => {
  interface Made {
    readonly graph: Graph;
    readonly x: Tensor;
    readonly weights: readonly Tensor[];
    readonly positions: Tensor;
    readonly angles: Tensor;
  }
  const launched = (trace: (made: Made) => Tensor[], device: Partial<DeviceDescription> = {}) =>
    kernelsOf({ ...DEFAULT_DEVICE, ...device }, (graph) => {
      const weights = ["q", "k"].map((name) => graph.weight(name, [24, 32], "f32"));
      const angles = graph.weight("table", [9, 8], "f32");
      const x = graph.state("x", [64, 32], "f32");
      const made = { graph, x, weights, positions: graph.input("positions", [64], "i32"), angles };
      trace(made).forEach((t, i) => graph.output(`y${i}`, t));
    }).map((kernel) => /^matmul .*rope/.test(kernel) ? "stored" : kernel.split(" ")[0]);
  const turn = ({ positions, angles }: Made, x: Tensor) => rope(x, positions, angles, 3, 8);
  const both = (m: Made, of = (x: Tensor) => x) => m.weights.map((w) => turn(m, of(linear(m.x, w))));
  const apart = ["matmul", "matmul", "ropes"];

  assertEquals(launched((m) => both(m)), ["stored", "stored"]);
  const biased = (m: Made, dtype: "f32" | "q8_0") =>
    both(m, (x) => addRow(x, m.graph.weight(`bias ${m.graph.nodes.length}`, [24], dtype)));
  assertEquals(launched((m) => biased(m, "f32")), ["stored", "stored"]);
  // Of two of which one is wanted as it is, one is left to be turned.
  const one = (m: Made) => {
    const k = linear(m.x, m.weights[1]!);
    return [turn(m, linear(m.x, m.weights[0]!)), turn(m, k), k];
  };
  assertEquals(launched(one), ["matmul", "stored", "rope"]);
  // The kernels of a processor, what is trained and small, what is scaled, added to or normed before, and backwards.
  assertEquals(launched((m) => both(m), { family: "subgroup8", subgroupSize: 8 }), apart);
  const trained = (m: Made) => ["a", "b"].map((n) => turn(m, linear(m.x, m.graph.state(n, [24, 32], "f32"))));
  assertEquals(launched(trained), apart);
  assertEquals(launched((m) => both(m, (x) => add(x, m.graph.input("r", [64, 24], "f32")))), apart);
  const normed = (m: Made) => both(m, (x) => rmsNorm(x, m.graph.weight("norm", [24], "f32"), 1e-5));
  assertEquals(launched(normed), ["matmul", "rmsNorm", "matmul", "rmsNorm", "ropes"]);
  assertEquals(launched((m) => biased(m, "q8_0")), ["matmul", "addRow", "matmul", "addRow", "ropes"]);
  const turned = (m: Made) =>
    [matmul("NN", m.x, m.graph.weight("w", [32, 24], "f32"))].map((x) => turn(m, x));
  assertEquals(launched(turned), ["matmul", "rope"]);
  const backwards = (m: Made) => {
    const q = m.graph.state("queries", [64, 24], "f32");
    return gradients(m.graph, [[turn(m, q), linear(m.x, m.weights[0]!)]], [q]).map((t) => t!);
  };
  assertEquals(launched(backwards), ["matmul", "rope"]);
  // The product would read what has been overwritten by then.
  const overwritten = (m: Made) => {
    const q = linear(m.x, m.weights[0]!);
    assign(m.x, [], (x) => x!.mul(2));
    return [turn(m, q)];
  };
  assertEquals(launched(overwritten).toSorted(), ["matmul", "pointwise", "rope"]);
  // A weight that a device binds in parts.
  const large = (m: Made) => {
    const q = linear(m.graph.input("few", [4, 32], "f32"), m.weights[0]!);
    return [rope(q, m.graph.input("some", [4], "i32"), m.angles, 3, 8)];
  };
  assertEquals(launched(large), ["stored"]);
  assertEquals(launched(large, { maxBindingSize: 2000 }), ["matmul", "matmul", "rope"]);
});

Deno.test("units for small matrices leave turning to others, unless others sum what they make", () => {
  const matrices = [{ m: 16, n: 16, k: 16, componentType: "f32", resultComponentType: "f32" }];
  for (
    const [k, expected] of [[64, ["subgroup-matrix", "rope"]], [2048, ["subgroup-matrix", "parts"]]] as const
  ) {
    const device = { ...DEFAULT_DEVICE, subgroupSize: 32, subgroupMatrices: matrices };
    const shape = { orientation: "NT", m: 64, n: 64, k, k2: 0, weight: "f32" } as const;
    const variant = matmulVariants.candidates(shape, device).find((v) => v.family === "subgroup-matrix")!;
    const kernels = { [`matmul ${matmulVariants.shapeClass(shape)}`]: matmulVariants.name(variant) };
    const launched = kernelsOf({ ...device, kernels }, (graph) => {
      const q = linear(graph.input("x", [64, k], "f32"), graph.weight("w", [64, k], "f32"));
      const angles = graph.weight("table", [9, 32], "f32");
      graph.output("y", rope(q, graph.input("positions", [64], "i32"), angles, 2, 32));
    });
    assertEquals(launched.map((kernel) => /subgroup-matrix|parts|rope/.exec(kernel)?.[0]), [...expected]);
    assertEquals(launched.some((kernel) => /rope/.test(kernel)), true);
  }
});

Deno.test("a layer of a model turns its queries and keys in what it stores, and back in one launch", async () => {
  const { dispatches } = (await planCase("stories260K", DEFAULT_DEVICE)).blocks.get("microBatch")!;
  const count = (wanted: RegExp) => dispatches.filter(({ kernel }) => wanted.test(kernel)).length;
  // Five layers of the teacher, and four of the student with adapters.
  assertEquals(count(/^matmul NT f32 rope /), 10);
  assertEquals(count(/^matmul NT x2 f32 rope /), 8);
  assertEquals(count(/^ropes/), 4);
  assertEquals(count(/^rope /), 0);
});

Deno.test("what is no projection of whole heads is refused", () => {
  const graph = new Program().block("test");
  const inputs = (width: number, row: number) => [
    graph.input("x", [5, 12], "f32"),
    graph.weight(`w${width}`, [width, 12], "f32"),
    graph.input("positions", [5], "i32"),
    graph.weight("table", [9, 8], "f32"),
    graph.weight(`row ${row}`, [row], "f32"),
  ];
  const product = { orientation: "NT", factors: [1], addend: false } as const;
  const attributes = { product, rope: { heads: 3, headDim: 8, rotated: 8, inverse: false }, bias: true };
  const add = (width: number, row: number) => graph.add(rotatedMatmulOp, inputs(width, row), attributes);
  assertEquals(add(24, 24)[0]!.shape, [5, 24]);
  assertThrows(() => add(16, 16), ShapeError, "x must be f32 [T, 3 * 8]");
  assertThrows(() => add(24, 16), ShapeError, "the row's length must be the width");
});
