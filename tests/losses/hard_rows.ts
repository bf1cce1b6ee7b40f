/** Rows of logits that break naive kernels, and the comparison of a kernel with the f64 reference on them. */
import type { Gpu } from "../../src/gpu/device.ts";
import type { ResolvedLoss } from "../../src/losses/traced.ts";
import { freeing, testGpu } from "../tensor/harness.ts";
import { assertClose, reference, type Row } from "./harness.ts";

/** Numbers in [0, 1) that are the same in every run. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Rows of every kind that a kernel must survive. */
export function hardRows(vocabulary: number): Row[] {
  const next = random(vocabulary);
  const logits = (f: (v: number) => number) => Float32Array.from({ length: vocabulary }, (_, v) => f(v));
  const normal = () => logits(() => 3 * (next() + next() + next() - 1.5));
  const label = () => Math.floor(next() * vocabulary);
  const padded = (z: Float32Array) =>
    z.map((x, v) => v > 0 && v >= vocabulary - vocabulary / 3 ? -Infinity : x);
  const same = normal();
  const hot = (at: number) => logits((v) => v === at % vocabulary ? 40 : next());
  return [
    { name: "random", student: normal(), teacher: normal(), label: label() },
    { name: "label at the end", student: normal(), teacher: normal(), label: vocabulary - 1 },
    {
      name: "tied",
      student: normal().map(Math.round),
      teacher: normal().map(Math.round),
      label: label(),
    },
    {
      name: "extreme",
      student: logits((v) => v % 3 ? 120 * next() - 60 : 60),
      teacher: logits((v) => v % 2 ? 120 * next() - 60 : -60),
      label: label(),
    },
    { name: "padded", student: padded(normal()), teacher: padded(normal()), label: 0 },
    { name: "p = q", student: same, teacher: same.slice(), label: label() },
    { name: "one-hot", student: hot(1), teacher: hot(vocabulary - 1), label: label() },
    { name: "rising", student: logits((v) => v / 64), teacher: logits((v) => -v / 64), label: label() },
    { name: "masked", student: normal(), teacher: normal(), label: -100 },
    {
      name: "masked, broken",
      student: normal().fill(NaN, 0, 1),
      teacher: normal().fill(Infinity),
      label: -100,
    },
  ];
}

/** What f32 can reach: rounding of the logits' differences, times what the loss makes of them. */
export function assertRow(
  terms: readonly ResolvedLoss[],
  row: Row,
  got: { values: Float32Array; gradient: Float32Array },
) {
  const expected = reference(terms, row);
  const spread = Math.max(
    1,
    ...[...row.student, ...row.teacher].filter(Number.isFinite).map(Math.abs),
  );
  terms.forEach((t, k) => {
    const tolerance = 1e-5 + 2e-6 * Math.abs(expected.values[k]!) + 2e-6 * spread;
    assertClose([got.values[k]!], [expected.values[k]!], tolerance, `${row.name}: value of ${t.loss.id}`);
  });
  const scale = Math.max(1, ...terms.map((t) => t.monitor ? 0 : t.weight));
  assertClose(got.gradient, expected.gradient, scale * 1e-6 * spread, `${row.name}: gradient`);
}

/** Runs with the device of a kernel family that the tests of a file share. Buffers must be back where they were when it ends. */
export async function withGpu(
  family: "subgroup8" | "tiled",
  run: (gpu: Gpu) => Promise<void>,
): Promise<void> {
  const gpu = await testGpu(family);
  await freeing(gpu, () => run(gpu));
}
