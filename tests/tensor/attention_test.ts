// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  assertMatches,
  type Case,
  makeCase,
  onGpu,
  oracle,
  packed,
  scattered,
  shape,
} from "./attention_cases.ts";
import { assertWithin, gpuTest, maxDifference, relativeError, testGpu } from "./harness.ts";
import { DEFAULT_DEVICE, type DeviceDescription, type KernelFamily } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { ShapeError } from "../../src/base/errors.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { type Tensor } from "../../src/tensor/graph.ts";
import { attention, attentionGradientOp, attentionOp } from "../../src/tensor/ops/attention.ts";
import { attentionVariants } from "../../src/tensor/ops/attention/variants.ts";
import { Program } from "../../src/tensor/plan.ts";
import { type Mistake, plantAny } from "./planted.ts";

const CASES: [string, Case][] = [
  ["one query", makeCase(shape(1, 1, 4), 1, packed([1]))],
  ["one sample of odd length", makeCase(shape(2, 2, 8), 33, packed([33]))],
  [
    "samples packed back to back, filler, grouped heads",
    makeCase(shape(4, 2, 8), 70, packed([31, 1, 17, 15], 6)),
  ],
  ["heads of 20", makeCase(shape(3, 1, 20), 31, packed([15, 16]))],
  ["heads of 48", makeCase(shape(2, 2, 48), 65, packed([64, 1]))],
  ["heads of 20, seven to a group", makeCase(shape(7, 1, 20), 17, packed([17]))],
  ["scattered and empty ranges, more keys than queries", makeCase(shape(2, 1, 8), 101, scattered(50, 101))],
  [
    "a few queries over a long cache",
    makeCase(shape(4, 2, 48), 90, [[0, 33], [40, 41], [50, 90], [3, 3], [80, 97]]),
  ],
];

/** What takes a device for hardware long to compile, or a processor long to run. */
const LONG: [string, Case][] = [
  ["heads of 256", makeCase(shape(2, 1, 256), 35, packed([30], 5))],
  ["much work at once", makeCase(shape(8, 8, 256), 231, packed([90, 50, 70, 21]))],
];

/**
 * The tile that compiles soonest, for heads of any width the same where they are no wider than 32: what each tile computes is for the tests
 * of variants below, and for `attention_mutants_test.ts`.
 */
const SMALLEST: DeviceDescription["kernels"] = new Proxy<Record<string, string>>({}, {
  get: (_, key) => typeof key === "string" && key.startsWith("attention") ? "tiled 32x32 by 64" : undefined,
});

/** The device, with those kernels where it is one for hardware. */
const smallest = (gpu: Gpu, family: KernelFamily) => family === "tiled" ? SMALLEST : gpu.description.kernels;

/** Scores of all sizes: some far beyond the cap, where its slope is nearly 0. */
const capped = (headDim: number, ranges: readonly (readonly [number, number])[]) =>
  makeCase({ ...shape(4, 2, headDim, 1), softCap: 3 }, ranges.length + 30, ranges, 2);
CASES.push(
  ["capped scores of heads of 6, no multiple of 4", capped(6, packed([31, 1, 17, 15], 6))],
  ["a few of them", capped(6, [[0, 33], [30, 31], [3, 33]])],
);

for (const [name, c] of CASES) {
  gpuTest(`attention() and its gradients match f64 for ${name}`, async (gpu, family) => {
    assertMatches(await onGpu(gpu, c, undefined, {}, smallest(gpu, family)), oracle(c));
  });
}

for (
  const c of [
    makeCase(shape(1, 1, 4), 1, packed([1])),
    makeCase(shape(4, 2, 48), 190, [[0, 133], [140, 141], [50, 190], [3, 3], [180, 197], [-4, 31], [60, 92]]),
    makeCase(shape(3, 1, 20), 101, scattered(50, 101)),
    makeCase(shape(2, 1, 256), 97, scattered(9, 97)),
    capped(6, [[0, 33], [30, 31], [3, 33]]),
  ]
) {
  const apart = { ...c, shape: { ...c.shape, apart: true } };
  const name = `${c.queries} queries over ${c.keys} keys, heads of ${c.shape.headDim}`;
  gpuTest(`attention() of ranges apart and its gradients match f64 for ${name}`, async (gpu, family) => {
    const expected = oracle(c);
    // Of wide heads on hardware the output alone: their gradients are made by tiles that know nothing of ranges apart, and compile long.
    if (family === "tiled" && c.shape.headDim > 48) {
      const { out, logsumexp } = await onGpu(gpu, apart, (q, k, v, start, end) => {
        const y = attention(q, k, v, { start, end }, apart.shape);
        return [y, y.producer!.outputs[1]!];
      });
      assertWithin(out, expected.out, 2e-6, "outputs");
      assertWithin(logsumexp, expected.logsumexp, 4e-6, "logarithms of the denominators");
      return;
    }
    assertMatches(await onGpu(gpu, apart, undefined, {}, smallest(gpu, family)), expected);
  });
}

gpuTest("attention() of ranges apart with a planted mistake does not pass", async (gpu) => {
  const c = makeCase({ ...shape(4, 2, 8), apart: true }, 190, [[0, 133], [140, 141], [50, 190], [3, 80]], 2);
  const expected = oracle(c);
  const mistakes: Mistake[] = [
    ["key0 < bounds.y)", "key0 + select(0, 1, WRONG) < bounds.y)"],
    ["total *= correction;", "total *= select(correction, 1.0, WRONG);"],
    ["let kv_head = head / size.group;", "let kv_head = select(head / size.group, 0u, WRONG);"],
    ["o0 = o0 * correction", "o0 = o0 * select(correction, 1.0, WRONG)"],
    ["min(end[row],", "min(end[row] - select(0, 1, WRONG),"],
  ];
  const found = async (mistake: number) => {
    const { out, logsumexp } = await onGpu(gpu, c, (q, k, v, start, end) => {
      const y = plantAny(attention(q, k, v, { start, end }, c.shape), mistakes);
      return [y, y.producer!.outputs[1]!];
    }, { mistake });
    return Math.max(maxDifference(out, expected.out), maxDifference(logsumexp, expected.logsumexp));
  };
  assert(await found(0) < 1e-5);
  for (const [i, [right]] of mistakes.entries()) assert(await found(i + 1) > 1e-4, right);
});

/** Every variant takes many minutes, and runs where it is asked for. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";

gpuTest("attention() matches f64 for wide heads and for much work at once", async (gpu, family) => {
  for (const [name, c] of LONG) {
    if (!ALL && (family === "tiled" || name !== "heads of 256")) {
      console.log(`skip: ${name}: takes long; LIMBECK_ALL_VARIANTS=1 runs it`);
      continue;
    }
    assertMatches(await onGpu(gpu, c), oracle(c));
  }
});

gpuTest("attention() splits wide heads where workgroup memory is small", async (_, family) => {
  if (family === "tiled") {
    console.log("skip: tiles for hardware fit the least memory that there may be, and are never split");
    return;
  }
  const c = makeCase(shape(2, 1, 48), 40, packed([40]));
  assertMatches(await onGpu(await testGpu(family, { maxWorkgroupMemory: 4096 }), c), oracle(c));
});

const named = (
  family: KernelFamily,
  { queries, keys, shape: { heads, keyValueHeads, headDim, softCap } }: Case,
) => {
  const shape = { queries, keys, heads, keyValueHeads, headDim, capped: softCap !== undefined };
  return (["attention", "attention dq", "attention dk dv"] as const).map((part) => {
    const variants = attentionVariants(part);
    const device = { ...DEFAULT_DEVICE, family, maxWorkgroupMemory: 32_768 };
    return {
      key: `${part} ${variants.shapeClass(shape)}`,
      names: variants.candidates(shape, device).map((v) => variants.name(v)),
    };
  });
};

/** The case by each of the variants of that name, forward and backward. */
async function byVariants(gpu: Gpu, family: KernelFamily, c: Case, wanted: RegExp): Promise<void> {
  const choices = named(family, c);
  const names = [...new Set(choices.flatMap((choice) => choice.names))].filter((name) => wanted.test(name));
  assert(names.length > 0, `no variant is called ${wanted}`);
  const expected = oracle(c);
  for (const name of names) {
    const kernels = Object.fromEntries(choices.map(({ key }) => [key, name]));
    assertMatches(await onGpu(gpu, c, undefined, {}, kernels), expected);
  }
}

gpuTest("attention() by other variants than the first matches f64", async (gpu, family) => {
  const c = makeCase(shape(2, 1, 20), 90, packed([31, 1, 17, 35], 6));
  // Keys, or queries, by eight and by 32 where sixteen are usual. Of hardware: two vectors of scores a thread, more rows than a block, and
  // threads without a piece to load; columns of half a block at a time; heads of a group on their own. What does each is in the text that
  // all parts include.
  const names = family === "subgroup8"
    ? ["subgroup8 32x32", "subgroup8 32x8", "subgroup8 32x32"]
    : ["tiled 64x32 by 64", "tiled 32x64 by 64", "tiled 32x32 by 64, heads apart"];
  const kernels = Object.fromEntries(
    named(family, c).map(({ key, names: all }, i) => {
      assert(all.includes(names[i]!), `${names[i]} is no ${key}`);
      return [key, names[i]!];
    }),
  );
  assertMatches(await onGpu(gpu, c, undefined, {}, kernels), oracle(c));
});

gpuTest(
  "attention() by every variant matches f64, at heads of 20 to 256, capped or not",
  async (gpu, family) => {
    if (!ALL) {
      console.log("skip: takes many minutes; LIMBECK_ALL_VARIANTS=1 runs it");
      return;
    }
    for (const [headDim, softCap] of [[20], [64, 5], [128], [256]] as const) {
      const c = makeCase(
        { ...shape(4, 2, headDim), ...(softCap ? { softCap } : {}) },
        140,
        packed([61, 1, 17, 61]),
      );
      console.log(`heads of ${headDim}`);
      await byVariants(gpu, family, c, /./);
    }
  },
);

gpuTest("attention() keeps its precision where a key has thousands of queries", async (gpu, family) => {
  const c = makeCase(shape(4, 1, 4), 1500, packed([1500]), 0.3);
  const [actual, expected] = [await onGpu(gpu, c, undefined, {}, smallest(gpu, family)), oracle(c)];
  for (const name of ["dq", "dk", "dv"] as const) {
    const error = relativeError(actual[name], expected[name]);
    assert(error < 8e-7, `${name} is off by ${error}`);
  }
});

gpuTest("attention() stays exact when scores are in the thousands", async (gpu, family) => {
  const c = makeCase(shape(2, 2, 8), 40, packed([40]), 40);
  const expected = oracle(c);
  assert(Math.max(...expected.logsumexp) > 1000);
  assertMatches(await onGpu(gpu, c, undefined, {}, smallest(gpu, family)), expected, 400);
});

gpuTest("attention() gives the same bits twice", async (gpu, family) => {
  const c = makeCase(shape(4, 2, 8), 70, packed([50, 20]));
  assertEquals(
    await onGpu(gpu, c, undefined, {}, smallest(gpu, family)),
    await onGpu(gpu, c, undefined, {}, smallest(gpu, family)),
  );
});

gpuTest(
  "attention() has the gradients that central differences of the f64 oracle have",
  async (gpu, family) => {
    const c = makeCase(shape(2, 1, 4), 18, packed([11, 6], 1));
    const actual = await onGpu(gpu, c, undefined, {}, smallest(gpu, family));
    const analytic = oracle(c);
    for (const [which, name] of (["dq", "dk", "dv"] as const).entries()) {
      const inputs = c.data.map((t) => Float64Array.from(t));
      const loss = () => oracle(c, inputs).out.reduce((sum, y, i) => sum + y * c.data[3][i]!, 0);
      const differences = inputs[which]!.map((x, i) => {
        inputs[which]![i] = x + 1e-5;
        const above = loss();
        inputs[which]![i] = x - 1e-5;
        const below = loss();
        inputs[which]![i] = x;
        return (above - below) / 2e-5;
      });
      assertWithin(analytic[name], differences, 1e-8, `${name} of the oracle`);
      assertWithin(actual[name], differences, 5e-6, name);
    }
  },
);

gpuTest("attention() makes only the gradients that are wanted", async (gpu, family) => {
  const c = makeCase(shape(2, 1, 8), 20, packed([20]));
  const expected = oracle(c);
  for (const [wanted, name] of [[0, "dq"], [1, "dk"], [2, "dv"]] as const) {
    const { out } = await onGpu(
      gpu,
      c,
      (q, k, v, start, end, dout) => {
        const y = attention(q, k, v, { start, end }, c.shape);
        const made = gradients(q.graph, [[y, dout]], [[q, k, v][wanted]!]) as Tensor[];
        const backward = q.graph.nodes.filter((n) => n.op.name === attentionGradientOp.name);
        assertEquals(backward.map((n) => n.outputs.length), [wanted === 0 ? 1 : 2]);
        return made;
      },
      {},
      smallest(gpu, family),
    );
    assertWithin(out, expected[name], 8e-6, name);
  }
});

Deno.test("attention() longer than the software driver's loops may be is NaN, not wrong", async () => {
  const gpu = await testGpu("subgroup8");
  const few: [number, number][] = [[0, 40_000], [0, 40_000]];
  const longCache = makeCase(shape(1, 1, 48), 40_000, few);
  const { out, dq } = await onGpu(gpu, longCache);
  // What is never written is NaN here anyway; the first number always is.
  assertEquals([out[0], dq[0]], [NaN, NaN], "many keys");
  const many = Array.from({ length: 40_000 }, (): [number, number] => [0, 5]);
  const longSample = await onGpu(gpu, makeCase(shape(1, 1, 48), 5, many));
  assertEquals([longSample.dk[0], longSample.dv[0]], [NaN, NaN], "many queries");
  // Half as long, there are turns enough.
  const half = makeCase(shape(1, 1, 48), 20_000, [[0, 20_000], [0, 20_000]]);
  assertWithin((await onGpu(gpu, half)).dq, oracle(half).dq, 8e-6, "half as many keys");
});

Deno.test("attention() refuses shapes that do not fit, naming them", () => {
  const program = new Program();
  const g = program.block("test");
  const input = (name: string, shape: number[], dtype: "f32" | "i32" = "f32") => g.input(name, shape, dtype);
  const [q, k, v] = [input("q", [5, 16]), input("k", [7, 8]), input("v", [7, 8])];
  const ranges = { start: input("start", [5], "i32"), end: input("end", [5], "i32") };
  const good = shape(4, 2, 4);
  assertEquals(attention(q, k, v, ranges, good).shape, [5, 16]);
  const refused: [() => unknown, string][] = [
    [() => attention(q, k, v, ranges, shape(4, 3, 4)), "evenly"],
    [() => attention(q, k, v, ranges, shape(4, 2, 6)), "q must be [T, 4 * 6]"],
    [() => attention(q, k, v, ranges, shape(4, 2, 260)), "up to 256"],
    [() => q.graph.add(attentionOp, [q, k, v, ranges.start, ranges.end], shape(8, 4, 2)), "multiple of 4"],
    [() => attention(q, k, v, ranges, shape(2, 2, 4)), "q must be [T, 2 * 4]"],
    [() => attention(q, k, v, ranges, shape(4, 1, 4)), "k must be [S, 1 * 4]"],
    [() => attention(q, k, input("w", [6, 8]), ranges, good), "one shape"],
    [() => attention(q, k, v, { ...ranges, end: input("e", [7], "i32") }, good), "start and end"],
    [() => attention(q, k, v, ranges, { ...good, softCap: 0 }), "a positive number, not 0"],
  ];
  for (const [call, message] of refused) assertThrows(call, ShapeError, message);
  const made = g.add(attentionOp, [q, k, v, ranges.start, ranges.end], good);
  assertThrows(() => gradients(g, [[made[1]!, made[1]!]], [q]), ShapeError, "denominator");
});

Deno.test("maxDifference() counts NaN as infinite", () => assertEquals(maxDifference([NaN], [0]), Infinity));
