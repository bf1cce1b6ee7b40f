// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertLess, assertMatch, assertThrows } from "@std/assert";
import {
  abs,
  add,
  compile,
  constant,
  derivative,
  detach,
  erf,
  exp,
  expm1,
  type Expression,
  ExpressionError,
  flag,
  helperFunctions,
  leaves,
  literal,
  log,
  log1p,
  logAddExp,
  max,
  min,
  mul,
  printWgsl,
  select,
  sigmoid,
  sign,
  sqrt,
  stepScalar,
  sub,
  substitute,
  tanh,
  variable,
} from "../../src/tensor/expr/mod.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";

const x = variable("x");
const y = variable("y");

const evaluate = (e: Expression, a: number, b = 0) => compile([e], ["x", "y"])([a, b])[0]!;

Deno.test("constructors simplify and fold constants", () => {
  assertEquals(String(mul(0, x.div(0))), "0");
  assert(x.mul(1) === x && x.add(0) === x && x.sub(0) === x && x.div(1) === x && x.neg().neg() === x);
  assertEquals(String(x.add(y).sub(x.add(y))), "0");
  assertEquals(String(constant(2).mul(x.mul(3).neg())), "neg(mul(6, x))");
  assertEquals(String(x.sub(y).neg()), "sub(y, x)");
  assert(exp(log(x)) === x && log(exp(x)) === x);
  assertEquals(constant(2).add(3).mul(4).value, 20);
  assert(logAddExp(log(0), x) === x);
  assertEquals(String(select(x.lessThan(y), 3, 3)), "3");
  assertThrows(() => constant(NaN), ExpressionError);
});

Deno.test("select() ignores what it does not choose: 0 log 0 is 0", () => {
  const entropy = select(x.greaterThan(0), x.mul(log(x)), 0);
  assertEquals(evaluate(entropy, 0), 0);
  assertAlmostEquals(evaluate(entropy, 0.5), 0.5 * Math.log(0.5), 1e-15);
});

Deno.test("erf() in f64 is the integral that defines it", () => {
  // Simpson's rule over 2000 steps.
  const integral = (b: number) => {
    const h = b / 2000;
    let sum = 1 + Math.exp(-b * b);
    for (let i = 1; i < 2000; i++) sum += (i % 2 ? 4 : 2) * Math.exp(-((i * h) ** 2));
    return 2 / Math.sqrt(Math.PI) * sum * h / 3;
  };
  for (const a of [0, 1e-8, 0.1, 0.5, 1, 2, 2.499, 2.501, 3, 4.5, 5.9]) {
    for (const sign of [1, -1]) {
      assertAlmostEquals(evaluate(erf(x), sign * a), sign * integral(a), 3e-14, `erf(${sign * a})`);
    }
  }
  assertEquals([7, -7, Infinity, -Infinity].map((a) => evaluate(erf(x), a)), [1, -1, 1, -1]);
  assert(Number.isNaN(evaluate(erf(x), NaN)));
});

/** One expression for each operation with an argument range in which it is smooth. */
const SMOOTH: [string, Expression, number, number][] = [
  ["arithmetic", x.mul(y).add(x.div(y)).sub(x.neg().mul(3)), 0.5, 2],
  ["exp", exp(x.mul(y)), -1, 1],
  ["log", log(x.mul(x).add(y)), 0.5, 2],
  ["log1p", log1p(x.mul(y)), 0, 1],
  ["expm1", expm1(x.mul(y)), -1, 1],
  ["sqrt", sqrt(x.add(y)), 0.5, 2],
  ["abs", abs(x.mul(-2)).mul(y), 0.1, 2],
  ["sigmoid", sigmoid(x.mul(3)).mul(y), -2, 2],
  ["tanh", tanh(x.mul(y)), -1, 1],
  ["erf", erf(x.mul(y)), -2, 2],
  ["min and max", min(x, y.mul(3)).mul(max(x, y.neg())), 0.5, 1],
  ["logAddExp", logAddExp(x.mul(2), y.sub(x)), -3, 3],
  ["select", select(x.lessThan(5), x.square(), y), 0, 2],
];

for (const [name, expression, low, high] of SMOOTH) {
  Deno.test(`derivative() of ${name} agrees with finite differences`, () => {
    for (let i = 0; i < 8; i++) {
      const a = low + (high - low) * (i + 0.37) / 8;
      const b = low + (high - low) * (7.63 - i) / 8;
      const h = 1e-5;
      const numeric = [
        (evaluate(expression, a + h, b) - evaluate(expression, a - h, b)) / (2 * h),
        (evaluate(expression, a, b + h) - evaluate(expression, a, b - h)) / (2 * h),
      ];
      assertAlmostEquals(evaluate(derivative(expression, "x"), a, b), numeric[0]!, 1e-7);
      assertAlmostEquals(evaluate(derivative(expression, "y"), a, b), numeric[1]!, 1e-7);
    }
  });
}

Deno.test("derivative() sees detached parts and signs as constants", () => {
  assertEquals(String(derivative(detach(exp(x)).mul(x), "x")), "detach(exp(x))");
  assertEquals(String(derivative(sign(x).mul(y), "x")), "0");
  assertEquals(String(derivative(stepScalar("beta").mul(x), "beta")), "x");
});

Deno.test("substitute() rebuilds every operation", () => {
  for (const [name, expression] of SMOOTH) {
    const moved = substitute(expression, { numbers: new Map([["x", x.add(0.5)]]) });
    assertAlmostEquals(evaluate(moved, 0.3, 0.6), evaluate(expression, 0.8, 0.6), 1e-15, name);
  }
});

Deno.test("substitute() replaces leaves and simplifies again", () => {
  const e = select(flag("isLabel"), x.sub(y), y.mul(2));
  const at = (isLabel: boolean) =>
    String(substitute(e, {
      numbers: new Map([["x", constant(0)], ["y", constant(0)]]),
      flags: new Map([["isLabel", isLabel]]),
    }));
  assertEquals(at(true), "0");
  assertEquals(String(substitute(e, { flags: new Map([["isLabel", false]]) })), "mul(2, y)");
  assertEquals(leaves([e], "flag"), ["isLabel"]);
  assertEquals(leaves([e], "variable"), ["x", "y"]);
});

Deno.test("compile() refuses a name that nothing gives a value to", () => {
  assertThrows(() => compile([x.add(variable("z"))], ["x"]), ExpressionError, '"z"');
});

Deno.test("printWgsl() computes equal parts once and hoists what is the same for all elements", () => {
  // Built twice on purpose: equality of structure must be enough.
  const [first, second] = [exp(variable("x").sub(y)), exp(variable("x").sub(y))];
  const printed = printWgsl([first.mul(second.add(1)), first.mul(log(stepScalar("b")))], {
    leaf: (name) => name === "b" ? { code: "b", width: 1 } : { code: name, width: 4 },
  });
  assertEquals(printed.lines.filter((l) => l.includes("exp(")).length, 1);
  assertEquals(printed.uniform.length, 1);
  assertMatch(printed.uniform[0]!, /= log\(b\);/);
});

Deno.test("literal() prints what f32 holds and refuses the rest", () => {
  assertEquals([literal(0.1), literal(-2), literal(1e-60)], ["0.1f", "(-2f)", "0f"]);
  assertThrows(() => literal(1e39), ExpressionError, "does not fit f32");
});

/** Runs the printed expressions for pairs of x and y; one f32 result for each pair and expression. */
async function runWgsl(gpu: Gpu, expressions: readonly Expression[], pairs: number[][], width: 1 | 4) {
  const printed = printWgsl(expressions, { leaf: (name) => ({ code: name, width }) });
  const type = width === 4 ? "vec4<f32>" : "f32";
  const code = `${helperFunctions(printed.helpers)}
@group(0) @binding(0) var<storage, read> input: array<${type}>;
@group(0) @binding(1) var<storage, read_write> output: array<${type}>;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
  let x = input[2u * id.x];
  let y = input[2u * id.x + 1u];
  ${[...printed.uniform, ...printed.lines].join("\n  ")}
  ${
    printed.results.map((r, i) => `output[id.x * ${expressions.length}u + ${i}u] = ${type}(${r.code});`).join(
      "\n  ",
    )
  }
}`;
  const groups = Math.ceil(pairs.length / width);
  const input = new Float32Array(2 * groups * width);
  pairs.forEach(([a, b], i) => {
    const [group, lane] = [Math.floor(i / width), i % width];
    input[2 * group * width + lane] = a!;
    input[(2 * group + 1) * width + lane] = b!;
  });
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const [source, result] = [
    gpu.createBuffer(input.byteLength, usage, "input"),
    gpu.createBuffer(groups * width * expressions.length * 4, usage, "output"),
  ];
  gpu.device.queue.writeBuffer(source.raw, 0, input);
  gpu.device.queue.writeBuffer(result.raw, 0, new Float32Array(result.size / 4).fill(NaN));
  const pipeline = await gpu.pipeline("expressions", code);
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline.raw);
  pass.setBindGroup(
    0,
    gpu.device.createBindGroup({
      layout: pipeline.layouts[0]!,
      entries: [source, result].map((b, binding) => ({ binding, resource: { buffer: b.raw } })),
    }),
  );
  pass.dispatchWorkgroups(groups);
  pass.end();
  gpu.device.queue.submit([encoder.finish()]);
  const flat = new Float32Array(await gpu.read(result, 0, result.size));
  gpu.check();
  source.destroy();
  result.destroy();
  return (pair: number, expression: number) =>
    flat[(Math.floor(pair / width) * expressions.length + expression) * width + pair % width]!;
}

Deno.test("printWgsl() computes in f32 what compile() computes in f64, on scalars and vectors", async () => {
  const expressions = SMOOTH.map(([, e]) => e);
  expressions.push(derivative(logAddExp(x.mul(2), y), "x"), add(sign(x), sub(y, 1)));
  const pairs: number[][] = [];
  for (let i = 0; i < 25; i++) pairs.push([0.02 + 0.03 * i, Math.fround(0.9 - 0.031 * i)]);
  const small = [log1p(x), expm1(x), logAddExp(x, y), sigmoid(x), tanh(x), erf(x)];
  const tiny = [[1e-7, 0], [-3e-5, 0], [0.29, -60], [-0.31, 60], [0.4, 0.4], [85, -85], [-85, 85], [
    100,
    -300,
  ]];
  const gpu = await openGpu();
  try {
    for (const width of [1, 4] as const) {
      for (const [list, points] of [[expressions, pairs], [small, tiny]] as const) {
        const at = await runWgsl(gpu, list, points.map((p) => p.map(Math.fround)), width);
        points.forEach(([a, b], i) =>
          list.forEach((e, k) => {
            const expected = evaluate(e, Math.fround(a!), Math.fround(b!));
            if (!(Math.abs(expected) < 3e38)) return; // log1p below -1, expm1 of 100
            const error = Math.abs(at(i, k) - expected);
            assertLess(
              error,
              4e-6 * Math.abs(expected) + (list === small ? 1e-37 : 1e-6),
              `${e} at ${a}, ${b}`,
            );
          })
        );
      }
    }
  } finally {
    gpu.destroy();
  }
});
