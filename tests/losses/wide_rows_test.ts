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

/** Those of Gemma 3 and of Qwen 2.5, and one that is no multiple of four. */
const VOCABULARIES = [262_144, 151_936, 151_935];

const losses = builtins.filter((plugin): plugin is Divergence | RowLoss =>
  plugin.kind === "divergence" || plugin.kind === "row-loss"
);

/** Logits that differ enough for the order of the likely ones not to depend on rounding. */
function wideRow(vocabulary: number): Row {
  const next = random(vocabulary);
  const logits = () => Float32Array.from({ length: vocabulary }, () => 12 * (next() - 0.5));
  return { name: `wide ${vocabulary}`, student: logits(), teacher: logits(), label: vocabulary - 3 };
}

// Sorted whole in a test of its own, where entries whose order f32 cannot see are told apart.
for (const loss of losses.filter(({ id }) => id !== "universal-logit")) {
  Deno.test(`subgroup8 ${loss.id} agrees with f64 over up to ${VOCABULARIES[0]} entries`, async () => {
    await withGpu("subgroup8", async (gpu) => {
      for (const vocabulary of VOCABULARIES) {
        const row = wideRow(vocabulary);
        const terms = [term(loss)];
        const { values, gradient } = await runKernel(gpu, terms, [row]);
        const expected = reference(terms, row);
        assertClose(values[0]!, expected.values, 5e-5, `${row.name}: value`);
        assertClose(gradient[0]!, expected.gradient, 2e-5, `${row.name}: gradient`);
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
