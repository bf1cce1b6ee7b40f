/** Losses with a cached target against an independent f64 implementation: the kernels of both families, and the f64 reference. */
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { referenceSparseRow } from "../../src/losses/sparse_reference.ts";
import type { SparseTarget } from "../../src/losses/sparse_target.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import softCrossEntropy from "../../plugins/losses/soft_cross_entropy.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { assertGolden, type GoldenRow, readGoldens } from "./golden.ts";
import { withGpu } from "./hard_rows.ts";
import { runKernel, term } from "./harness.ts";
import { entriesOf } from "./sparse_rows.ts";

/** How a golden is computed: the loss, and which tokens stand for the teacher. */
const CASES = {
  topk_tail_fkl: { loss: forwardKl, kind: "top-k", weights: undefined },
  topk_bucket_rkl: { loss: reverseKl, kind: "top-k", weights: undefined },
  // The K probabilities brought to the sum 1 are the weights of a sample, and nothing is left for the rest.
  topk_renorm_teacher_fkl: { loss: forwardKl, kind: "samples", weights: "teacher's" },
  rs_kd: { loss: softCrossEntropy, kind: "samples", weights: "given" },
} as const;

const open = async (file: string) =>
  await SafetensorsFile.open(await openFile(sharedPath(`goldens/losses/${file}`)));

/** Each case at each temperature, its rows with the cached target. */
async function* cases(vocabulary: number) {
  const inputs = await open(`V${vocabulary}_inputs.safetensors`);
  const array = async (name: string) => {
    const { shape, data } = await inputs.readArray(name);
    const width = shape[1]!;
    return (row: number) => Array.from(data as Float64Array).slice(row * width, (row + 1) * width);
  };
  const [top, ids, weights] = [await array("topk_ids"), await array("rs_ids"), await array("rs_weights")];
  inputs.close();
  const load = await readGoldens(vocabulary, open, sharedPath("goldens/losses/losses.json"));
  for (const [name, { loss, kind, weights: which }] of Object.entries(CASES)) {
    for (const temperature of [1, 2]) {
      const golden = await load(name, `tau${temperature}`);
      if (!golden) throw new Error(`there is no golden ${name}`);
      const entries = (which === "given" ? ids(0) : top(0)).length;
      const target: SparseTarget = { kind, entries, temperatures: kind === "samples" ? [] : [1, 2] };
      const rows = golden.rows.map((row, r): GoldenRow => {
        // Losses without labels are golden in row 6 too; here every loss is masked there, so it gets a label.
        const labelled = { ...row, label: Math.max(0, row.label) };
        const own = entriesOf(row.teacher, top(r), target.temperatures);
        if (kind === "top-k") return { ...labelled, cached: own };
        const cached = which === "given"
          ? { ids: ids(r), logits: weights(r).map(Math.log), tails: [] }
          : { ...own, logits: Array.from(own.logits, (z) => z / temperature), tails: [] };
        return { ...labelled, cached };
      });
      yield { name: `${name} tau${temperature}`, terms: [term(loss, {}, { temperature })], target, rows };
    }
  }
}

for (const vocabulary of [5, 512]) {
  sharedTest(`referenceSparseRow() agrees with the goldens at vocabulary ${vocabulary}`, async () => {
    for await (const { name, terms, target, rows } of cases(vocabulary)) {
      for (const row of rows) {
        const student = Float64Array.from(row.student);
        const { values, gradient } = referenceSparseRow(terms, student, row.cached!, target, row.label);
        assertGolden(name, row, values[0]!, gradient);
      }
    }
  });
}

// The number of entries is in the text, so each vocabulary has kernels of its own: one for each family. Both families at more sizes are
// compared with the reference in sparse_test.ts, and the reference with all goldens above.
for (const [family, vocabulary] of [["tiled", 5], ["subgroup8", 512]] as const) {
  sharedTest(
    `${family} kernels with a cache agree with the goldens at vocabulary ${vocabulary}`,
    async () => {
      await withGpu(family, async (gpu) => {
        for await (const { name, terms, target, rows } of cases(vocabulary)) {
          const { values, gradient } = await runKernel(gpu, terms, rows, { sparseTarget: target });
          rows.forEach((row, r) => assertGolden(name, row, values[r]![0]!, gradient[r]!));
        }
      });
    },
  );
}
