/** Values and gradients against an independent f64 implementation: the kernels of both families, and the f64 reference. */
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { openFile } from "../../src/formats/files.ts";
import type { KernelFamily } from "../../src/gpu/description.ts";
import type { ResolvedLoss } from "../../src/losses/traced.ts";
import crossEntropy from "../../plugins/losses/cross_entropy.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import { hasShared, sharedPath, sharedTest } from "../shared.ts";
import { assertGolden, type GoldenCase, type GoldenRow, readGoldens } from "./golden.ts";
import adaptiveKl from "../../plugins/losses/adaptive_kl.ts";
import alphaBetaDivergence from "../../plugins/losses/alpha_beta_divergence.ts";
import alphaDivergence from "../../plugins/losses/alpha_divergence.ts";
import centredLogitMse from "../../plugins/losses/centred_logit_mse.ts";
import decoupledKd from "../../plugins/losses/decoupled_kd.ts";
import entropy from "../../plugins/losses/entropy.ts";
import entropyGapKl from "../../plugins/losses/entropy_gap_kl.ts";
import jensenShannon from "../../plugins/losses/jensen_shannon.ts";
import pairwiseRanking from "../../plugins/losses/pairwise_ranking.ts";
import rankCorrelation from "../../plugins/losses/rank_correlation.ts";
import skewKl from "../../plugins/losses/skew_kl.ts";
import skewReverseKl from "../../plugins/losses/skew_reverse_kl.ts";
import softCrossEntropy from "../../plugins/losses/soft_cross_entropy.ts";
import sortedTopK from "../../plugins/losses/sorted_top_k.ts";
import taid from "../../plugins/losses/taid.ts";
import totalVariation from "../../plugins/losses/total_variation.ts";
import universalLogit from "../../plugins/losses/universal_logit.ts";
import { withGpu } from "./hard_rows.ts";
import { atAnyTemperature, reference, runKernel, term } from "./harness.ts";
import fixtures from "./fixtures/v5.json" with { type: "json" };

const mix = (share: number) => (temperature: number): ResolvedLoss[] => [
  term(forwardKl, {}, { weight: share, temperature }),
  term(crossEntropy, {}, { weight: 1 - share }),
];

/** How a golden is computed. */
interface Case {
  terms(temperature: number, vocabulary: number): ResolvedLoss[];
  /** Row 6 is masked. */
  readonly labelled?: "all" | "partly";
  /** Largest vocabulary at which the loss is the golden's. */
  readonly most?: number;
  /** The golden's name where it has several cases. */
  readonly golden?: string;
  /** The teacher's vocabulary is shorter by so many entries, which have probability 0. */
  readonly padded?: number;
  /** Another case's kernel with another number in its text. */
  readonly another?: boolean;
}

/** The terms of each golden, by its name, for a temperature. */
const CASES: Record<string, Case> = {
  akl: { terms: (temperature) => [term(adaptiveKl, {}, { temperature })] },
  rank_pairwise: { terms: (_, vocabulary) => [term(pairwiseRanking, { k: vocabulary === 5 ? 3 : 8 })] },
  uld: { terms: (temperature) => [term(universalLogit, {}, { temperature })] },
  uld_short_teacher: { terms: (temperature) => [term(universalLogit, {}, { temperature })], padded: 2 },
  "uld by sorted-top-k": {
    terms: (temperature) => [term(sortedTopK, { k: 5 }, { temperature })],
    ...{ golden: "uld", most: 5, another: true },
  },
  ce: { terms: () => [term(crossEntropy)], labelled: "all" },
  fkl: { terms: (temperature) => [term(forwardKl, {}, { temperature })] },
  rkl: { terms: (temperature) => [term(reverseKl, {}, { temperature })] },
  "llm_neo_a0.5": { terms: mix(0.5), labelled: "partly" },
  "llm_neo_a0.9": { terms: mix(0.9), labelled: "partly" },
  soft_ce: { terms: (temperature) => [term(softCrossEntropy, {}, { temperature })] },
  entropy: { terms: (temperature) => [term(entropy, {}, { temperature })] },
  tvd: { terms: (temperature) => [term(totalVariation, {}, { temperature })] },
  bdkd_delta2: {
    terms: (temperature) => [term(crossEntropy), term(entropyGapKl, {}, { temperature })],
    labelled: "partly",
  },
  dkd_aT1_bN2: {
    terms: (temperature) => [term(decoupledKd, { others: 2 }, { temperature })],
    labelled: "all",
  },
  centred_mse: { terms: () => [term(centredLogitMse)] },
  "skew_fkl_lam0.1": { terms: (temperature) => [term(skewKl, {}, { temperature })] },
  "skew_rkl_lam0.1": { terms: (temperature) => [term(skewReverseKl, {}, { temperature })] },
  "skew_rkl_sg_lam0.1": {
    terms: (temperature) => [term(skewReverseKl, { stopGradient: true }, { temperature })],
  },
};
for (const beta of [0, 0.1, 0.5, 0.9, 1]) {
  CASES[`jsd_b${beta}`] = {
    terms: (temperature) => [term(jensenShannon, { beta }, { temperature })],
    another: beta === 0.1 || beta === 0.9,
  };
  if (beta > 0 && beta < 1) {
    CASES[`jsd_norm_b${beta}`] = {
      terms: (temperature) => [term(jensenShannon, { beta, normalize: true }, { temperature })],
      another: beta !== 0.5,
    };
  }
}
for (const epsilon of [0.1, 1, 10]) {
  CASES[`rlkd_k5_eps${epsilon}`] = {
    terms: () => [term(rankCorrelation, { epsilon })],
    another: epsilon !== 1,
  };
}
for (const a of [0.3, 0.5, 0.7]) {
  CASES[`alpha_a${a}`] = {
    terms: (temperature) => [term(alphaDivergence, { alpha: a }, { temperature })],
    another: a !== 0.5,
  };
}
for (const [a, b] of [[0.2, 0.7], [0.5, 0.5]]) {
  CASES[`ab_a${a}_b${b}`] = {
    terms: (temperature) => [term(alphaBetaDivergence, { alpha: a, beta: b }, { temperature })],
    another: a !== 0.5,
  };
}
for (const t of [0.2, 0.6, 1]) {
  CASES[`taid_t${t}`] = { terms: (temperature) => [term(taid, { t }, { temperature })] };
}

type Runner = (terms: readonly ResolvedLoss[], rows: readonly GoldenRow[]) => Promise<
  { values: ArrayLike<number>[]; gradient: ArrayLike<number>[] }
>;

/** Runs the cases that `load` finds and compares. */
async function compare(
  run: Runner,
  load: (name: string, set: string) => Promise<GoldenCase | undefined>,
  sets: string[],
  wanted: (name: string, vocabulary: number) => boolean = () => true,
) {
  let compared = 0;
  for (
    const [name, { terms, labelled, most = Infinity, golden: from = name, padded = 0 }] of Object.entries(
      CASES,
    )
  ) {
    for (const set of sets) {
      const golden = await load(from, set);
      const vocabulary = golden ? golden.rows[0]!.student.length : 0;
      if (!golden || vocabulary > most || !wanted(name, vocabulary)) continue;
      const temperature = set.endsWith("tau2") ? 2 : 1;
      // A loss without labels is golden in row 6 too; here every loss is masked there, so it gets a label.
      const rows = golden.rows.map((row) => ({
        ...row,
        label: labelled || row.label >= 0 ? row.label : 0,
        teacher: row.teacher.map((z, v) => (v < vocabulary - padded ? z : -Infinity)),
      }));
      const list = terms(temperature, vocabulary);
      const { values, gradient } = await run(list, rows);
      rows.forEach((row, r) => {
        if (labelled === "partly" && row.label < 0) return;
        const weights = list.length > 1 ? list.map((t) => t.weight) : [1];
        const value = weights.reduce((sum, w, k) => sum + w * values[r]![k]!, 0);
        assertGolden(`${name} ${set}`, row, value, gradient[r]!);
        compared++;
      });
    }
  }
  return compared;
}

const inReference: Runner = (terms, rows) => {
  const found = rows.map((row) => reference(terms, row));
  return Promise.resolve({ values: found.map((f) => f.values), gradient: found.map((f) => f.gradient) });
};

const SETS = ["tau1", "tau2", "raw"];

/** Cases from the fixture that every clone has: vocabulary 5, the built-in losses. */
function fixture(name: string, set: string): Promise<GoldenCase | undefined> {
  const cases = fixtures.cases as unknown as Record<string, GoldenCase>;
  const found = cases[`${name} ${set}`];
  return Promise.resolve(
    found && {
      rows: found.rows.map((row) => ({
        ...row,
        student: Float32Array.from(row.student),
        teacher: Float32Array.from(row.teacher),
      })),
    },
  );
}

/** Cases from the reference folder. */
function shared(vocabulary: number) {
  let loaded: Promise<(name: string, set: string) => Promise<GoldenCase | undefined>> | undefined;
  const load = async () => {
    const open = async (file: string) =>
      await SafetensorsFile.open(await openFile(sharedPath(`goldens/losses/${file}`)));
    return await readGoldens(vocabulary, open, sharedPath("goldens/losses/losses.json"));
  };
  return async (name: string, set: string) => await (await (loaded ??= load()))(name, set);
}

type Find = (name: string, set: string) => Promise<GoldenCase | undefined>;

/**
 * Of what the sweeps of a kernel do one loss each: two losses and the label, the student's own statistics, statistics of statistics, the
 * label left out, a mixture, absolute differences, powers; and a row loss.
 */
const SWEEPS = [
  ...["llm_neo_a0.5", "rkl", "bdkd_delta2", "dkd_aT1_bN2", "jsd_b0.5", "tvd", "alpha_a0.5", "akl"],
];

/**
 * Which goldens the kernels of a family are compared with. They take most of the time of the losses' tests to compile, and rows of 512 have
 * texts of their own: turns of the main loop in place of a part of one, in `subgroup8` written out four times. So those are had for some;
 * the reference in f64 is compared with all of them, and with every loss in such loops in wide_rows_test.ts, row losses in builtins_test.ts.
 */
const WANTED: Record<KernelFamily, (name: string, vocabulary: number) => boolean> = {
  subgroup8: (name, vocabulary) => vocabulary === 5 || ["rkl", "llm_neo_a0.5"].includes(name),
  tiled: (name, vocabulary) => !CASES[name]!.another && (vocabulary === 5 || SWEEPS.includes(name)),
};

async function onGpu(family: KernelFamily, ...finds: Find[]) {
  let compared = 0;
  await withGpu(family, async (gpu) => {
    for (const find of finds) {
      const run: Runner = (terms, rows) => {
        // A target whose rows are no multiple of four: rows of 5 and 512 are read alike.
        const teacherStride = family === "tiled" ? rows[0]!.student.length + 1 : undefined;
        return runKernel(gpu, terms.map(atAnyTemperature), rows, { teacherStride });
      };
      compared += await compare(run, find, SETS, WANTED[family]);
    }
  });
  return compared;
}

function some(compared: number): void {
  if (compared === 0) throw new Error("no golden was compared");
}

Deno.test("referenceRow() agrees with the fixture", async () => {
  some(await compare(inReference, fixture, SETS));
});

for (const vocabulary of [5, 512]) {
  const load = shared(vocabulary);
  sharedTest(`referenceRow() agrees with the goldens at vocabulary ${vocabulary}`, async () => {
    some(await compare(inReference, load, SETS));
  });
}

for (const family of ["subgroup8", "tiled"] as const) {
  Deno.test(`${family} kernels agree with the fixture, and with the goldens where they are`, async (t) => {
    if (!hasShared) console.log(`skip: ${t.name}: the goldens, since ../shared is not beside this checkout`);
    some(await onGpu(family, fixture, ...(hasShared ? [shared(5), shared(512)] : [])));
  });
}
