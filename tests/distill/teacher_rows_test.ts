/** What is kept of a teacher: against f64, and against training kernels that get it back. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import { cacheScalars, teacherRows } from "../../src/distill/program/fed/teacher_rows.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { SparseTarget } from "../../src/losses/sparse_target.ts";
import { hardRows } from "../losses/hard_rows.ts";
import { type Row, runKernel, term } from "../losses/harness.ts";
import { topOf } from "../losses/sparse_rows.ts";
import { assertWithin, gpuTest, run } from "../tensor/harness.ts";
import { type Mistake, plantAny } from "../tensor/planted.ts";

const MISTAKES: readonly Mistake[] = [
  ["put_student(id, -3.0e38);", "if (!WRONG) { put_student(id, -3.0e38); }"],
  ["return shift + log(sum);", "return select(shift, 0.0, WRONG) + log(sum);"],
];

const top = (entries: number): SparseTarget => ({ kind: "top-k", entries, temperatures: [0.7, 1, 2] });

/** The teacher's rows, through the GPU. */
async function kept(
  gpu: Gpu,
  rows: readonly Row[],
  target: SparseTarget,
  mistake?: number,
): Promise<Row[]> {
  const vocabulary = rows[0]!.teacher.length;
  const data = Float32Array.from(rows.flatMap((row) => [...row.teacher]));
  const { outputs, inputs } = await run(
    gpu,
    [
      { shape: [rows.length], dtype: "i32", data: Int32Array.from(rows, (row) => row.label) },
      { shape: [rows.length, vocabulary], kind: "state", data },
    ],
    (_, labels, logits) => {
      const made = teacherRows(labels!, logits!, target, undefined);
      if (mistake !== undefined) plantAny(made[2]!, MISTAKES);
      return made;
    },
    { ...Object.fromEntries(cacheScalars(target)), mistake: mistake ?? 0 },
  );
  assertEquals(inputs[1], data, "the logits are as they were");
  const { entries: k, temperatures } = target;
  const [ids, logits, tails] = outputs as [Float32Array, Float32Array, Float32Array];
  return rows.map((row, r) => ({
    ...row,
    cached: {
      ids: [...ids.slice(r * k, (r + 1) * k)],
      logits: Array.from(logits.slice(r * k, (r + 1) * k), (z) => Math.fround(z - logits[r * k]!)),
      tails: temperatures.map((_, c) => tails[c * rows.length + r]!),
    },
  }));
}

for (const [vocabulary, entries] of [[5, 5], [7, 6], [513, 64], [4096, 256]]) {
  gpuTest(`the ${entries} largest of ${vocabulary} and what the others weigh agree with f64`, async (gpu) => {
    const rows = hardRows(vocabulary!).filter((row) => row.label >= 0);
    const target = top(entries!);
    for (const { name, teacher, cached } of await kept(gpu, rows, target)) {
      const expected = topOf(teacher, entries!, target.temperatures);
      assertEquals(cached!.ids, expected.ids, name);
      assertEquals(cached!.logits, expected.logits, name);
      const finite = (x: ArrayLike<number>) => Array.from(x, (y) => Math.max(y, -1e30));
      const spread = Math.max(1, ...Array.from(expected.tails, Math.abs).filter(Number.isFinite));
      assertWithin(finite(cached!.tails), finite(expected.tails), 2e-6 * spread, `${name}: tails`);
    }
  });
}

gpuTest("a learner equal to a cached teacher has no loss and no gradient, to the last bit", async (gpu) => {
  for (const [vocabulary, entries] of [[512, 64], [513, 64], [5, 5]] as const) {
    const target = top(entries);
    const rows = (await kept(gpu, hardRows(vocabulary).filter((row) => row.label >= 0), target))
      .map((row) => ({ ...row, student: row.teacher }));
    const terms = [term(forwardKl), term(reverseKl, {}, { temperature: 2 })];
    const { values, gradient } = await runKernel(gpu, terms, rows, { sparseTarget: target });
    for (const zeros of [...values, ...gradient]) assert(zeros.every((x) => x === 0));
  }
});

gpuTest("what the others weigh, with a planted mistake, does not pass", async (gpu) => {
  const rows = hardRows(513).slice(0, 3);
  const target = top(64);
  const compare = async (mistake: number) => {
    for (const { teacher, cached } of await kept(gpu, rows, target, mistake)) {
      assertWithin(cached!.tails, topOf(teacher, 64, target.temperatures).tails, 1e-4);
    }
  };
  await compare(0);
  for (const [i, [right]] of MISTAKES.entries()) {
    await assertRejects(() => compare(i + 1), Error, "differ by", right);
  }
});
