import { assertEquals } from "@std/assert";
import { assertWithin, gpuTest, randomArray, run } from "./harness.ts";
import { add, scale } from "../../src/tensor/ops/combine.ts";
import { accumulate } from "../../src/tensor/ops/accumulate.ts";
import { linear, matmul, matmulOp } from "../../src/tensor/ops/matmul.ts";
import type { Op } from "../../src/tensor/op.ts";
import { Program } from "../../src/tensor/plan.ts";
import { optimise } from "../../src/tensor/optimise.ts";

const [T, H, N, R] = [33, 20, 24, 4];

function reference(
  x: Float32Array,
  w: Float32Array,
  a: Float32Array,
  b: Float32Array,
  r: Float32Array,
): number[] {
  return Array.from({ length: T * N }, (_, i) => {
    const [t, n] = [Math.floor(i / N), i % N];
    let sum = r[i]!;
    for (let k = 0; k < H; k++) sum += x[t * H + k]! * w[n * H + k]!;
    for (let j = 0; j < R; j++) {
      let h = 0;
      for (let k = 0; k < H; k++) h += x[t * H + k]! * a[j * H + k]!;
      sum += 2 * h * b[n * R + j]!;
    }
    return sum;
  });
}

gpuTest("optimise() keeps the value of a residual LoRA layer", async (gpu) => {
  const [x, w, a, b, r] = [T * H, N * H, R * H, N * R, T * N].map((n, i) => randomArray(n, i + 1)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const { outputs } = await run(
    gpu,
    [{ shape: [T, H], data: x }, { shape: [N, H], data: w }, { shape: [R, H], data: a }, {
      shape: [N, R],
      data: b,
    }, {
      shape: [T, N],
      data: r,
    }],
    (_, x, w, a, b, r) => add(add(linear(x!, w!), linear(scale(linear(x!, a!), 2), b!)), r!),
  );
  assertWithin(outputs[0]!, reference(x, w, a, b, r), 2e-5);
});

Deno.test("optimise() makes one kernel of two products and an addend", () => {
  const program = new Program();
  const g = program.block("test");
  const x = g.input("x", [T, H], "f32");
  const [w, a, b] = [
    g.weight("w", [N, H], "f32"),
    g.weight("a", [R, H], "f32"),
    g.weight("b", [N, R], "f32"),
  ];
  const h = scale(linear(x, a), 2);
  g.output("y", add(add(linear(x, w), linear(h, b)), g.input("r", [T, N], "f32")));
  linear(x, w); // nobody uses it
  assertEquals(optimise(g).map((n) => `${n.op.name}/${n.inputs.length}`), ["matmul/2", "matmul/5"]);
});

Deno.test("optimise() merges no op that only has the name of one", () => {
  const program = new Program();
  const g = program.block("test");
  const [x, w, r] = [g.input("x", [T, H], "f32"), g.weight("w", [N, H], "f32"), g.input("r", [T, N], "f32")];
  const other: Op<null> = {
    name: matmulOp.name,
    infer: () => [{ shape: [T, N], dtype: "f32" }],
    lower: () => {},
  };
  g.output("y", add(g.add(other, [x, w], null)[0]!, r));
  assertEquals(optimise(g).map((n) => n.op.name), ["matmul", "combine"]);
});

Deno.test("optimise() keeps two deep products apart", () => {
  const program = new Program();
  const g = program.block("test");
  const deep = (name: string, k: number) =>
    linear(g.input(`x${name}`, [T, k], "f32"), g.weight(name, [N, k], "f32"));
  g.output("one", add(deep("a", 4096), deep("b", 2048)));
  g.output("two", add(deep("c", 4096), deep("d", 2052)));
  assertEquals(optimise(g).map((n) => n.inputs.length), [4, 2, 3]);
});

gpuTest("accumulate() adds a product into a state, or overwrites NaN when nothing is kept", async (gpu) => {
  const [x, y] = [randomArray(T * H, 5), randomArray(T * N, 6)];
  const expected = Array.from({ length: N * H }, (_, i) => {
    let sum = 0;
    for (let t = 0; t < T; t++) sum += y[t * N + Math.floor(i / H)]! * x[t * H + i % H]!;
    return sum;
  });
  for (const [keep, old] of [[0, NaN], [1, 3]] as const) {
    const { inputs } = await run(
      gpu,
      [{ shape: [T, H], data: x }, { shape: [T, N], data: y }, {
        shape: [N, H],
        kind: "state",
        data: new Float32Array(N * H).fill(old),
      }],
      (g, x, y, state) => accumulate(state!, matmul("TN", y!, x!), g.scalar("keep")),
      { keep },
    );
    assertWithin(inputs[2]!, expected.map((v) => v + (keep ? old : 0)), 2e-5);
  }
});

gpuTest("optimise() moves no product past a write to what it reads", async (gpu) => {
  const [x, w, r] = [randomArray(8 * 8, 1), randomArray(8 * 8, 2), randomArray(8 * 8, 3)];
  const { outputs } = await run(
    gpu,
    [{ shape: [8, 8], data: x }, { shape: [8, 8], data: w, kind: "state" }, { shape: [8, 8], data: r }],
    (g, x, w, r) => {
      const y = linear(x!, w!);
      accumulate(w!, r!, g.scalar("keep"));
      return add(y, r!);
    },
    { keep: 0 },
  );
  const expected = Array.from({ length: 64 }, (_, i) => {
    let sum = r[i]!;
    for (let k = 0; k < 8; k++) sum += x[Math.floor(i / 8) * 8 + k]! * w[(i % 8) * 8 + k]!;
    return sum;
  });
  assertWithin(outputs[0]!, expected, 1e-5);
});

Deno.test("optimise() adds a product up where it was made, unless its state is used in between", () => {
  const names = (useState: boolean) => {
    const program = new Program();
    const g = program.block("test");
    const [x, y] = [g.input("x", [T, H], "f32"), g.input("y", [T, N], "f32")];
    const state = g.state("sums", [N, H], "f32");
    const product = matmul("TN", y, x);
    g.output("z", scale(useState ? state : x, 2));
    accumulate(state, product, g.scalar("keep"));
    return optimise(g).map((n) => n.op.name);
  };
  assertEquals(names(false), ["matmulAccumulate", "combine"]);
  assertEquals(names(true), ["combine", "matmulAccumulate"]);
});
