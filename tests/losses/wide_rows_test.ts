/**
 * Losses over the rows of the largest vocabularies. The software driver ends all loops of a thread after 65,535 turns, without a word, so
 * a loss that takes too many of them is right for small vocabularies and wrong for large ones.
 */
import { assertEquals } from "@std/assert";
import { z } from "zod";
import { builtins } from "../../plugins/mod.ts";
import { CONTRACT_VERSION, defineLoss, type Divergence, type RowLoss } from "../../src/registry/contract.ts";
import { random, withGpu } from "./hard_rows.ts";
import { assertClose, reference, type Row, runKernel, term } from "./harness.ts";

/** That of Gemma 3; and one that is no multiple of four, whose loops are others with as many turns an entry. */
const [MOST, ODD] = [262_144, 32_003];

const losses = builtins.filter((plugin): plugin is Divergence | RowLoss =>
  plugin.kind === "divergence" || plugin.kind === "row-loss"
);

/** Logits that differ enough for the order of the likely ones not to depend on rounding. */
function wideRow(vocabulary: number): Row {
  const next = random(vocabulary);
  const logits = () => Float32Array.from({ length: vocabulary }, () => 12 * (next() - 0.5));
  return { name: `wide ${vocabulary}`, student: logits(), teacher: logits(), label: vocabulary - 3 };
}

// Divergences share kernels, whose loops take the more turns; universal-logit is sorted whole in a test of its own, where entries whose
// order f32 cannot see are told apart.
const divergences = losses.filter(({ kind }) => kind === "divergence");
const TOGETHER = 6;
const KERNELS = [
  ...Array.from(
    { length: Math.ceil(divergences.length / TOGETHER) },
    (_, i) => divergences.slice(i * TOGETHER, (i + 1) * TOGETHER),
  ),
  ...losses.filter(({ kind, id }) => kind === "row-loss" && id !== "universal-logit").map((loss) => [loss]),
];

Deno.test("every loss has a kernel here", () => {
  assertEquals(KERNELS.flat().length, losses.length - 1);
});

for (const [place, kernel] of KERNELS.entries()) {
  const ids = kernel.map(({ id }) => id).join(", ");
  Deno.test(`subgroup8 ${ids} agree with f64 over up to ${MOST} entries`, async () => {
    await withGpu("subgroup8", async (gpu) => {
      // Row losses write their loops themselves, the same ones for both. The sweep of a divergence differs, in one way for all of them.
      for (const vocabulary of place === 0 ? [MOST, ODD] : [MOST]) {
        const row = wideRow(vocabulary);
        const terms = kernel.map((loss) => term(loss));
        const { values, gradient } = await runKernel(gpu, terms, [row]);
        const expected = reference(terms, row);
        expected.values.forEach((value, k) =>
          assertClose([values[0]![k]!], [value], 5e-5, `${row.name}: value of ${kernel[k]!.id}`)
        );
        assertClose(gradient[0]!, expected.gradient, 2e-5 * kernel.length, `${row.name}: gradient`);
      }
    });
  });
}

/** Looks at the row again and again, an entry a turn. */
const restless: RowLoss = defineLoss({
  id: "restless",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "The mean logit, many times",
  source: "here",
  options: z.strictObject({ times: z.int() }),
  needsTeacher: false,
  wgsl: ({ options: { times } }) => `
    fn $value() -> f32 {
      var total = 0.0;
      for (var time = 0u; time < ${times}u + (row_vocabulary & 0u); time++) {
        for (var v = lane; v < row_vocabulary; v += LANES) { total += student(v); }
      }
      return row_sum(total) / f32(row_vocabulary * ${times}u);
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 { return 1.0 / f32(row_vocabulary); }`,
  reference: ({ student }) => ({
    value: student.reduce((sum, z) => sum + z / student.length, 0),
    gradient: student.map(() => 1 / student.length),
  }),
});

Deno.test("subgroup8 a row loss with more turns than the software driver lets it have is NaN, not wrong", async () => {
  await withGpu("subgroup8", async (gpu) => {
    const row = wideRow(8_001);
    for (const times of [20, 100]) {
      const terms = [
        term(builtins.find((p) => p.id === "forward-kl") as Divergence),
        term(restless, { times }),
      ];
      const { values } = await runKernel(gpu, terms, [row], { valuesBefore: 1 });
      const expected = times === 20 ? reference(terms, row).values : [NaN, NaN];
      if (times === 20) assertClose(values[0]!, expected, 1e-4, row.name);
      else assertEquals([...values[0]!], expected);
    }
  });
});
