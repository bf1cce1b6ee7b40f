// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ShapeError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { detach } from "../../src/tensor/ops/detach.ts";
import { type RelationAttributes, relationDivergence, relationsOp } from "../../src/tensor/ops/relations.ts";
import { Program } from "../../src/tensor/plan.ts";
import { assertWithin, gpuTest, randomArray, run, testGpu, type Value } from "./harness.ts";
import { indices, numericGradient } from "./oracle.ts";
import { type Mistake, NOTHING, plantAny } from "./planted.ts";

interface Case {
  readonly attributes: RelationAttributes;
  readonly widths: readonly [number, number];
  readonly start: readonly number[];
  readonly end: readonly number[];
  readonly keys?: readonly number[];
  /** Learner, target, and the gradient of the values of each head. */
  readonly data: readonly [Float32Array, Float32Array, Float32Array];
}

function makeCase(
  attributes: Partial<RelationAttributes> & Pick<RelationAttributes, "kind">,
  headWidths: readonly [number, number],
  lengths: readonly number[],
  { masked = false, size = 1 } = {},
): Case {
  const { heads = 1, scales = [0.5, 0.25], causal = attributes.kind === "softmax" } = attributes;
  const [start, end]: [number[], number[]] = [[], []];
  for (const length of lengths) {
    const first = start.length;
    for (let i = 0; i < length; i++) {
      start.push(first);
      end.push(first + length);
    }
  }
  const rows = start.length;
  const widths = headWidths.map((w) => w * heads) as [number, number];
  return {
    attributes: { kind: attributes.kind, heads, scales, causal },
    ...{ widths, start, end },
    // The whole first sample has no key.
    ...(masked ? { keys: start.map((s, i) => Number(s > 0 && i % 3 !== 1)) } : {}),
    data: [
      randomArray(rows * widths[0], 1, size),
      randomArray(rows * widths[1], 2, size),
      randomArray(rows * heads, 3),
    ],
  };
}

/** Values [heads, T] straight from the definition. */
function values(c: Case, x: ArrayLike<number>, y: ArrayLike<number>): Float64Array {
  const { kind, heads, scales, causal } = c.attributes;
  const rows = c.start.length;
  const product = (side: 0 | 1, i: number, j: number, h: number) => {
    const [data, width] = [[x, y][side]!, c.widths[side]];
    let sum = 0;
    for (let d = h * width / heads; d < (h + 1) * width / heads; d++) {
      sum += data[i * width + d]! * data[j * width + d]!;
    }
    return sum * scales[side];
  };
  return Float64Array.from({ length: heads * rows }, (_, at) => {
    const [h, i] = [Math.floor(at / rows), at % rows];
    const keys: number[] = [];
    for (let j = c.start[i]!; j < c.end[i]! && (!causal || j <= i); j++) if (c.keys?.[j] ?? 1) keys.push(j);
    if (keys.length === 0) return 0;
    const [a, b] = ([0, 1] as const).map((side) => keys.map((j) => product(side, i, j, h))) as [
      number[],
      number[],
    ];
    if (kind === "softmax") {
      const logs = [a, b].map((s) => {
        const top = Math.max(...s);
        const log = top + Math.log(s.reduce((sum, v) => sum + Math.exp(v - top), 0));
        return s.map((v) => v - log);
      }) as [number[], number[]];
      return keys.reduce((sum, _, k) => sum + Math.exp(logs[1][k]!) * (logs[1][k]! - logs[0][k]!), 0);
    }
    const dot = (p: number[], q: number[]) => p.reduce((sum, v, k) => sum + v * q[k]!, 0);
    return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  });
}

async function onGpu(
  gpu: Gpu,
  c: Case,
  change = (_values: Tensor, _gradient: Tensor) => {},
  scalars: Record<string, number> = {},
) {
  const rows = c.start.length;
  const inputs: Value[] = [
    { shape: [rows, c.widths[0]], data: c.data[0] },
    { shape: [rows, c.widths[1]], data: c.data[1] },
    { shape: [c.attributes.heads, rows], data: c.data[2] },
    indices(c.start),
    indices(c.end),
    ...(c.keys ? [indices(c.keys)] : []),
  ];
  const { outputs } = await run(gpu, inputs, (graph, x, y, above, ...ranges) => {
    const made = graph.add(relationsOp, [x!, y!, ...ranges], c.attributes)[0]!;
    const [dx] = gradients(graph, [[made, above!]], [x!]);
    change(made, dx!);
    return [made, dx!];
  }, scalars);
  return { values: outputs[0]!, dx: outputs[1]! };
}

type Oracle = { readonly values: Float64Array; readonly dx: Float64Array };
const known = new WeakMap<Case, Oracle>();

/** Values and gradient in f64; found once for both families. */
function oracle(c: Case): Oracle {
  let found = known.get(c);
  if (!found) {
    const dx = numericGradient((x) => values(c, x, c.data[1]), c.data[0], c.data[2]);
    known.set(c, found = { values: values(c, c.data[0], c.data[1]), dx });
  }
  return found;
}

function assertMatches(
  actual: Awaited<ReturnType<typeof onGpu>>,
  expected: ReturnType<typeof oracle>,
  tolerance = 1,
): void {
  assertWithin(actual.values, expected.values, 3e-6 * tolerance, "values");
  assertWithin(actual.dx, expected.dx, 1e-5 * tolerance, "gradients");
}

const CASES: readonly [string, Case][] = [
  ["one position", makeCase({ kind: "softmax" }, [4, 4], [1])],
  ["one sample of odd length, odd widths", makeCase({ kind: "softmax", heads: 3 }, [5, 7], [33])],
  ["samples back to back, then filler", makeCase({ kind: "softmax", heads: 2 }, [8, 12], [13, 1, 29, 1, 1])],
  ["more keys than threads", makeCase({ kind: "softmax" }, [4, 8], [67, 3])],
  [
    "only some keys, not causal",
    makeCase({ kind: "softmax", causal: false }, [4, 3], [6, 11], { masked: true }),
  ],
  ["similarities of one position", makeCase({ kind: "cosine" }, [8, 4], [1])],
  ["similarities, odd widths", makeCase({ kind: "cosine" }, [5, 9], [9, 21])],
  ["similarities with only some keys", makeCase({ kind: "cosine" }, [12, 8], [6, 17, 1], { masked: true })],
  ["similarities, more keys than threads", makeCase({ kind: "cosine", heads: 2 }, [4, 4], [66])],
  ["similarities, causal and wide", makeCase({ kind: "cosine", causal: true }, [36, 260], [7, 4])],
];

for (const [name, c] of CASES) {
  gpuTest(`relations and their gradient match f64: ${name}`, async (gpu, family) => {
    assertMatches(await onGpu(gpu, c), oracle(c));
    const folded = await testGpu(family, { maxWorkgroupsPerDimension: 8 });
    assertEquals(await onGpu(folded, c), await onGpu(gpu, c));
  });
}

gpuTest("relations of equal models do not differ at all, and have no gradient", async (gpu) => {
  const made = makeCase({ kind: "softmax", heads: 2, scales: [0.5, 0.5] }, [8, 8], [20, 5]);
  const { values, dx } = await onGpu(gpu, { ...made, data: [made.data[0], made.data[0], made.data[2]] });
  assertWithin(values, new Float64Array(values.length), 0, "values");
  assertWithin(dx, new Float64Array(dx.length), 0, "gradients");
});

gpuTest("relations stay exact where scores are in the hundreds", async (gpu) => {
  const c = makeCase({ kind: "softmax", heads: 2, scales: [-1, 1] }, [8, 8], [20], { size: 8 });
  const expected = oracle(c);
  assert(Math.max(...expected.values) > 20);
  const actual = await onGpu(gpu, c);
  assertWithin(actual.values, expected.values, 2e-4, "values");
  assertWithin(actual.dx, expected.dx, 2e-3, "gradients");
});

const MISTAKES: Record<Case["attributes"]["kind"], Record<"values" | "gradient", readonly Mistake[]>> = {
  softmax: {
    values: [
      ["< last)", "< last + select(0, 1, WRONG))"],
      ["gap * mine", "gap * select(mine, vec4<f32>(1.0), WRONG)"],
      ["partial3[i] * other", "partial3[i] * select(other, mine, WRONG)"],
    ],
    gradient: [
      ["- exp(b - stat.y)", "- exp(b - select(stat.y, stat.x, WRONG))"],
      ["(i <= vec4", "(i + select(0, 1, WRONG) <= vec4"],
    ],
  },
  cosine: {
    values: [["keys[j] != 0", "(keys[j] != 0) != WRONG"]],
    gradient: [
      ["inside & is_key", "inside & select(is_key, j_is_key, WRONG)"],
      ["stat.y * b", "select(stat.y, stat.x, WRONG) * b"],
    ],
  },
};

const SPOILT = {
  softmax: makeCase({ kind: "softmax", heads: 2 }, [8, 4], [21, 10], { size: 2 }),
  cosine: makeCase({ kind: "cosine" }, [8, 4], [6, 17], { masked: true }),
};

gpuTest("the comparison fails for kernels with a planted mistake", async (gpu) => {
  for (const kind of ["softmax", "cosine"] as const) {
    const c = SPOILT[kind];
    const expected = oracle(c);
    const { values, gradient } = MISTAKES[kind];
    const withMistake = (mistake: number) =>
      onGpu(gpu, c, (made, dx) => {
        plantAny(made, values);
        plantAny(dx, [...values.map(() => NOTHING), ...gradient]);
      }, { mistake });
    assertMatches(await withMistake(0), expected, 10);
    for (const [i, [right]] of [...values, ...gradient].entries()) {
      const actual = await withMistake(i + 1);
      assertThrows(() => assertMatches(actual, expected, 10), Error, "differ by", right);
    }
  }
});

/** Values in f64, and the slope of their weighted sum in one direction: a difference for each number would take hours. */
const long = (() => {
  const c = makeCase({ kind: "cosine" }, [651, 651], [520], { size: 0.2 });
  let found: { values: Float64Array; direction: Float32Array; slope: number } | undefined;
  const oracle = () => {
    if (found) return found;
    const direction = randomArray(c.data[0].length, 9);
    const along = (step: number) => {
      const x = Float64Array.from(c.data[0], (v, i) => v + step * direction[i]!);
      return values(c, x, c.data[1]).reduce((sum, v, i) => sum + v * c.data[2][i]!, 0);
    };
    const slope = (along(1e-5) - along(-1e-5)) / 2e-5;
    return found = { values: values(c, c.data[0], c.data[1]), direction, slope };
  };
  return { c, oracle };
})();

gpuTest("relations of long samples and wide vectors match f64", async (gpu) => {
  const { values: got, dx } = await onGpu(gpu, long.c);
  const { values: wanted, direction, slope } = long.oracle();
  assertWithin(got, wanted, 3e-6, "values");
  assertWithin(
    [dx.reduce((sum, v, i) => sum + v * direction[i]!, 0)],
    [slope],
    1e-4 * Math.abs(slope),
    "slope",
  );
});

Deno.test("relations with more turns than the software driver lets them have are NaN, not wrong", async () => {
  for (const kind of ["softmax", "cosine"] as const) {
    // Few positions, so that there is little to compute beside the turns.
    const WIDTH = 280_001;
    const { values, dx } = await onGpu(
      await testGpu("subgroup8"),
      makeCase({ kind }, [WIDTH, 16_403], [8]),
    );
    assertEquals([values[7], dx[7 * WIDTH]], [NaN, NaN], kind);
  }
});

Deno.test("relations refuse heads that do not divide a width, other shapes, and a target that learns", () => {
  const g = new Program().block("test");
  const [x, y] = [g.input("x", [5, 12], "f32"), g.input("y", [5, 8], "f32")];
  const sample = { start: g.input("start", [5], "i32"), end: g.input("end", [5], "i32") };
  const message = "3 heads do not divide the widths 12 and 8";
  assertThrows(() => relationDivergence(x, y, sample, 3), ShapeError, message);
  const other = g.input("other", [6, 8], "f32");
  assertThrows(() => relationDivergence(x, other, sample, 2), ShapeError, "the same positions");
  const ends = g.input("ends", [4], "i32");
  assertThrows(() => relationDivergence(x, y, { ...sample, end: ends }, 2), ShapeError, "i32 [T]");
  const above = g.input("above", [5], "f32");
  const loss = relationDivergence(x, y, sample, 2);
  assertThrows(() => gradients(g, [[loss, above]], [x, y]), ShapeError, "the target is constant");
  const detached = relationDivergence(x, detach(y), sample, 2);
  const [dx, dy] = gradients(g, [[detached, above]], [x, y]);
  assertEquals([dx!.shape, dy], [[5, 12], undefined]);
});
