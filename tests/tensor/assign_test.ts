// @ts-types="../../types/std_assert.d.ts"
import { assert, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import { select, stepScalar } from "../../src/tensor/expr/mod.ts";
import { assign } from "../../src/tensor/ops/assign.ts";
import { add } from "../../src/tensor/ops/combine.ts";
import { part, rows } from "../../src/tensor/ops/views.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, maxDifference, randomArray, run, type Value } from "./harness.ts";
import { plant } from "./planted.ts";

for (const [T, N] of [[1, 1], [5, 7], [3, 8], [65, 12]] as const) {
  gpuTest(`assign() equals f64 and leaves the rest of the state as it was [${T}, ${N}]`, async (gpu) => {
    // The target begins at element 64 and does not fill the state.
    const flat = randomArray(64 + T * N + 5, 1);
    const [x, row, column] = [randomArray(T * N, 2), randomArray(N, 3), randomArray(T, 4)];
    const values: Value[] = [
      { shape: [flat.length], data: flat, kind: "state" },
      { shape: [T, N], data: x },
      { shape: [N], data: row },
      { shape: [T, 1], data: column },
    ];
    const once = (mistake = false) =>
      run(gpu, values, (_, flat, x, row, column) => {
        const target = part(flat!, 64, [T, N]);
        const assigned = assign(
          target,
          [x!, row!, column!],
          (old, x, r, c) =>
            select(x!.lessThan(0), old!, old!.mul(stepScalar("beta")).add(x!.mul(r!)).sub(c!)),
        );
        if (mistake) plant(assigned, "out[i] = ", "out[i] = 1.0001 * ");
        // What comes later reads the new values, by the old name too.
        return add(target, x!);
      }, { beta: 0.75 });
    const wanted = Float64Array.from(flat, (old, k) => {
      const i = k - 64;
      if (i < 0 || i >= T * N || x[i]! < 0) return old;
      return old * 0.75 + x[i]! * row[i % N]! - column[Math.floor(i / N)]!;
    });
    const { inputs, outputs } = await once();
    assertWithin(inputs[0]!, wanted, 1e-6);
    assertWithin(outputs[0]!, x.map((v, i) => v + wanted[64 + i]!), 1e-6, "what is read later");
    assert(maxDifference((await once(true)).inputs[0]!, wanted) > 1e-6);
  });
}

gpuTest("assign() takes operands from other parts of the same state, in order", async (gpu) => {
  const state = randomArray(3 * 64, 1);
  const { inputs } = await run(gpu, [{ shape: [3, 64], data: state, kind: "state" }], (_, state) => {
    const [a, b, c] = [0, 1, 2].map((i) => rows(state!, i, 1));
    const sum = assign(a!, [b!], (a, b) => a!.add(b!));
    assign(c!, [sum, b!], (_, sum, b) => sum!.mul(b!));
    return assign(b!, [], (b) => b!.neg());
  });
  const wanted = Float64Array.from(state, (v, i) => {
    const [a, b] = [state[i % 64]!, state[64 + i % 64]!];
    return [v + b, -v, (a + b) * b][Math.floor(i / 64)]!;
  });
  assertWithin(inputs[0]!, wanted, 1e-6);
});

Deno.test("assign() refuses what is no state, does not fit, or is the target itself", () => {
  const graph = new Program().block("test");
  const [state, input] = [graph.state("state", [4, 3], "f32"), graph.input("input", [4, 3], "f32")];
  const refused = (call: () => unknown, says: string) => assertThrows(call, ShapeError, says);
  refused(() => assign(input, [state], (_, s) => s!), "must be a state");
  refused(() => assign(add(state, input), [input], (_, s) => s!), "must be a state");
  refused(
    () => assign(state, [graph.input("other", [3, 4], "f32")], (_, s) => s!),
    "must have the shape [4, 3]",
  );
  refused(() => assign(state, [state], (_, s) => s!), "given once");
});
