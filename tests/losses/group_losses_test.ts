/** Losses over groups of tokens: kernels of both families against f64, and traced with their factors against the chain rule. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertAlmostEquals, assertEquals, assertLess } from "@std/assert";
import hybridLogitGroups from "../../plugins/losses/hybrid_logit_groups.ts";
import mappedLogitGroups from "../../plugins/losses/mapped_logit_groups.ts";
import universalLogitGroups from "../../plugins/losses/universal_logit_groups.ts";
import type { GroupLoss } from "../../src/losses/group_contract.ts";
import { groupError, testGroups, testMatch } from "../../src/registry/check/group_losses.ts";
import { runGroupKernel } from "../../src/registry/check/group_runner.ts";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { hasShared, sharedPath, sharedTest } from "../shared.ts";
import { assertWithin, gpuTest, relativeError, testGpu } from "../tensor/harness.ts";
import {
  type GroupCase,
  groupPlaces,
  groupTerm,
  makeCase,
  referenceGroups,
  runGroups,
} from "./group_cases.ts";

/** As the reference names them. */
const LOSSES: Readonly<Record<string, readonly [GroupLoss, Record<string, unknown>]>> = {
  uld_first: [universalLogitGroups, { rows: "first" }],
  uld_positional: [universalLogitGroups, { rows: "positional" }],
  gold_chain: [universalLogitGroups, { rows: "chain" }],
  gold_observed: [universalLogitGroups, { rows: "observed" }],
  "hybrid_adaptive_b0.5": [hybridLogitGroups, { beta: 0.5 }],
  hybrid_fixed_b0: [hybridLogitGroups, { beta: 0, matched: 0.7, others: 0.4 }],
  hybrid_fixed_b1: [hybridLogitGroups, { beta: 1, matched: 0.7, others: 0.4 }],
  mapped: [mappedLogitGroups, {}],
};
/** One for each text of a kernel. */
const KERNELS = ["gold_chain", "hybrid_adaptive_b0.5", "hybrid_fixed_b0", "hybrid_fixed_b1", "mapped"];
/** The ends of beta are a line of the hybrid's own text, the same for both families; these kernels of eight lanes take long to compile. */
const isLeftOut = (family: string, name: string) => family === "subgroup8" && name.startsWith("hybrid_fixed");
const termOf = (name: string, temperature = 1) => groupTerm(...LOSSES[name]!, temperature);

const CASES = [
  makeCase("wide teacher", [[1, 1], [2, 1], [1, 3], [3, 2], [1, 1]], [37, 53]),
  makeCase("wide student", [[1, 2], [4, 1], [1, 1], [2, 2]], [53, 37], { unsupervised: 1, seed: 5 }),
];

for (const name of Object.keys(LOSSES)) {
  Deno.test(`${name} with its factors in f64 agrees with finite differences`, () => {
    const term = termOf(name, 1.5);
    const [one] = CASES as [GroupCase];
    const mean = (student: readonly Float64Array[]) => {
      const { values } = referenceGroups({ ...one, student }, term);
      return values.reduce((a, b) => a + b) / values.length;
    };
    const { gradient } = referenceGroups(one, term);
    let moved = 0;
    gradient.forEach((row, t) => {
      row.forEach((g, v) => {
        const at = (h: number) => mean(one.student.map((z, i) => i === t ? z.with(v, z[v]! + h) : z));
        assertAlmostEquals(g, (at(1e-5) - at(-1e-5)) / 2e-5, 1e-7, `row ${t}, entry ${v}`);
      });
      moved += Number(row.some((g) => g !== 0));
    });
    // Rows of first tokens alone, or as many as the shorter side has, or all that predict a token.
    assertEquals(moved, { uld_first: 5, uld_positional: 8 }[name] ?? 8);
  });
}

gpuTest("losses over groups agree with f64 on hard rows of two vocabularies", async (gpu, family) => {
  for (const name of KERNELS.filter((name) => !isLeftOut(family, name))) {
    for (const [v, w, temperature] of [[513, 301, 1], [37, 516, 2]] as const) {
      const groups = testGroups(v, w);
      const term = termOf(name, temperature);
      const found = await runGroupKernel(gpu, term, groups, testMatch(v, w));
      groups.forEach((group, r) => groupError(term, group, found, r));
      assertEquals(found.values.at(-1), 0);
      assert(found.gradients.at(-1)!.every((g) => g === 0), "the masked row");
      const again = await runGroupKernel(gpu, term, groups, testMatch(v, w));
      assertEquals(again, found);
    }
  }
});

gpuTest("losses over groups show broken rows and scales as NaN", async (gpu) => {
  const [group] = testGroups(37, 53);
  const broken = (z: Float64Array) => z.with(5, NaN);
  const groups = [
    group!,
    { ...group!, student: broken(group!.student) },
    { ...group!, teacher: broken(group!.teacher) },
    { ...group!, teacher: group!.teacher.map(() => -Infinity) },
    { ...group!, studentScale: NaN },
    { ...group!, teacherScale: Infinity },
  ];
  const found = await runGroupKernel(gpu, termOf("gold_chain"), groups, testMatch(37, 53));
  groups.forEach((_, r) => {
    assertEquals(Number.isFinite(found.values[r]!), r === 0, `value of group ${r}`);
    assertEquals(found.gradients[r]!.every(Number.isFinite), r === 0, `gradient of group ${r}`);
  });
});

gpuTest(
  "groupLoss() gives losses and their gradient by way of base rows and factors",
  async (gpu, family) => {
    for (const one of CASES) {
      for (const name of Object.keys(LOSSES)) {
        if (isLeftOut(family, name)) continue;
        compareCase(await runGroups(gpu, one, termOf(name, 2)), referenceGroups(one, termOf(name, 2)), name);
      }
    }
  },
);

gpuTest(
  "groupLoss() gives the gradient of a head that is trained, base rows and factors together",
  async (gpu, family) => {
    const [one] = CASES as [GroupCase];
    const term = termOf("gold_chain", 2);
    compareCase(await runGroups(gpu, one, term, { trainHead: true }), referenceGroups(one, term), family);
  },
);

function compareCase(
  got: { readonly values: readonly number[]; readonly gradient: readonly Float64Array[] },
  want: { readonly values: readonly number[]; readonly gradient: readonly Float64Array[] },
  what: string,
): void {
  assertWithin(got.values, want.values, 1e-5, what);
  assertLess(
    relativeError(got.gradient.flatMap((r) => [...r]), want.gradient.flatMap((r) => [...r])),
    1e-4,
    what,
  );
  assert(got.gradient.at(-1)!.every((g) => g === 0), `${what}: the last row predicts no token`);
}

/**
 * Mistakes that the comparison must notice, all in one text: `WRONG` is a condition that holds for the groups of one mistake. Elsewhere
 * the replacement does what stood there.
 */
const MISTAKES: Readonly<Record<string, readonly [RegExp, string]>> = {
  "the target's scale left out": [
    /teacher_softmax\) \+ teacher_scale/,
    "teacher_softmax) + select(teacher_scale, 0.0, WRONG)",
  ],
  "the longer row cut": [
    /let third = max\((.*)\);/,
    "let third = select(max($1), min($1), WRONG);",
  ],
  "slopes of other tokens": [/_slopes \+ id/, "_slopes + select(id, k, WRONG)"],
  "the mean of the slopes forgotten": [
    /exp\(loss_logQ\(z\)\) \* loss_mean\)/,
    "select(exp(loss_logQ(z)) * loss_mean, 0.0, WRONG))",
  ],
  "temperature on one side": [
    /\(teacher\(v\) - high\) \/ row_temperature/,
    "(teacher(v) - high) / select(row_temperature, 1.0, WRONG)",
  ],
};

/** The same of rows that are mapped. */
const MAPPED_MISTAKES: typeof MISTAKES = {
  "the teacher's mass on mapped tokens left out": [/- loss_mass;/, "- select(loss_mass, 0.0, WRONG);"],
  "a token that stands alone compared with the teacher": [
    /return row_is_apart \|\| /,
    "return (row_is_apart && !(WRONG)) || ",
  ],
  "another label": [/v == row_label/, "v == select(row_label, row_label + 1u, WRONG)"],
  "the target left out of the gradient": [
    /- wanted\) \/ loss_temp/,
    "- select(wanted, 0.0, WRONG)) / loss_temp",
  ],
};

for (const [name, mistakes] of [["gold_chain", MISTAKES], ["mapped", MAPPED_MISTAKES]] as const) {
  Deno.test({
    name: `losses over groups with planted mistakes fail: ${name}`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: () => noticesMistakes(termOf(name, 2), mistakes),
  });
}

async function noticesMistakes(
  term: ReturnType<typeof termOf>,
  mistakes: Readonly<Record<string, readonly [RegExp, string]>>,
): Promise<void> {
  const gpu = await testGpu("tiled");
  const groups = testGroups(37, 53);
  const names = Object.keys(mistakes);
  // All groups under every mistake, and before them under none.
  const repeated = [undefined, ...names].flatMap(() => groups);
  const found = await runGroupKernel(gpu, term, repeated, testMatch(37, 53), (wgsl) => {
    const numbered = wgsl
      .replace(/^ *let row = .*;$/m, `$&\n  planted = row / ${groups.length}u;`)
      .replace("var<private> lane: u32;", "var<private> lane: u32;\nvar<private> planted: u32;");
    return Object.entries(mistakes).reduce((text, [what, [pattern, wrong]], i) => {
      assert(pattern.test(text), `${what} has nothing to change`);
      return text.replace(pattern, wrong.replaceAll("WRONG", `planted == ${i + 1}u`));
    }, numbered);
  });
  const failed = repeated.map((group, r) => {
    try {
      groupError(term, group, found, r);
      return false;
    } catch {
      return true;
    }
  });
  const of = (i: number) => failed.slice(i * groups.length, (i + 1) * groups.length);
  assertEquals(of(0), groups.map(() => false), "groups without a mistake");
  assertEquals(names.filter((_, i) => !of(i + 1).includes(true)), [], "mistakes that nobody noticed");
}

/** Logits, ids and groups of the reference's cases. */
async function readCases(): Promise<{ cases: GroupCase[]; expected: Expected }> {
  const file = await SafetensorsFile.open(await openFile(sharedPath("goldens/alignment/losses.safetensors")));
  const array = async (name: string) => [...(await file.readArray(name)).data as Float64Array].map(Number);
  const infos = JSON.parse(await Deno.readTextFile(sharedPath("goldens/alignment/losses.json"))) as Record<
    string,
    { V: number; VT: number; matched?: number; losses: Record<string, unknown> }
  >;
  const expected: Expected = new Map();
  const cases: GroupCase[] = [];
  for (const [name, { V, VT, matched, losses }] of Object.entries(infos)) {
    const rows = async (side: string, width: number) => {
      const flat = await array(`${name}.${side}_logits`);
      return Array.from(
        { length: flat.length / width },
        (_, t) => Float64Array.from(flat.slice(t * width, (t + 1) * width)),
      );
    };
    const ids = async (side: string) => Int32Array.of(0, ...await array(`${name}.${side}_ids`));
    const flags = async (side: string) => Uint8Array.of(0, ...await array(`${name}.${side}_supervised`));
    const teacherOf = new Int32Array(V).fill(-1);
    if (matched !== undefined) {
      const pairs = await array(`${name}.matched`);
      for (let k = 0; k < pairs.length; k += 2) teacherOf[pairs[k + 1]!] = pairs[k]!;
    }
    cases.push({
      name,
      student: await rows("student", V),
      teacher: await rows("teacher", VT),
      sample: {
        ...{ ids: await ids("student"), supervised: await flags("student") },
        source: { file: name, line: 1 },
        other: {
          ...{ ids: await ids("teacher"), supervised: await flags("teacher") },
          groups: groupPlaces(await array(`${name}.groups`)),
        },
      },
      teacherOf,
    });
    for (const key of Object.keys(losses)) {
      const flat = await array(`${name}.${key}.grad`);
      expected.set(`${name} ${key}`, { values: await array(`${name}.${key}.values`), gradient: flat });
    }
  }
  file.close();
  return { cases, expected };
}

type Expected = Map<string, { readonly values: number[]; readonly gradient: number[] }>;

/** The reference's cases with each loss that they have. */
function* eachCase({ cases, expected }: { cases: readonly GroupCase[]; expected: Expected }) {
  for (const one of cases) {
    for (const temperature of [1, 2]) {
      for (const name of Object.keys(LOSSES)) {
        const want = expected.get(`${one.name} tau${temperature}.${name}`);
        if (want) yield { one, name, term: termOf(name, temperature), want, what: `${one.name}, ${name}` };
      }
    }
  }
}

sharedTest("losses over groups in f64 agree with another program", async () => {
  let count = 0;
  for (const { one, term, want, what } of eachCase(await readCases())) {
    const { values, gradient } = referenceGroups(one, term);
    assertWithin(values, want.values, 1e-12, what);
    assertLess(relativeError(gradient.flatMap((row) => [...row]), want.gradient), 1e-11, what);
    count++;
  }
  assertEquals(count, 39);
});

sharedTest("mapped to itself, a vocabulary is compared by forward KL, as in another program", async () => {
  const { cases, expected } = await readCases();
  const one = cases.find(({ name }) => name === "same_tokenizer")!;
  // There, 0.7 times forward KL over the tokens that are the same, which are all.
  const want = expected.get("same_tokenizer tau1.hybrid_fixed_b0")!;
  const { values, gradient } = referenceGroups(one, termOf("mapped"));
  assertWithin(values.map((x) => 0.7 * x), want.values, 1e-12, "values");
  assertLess(relativeError(gradient.flatMap((row) => [...row].map((g) => 0.7 * g)), want.gradient), 1e-11);
});

if (hasShared) {
  gpuTest("losses over groups on the GPU agree with another program", async (gpu, family) => {
    for (const { one, name, term, want, what } of eachCase(await readCases())) {
      if (isLeftOut(family, name)) continue;
      const { values, gradient } = await runGroups(gpu, one, term);
      assertWithin(values, want.values, 1e-5, what);
      assertLess(relativeError(gradient.flatMap((row) => [...row]), want.gradient), 1e-4, what);
    }
  });
} else console.log("skip: losses over groups against another program: ../shared is not beside this checkout");
