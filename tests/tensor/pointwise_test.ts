import { assert, assertEquals } from "@std/assert";
import { assertWithin, gpuTest, randomArray, relativeError, run } from "./harness.ts";
import { exp, sigmoid, stepScalar } from "../../src/tensor/expr/mod.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { optimise } from "../../src/tensor/optimise.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { pointwise } from "../../src/tensor/ops/pointwise.ts";
import { sumColumns } from "../../src/tensor/ops/pointwise.ts";
import { sumRows } from "../../src/tensor/ops/pointwise.ts";
import { Program } from "../../src/tensor/plan.ts";

for (const [T, N] of [[1, 1], [5, 7], [3, 8], [65, 12]] as const) {
  gpuTest(
    `pointwise() and its gradients equal f64 over rows, columns and single numbers [${T}, ${N}]`,
    async (gpu) => {
      const [x, row, column, one, dy] = [T * N, N, T, 1, T * N].map((n, i) => randomArray(n, i + 7)) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      const { outputs } = await run(
        gpu,
        [{ shape: [T, N], data: x }, { shape: [N], data: row }, { shape: [T, 1], data: column }, {
          shape: [1],
          data: one,
        }, {
          shape: [T, N],
          data: dy,
        }],
        (g, x, r, c, o, dy) => {
          const y = pointwise(
            [x!, r!, c!, o!],
            (x, r, c, o) => sigmoid(x!.mul(r!)).mul(exp(c!)).add(o!.mul(stepScalar("s"))),
          );
          return [
            y,
            ...gradients(g, [[y, dy!]], [x!, r!, c!, o!]).map((t) => t!),
          ];
        },
        { s: 3 },
      );
      const f = (a: number[]) => 1 / (1 + Math.exp(-a[0]! * a[1]!)) * Math.exp(a[2]!) + a[3]! * 3;
      const at = (i: number) => [x[i]!, row[i % N]!, column[Math.floor(i / N)]!, one[0]!];
      const slope = (i: number, k: number) => {
        const [up, down] = [at(i), at(i)];
        up[k]! += 1e-5;
        down[k]! -= 1e-5;
        return dy[i]! * (f(up) - f(down)) / 2e-5;
      };
      const all = Array.from({ length: T * N }, (_, i) => i);
      assertWithin(outputs[0]!, all.map((i) => f(at(i))), 1e-5);
      assertWithin(outputs[1]!, all.map((i) => slope(i, 0)), 1e-5, "dx");
      const sumWhere = (k: number, keep: (i: number) => boolean) =>
        all.filter(keep).reduce((sum, i) => sum + slope(i, k), 0);
      assertWithin(outputs[2]!, Array.from(row, (_, n) => sumWhere(1, (i) => i % N === n)), 1e-4, "d row");
      assertWithin(
        outputs[3]!,
        Array.from(column, (_, t) => sumWhere(2, (i) => Math.floor(i / N) === t)),
        1e-4,
        "d column",
      );
      assertWithin(outputs[4]!, [sumWhere(3, () => true)], 1e-3, "d one");
    },
  );
}

gpuTest("sumRows() and sumColumns() sum, and spread their gradients", async (gpu) => {
  const [T, N] = [67, 130];
  const [x, a, b] = [randomArray(T * N, 1), randomArray(N, 2), randomArray(T, 3)];
  const { outputs } = await run(
    gpu,
    [{ shape: [T, N], data: x }, { shape: [N], data: a }, { shape: [T, 1], data: b }],
    (g, x, a, b) => {
      const [rows, columns] = [sumRows(x!), sumColumns(x!)];
      return [rows, columns, gradients(g, [[rows, a!], [columns, b!]], [x!])[0]!];
    },
  );
  const sum = (keep: (i: number) => boolean) => x.reduce((s, v, i) => (keep(i) ? s + v : s), 0);
  assertWithin(outputs[0]!, Array.from(a, (_, n) => sum((i) => i % N === n)), 2e-5);
  assertWithin(outputs[1]!, Array.from(b, (_, t) => sum((i) => Math.floor(i / N) === t)), 2e-5);
  assertWithin(outputs[2]!, Array.from(x, (_, i) => a[i % N]! + b[Math.floor(i / N)]!), 1e-6);
});

gpuTest("sumRows() keeps its precision over many rows", async (gpu) => {
  const [T, N] = [32_768, 5];
  const x = randomArray(T * N, 1).map((v) => v + 1);
  const { outputs } = await run(gpu, [{ shape: [T, N], data: x }], (_, x) => sumRows(x!));
  const expected = new Float64Array(N);
  x.forEach((v, i) => expected[i % N]! += v);
  const error = relativeError(outputs[0]!, expected);
  // One sum over all rows is off by 2.7e-6.
  assert(error < 5e-7, `off by ${error}`);
});

Deno.test("optimise() makes one kernel of a chain of elementwise operations", () => {
  const program = new Program();
  const g = program.block("test");
  const [x, y] = [g.input("x", [4, 8], "f32"), g.input("y", [4, 8], "f32")];
  const chain = pointwise([add(scale(x, 2), y), x], (s, x) => sigmoid(s!).mul(x!));
  g.output("z", pointwise([chain, y], (c, y) => c!.add(y!)));
  const nodes = optimise(g);
  assertEquals(nodes.map((n) => n.op.name), ["pointwise"]);
  assertEquals(new Set(nodes[0]!.inputs), new Set([x, y]));
});
