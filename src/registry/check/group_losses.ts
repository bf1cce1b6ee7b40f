/**
 * What losses over groups of tokens must do: value, gradient and slope in f64 against finite differences, and kernels against those.
 *
 * @module
 */
import type { Gpu } from "../../gpu/device.ts";
import { compileGroupLoss, type ResolvedGroupLoss } from "../../losses/compile_group.ts";
import type { GroupLoss, GroupReference } from "../../losses/group_contract.ts";
import { CheckFailure, type Checklist, CheckSkipped } from "./checklist.ts";
import { type GroupOutcome, runGroupKernel, type TestGroup } from "./group_runner.ts";
import { randomNumbers } from "./rows.ts";
import { openDevice } from "./traced.ts";

const ROWS = ["first", "chain", "observed", "positional", "mapped"];
/** Small vocabularies for finite differences; those for kernels are odd, each once the larger one. */
const SMALL = [17, 23] as const;
const SHAPES = [{ sizes: [513, 301], temperature: 1 }, { sizes: [301, 516], temperature: 2 }] as const;

/** Checks a loss over groups. */
export async function checkGroupLoss(
  loss: GroupLoss,
  options: Readonly<Record<string, unknown>>,
  list: Checklist,
): Promise<void> {
  const term = (temperature: number): ResolvedGroupLoss => ({
    ...{ loss, options, name: "loss", weight: 0.5, temperature },
  });
  const named = await list.step("rows()", () => {
    const rows = loss.rows(options);
    if (!ROWS.includes(rows)) {
      throw new CheckFailure(`rows() gives ${JSON.stringify(rows)}`, { hint: `One of ${ROWS.join(", ")}.` });
    }
    return rows;
  });
  if (!named) return;
  const finite = await list.step("reference() in f64", () => {
    for (const group of testGroups(...SMALL)) finiteReference(term(1), group);
    return "value, gradient and slope are finite on every kind of group";
  }, "reference() must return value, gradient and slope for any two rows of logits.");
  if (!finite) return;
  await list.step("gradient and slope against finite differences, f64", () => differences(term(2)));
  for (const family of ["tiled", "subgroup8"] as const) {
    let gpu: Gpu | undefined;
    try {
      await list.step(`kernel against reference() (${family})`, async () => {
        gpu = await openDevice({ describe: { family } });
        if (family === "subgroup8" && gpu.description.subgroupSize !== 8) {
          throw new CheckSkipped("this device's subgroups do not have 8 lanes");
        }
        list.offer([true, false].map((gradient) => {
          const shape = { vocabulary: SMALL[0], teacherVocabulary: SMALL[1], matched: 1 };
          const { label, wgsl } = compileGroupLoss(term(1), shape, gpu!.description, { gradient });
          return { label: `${label} (${family})`, family, wgsl };
        }));
        const errors: number[] = [];
        for (const { sizes, temperature } of SHAPES) {
          errors.push(await compare(gpu, term(temperature), testGroups(sizes[0], sizes[1])));
        }
        return `largest difference ${(100 * Math.max(...errors)).toPrecision(2)} % of what f32 is allowed`;
      }, "Read the compiler's message; `$` must stand before every name of your own.");
    } finally {
      gpu?.destroy();
    }
  }
}

/** Groups of two vocabularies: of one token, of several, with ties, with logits of +-60, padded with -inf. */
export function testGroups(vocabulary: number, teacherVocabulary: number): TestGroup[] {
  const next = randomNumbers(vocabulary + teacherVocabulary);
  const logits = (count: number, f: (v: number) => number) =>
    Float64Array.from({ length: count }, (_, v) => Math.fround(f(v)));
  const normal = (count: number) => logits(count, () => 3 * (next() + next() + next() - 1.5));
  let made = 0;
  const make = (name: string, f: (count: number) => Float64Array, studentScale = 0, teacherScale = 0) => ({
    ...{ name, student: f(vocabulary), teacher: f(teacherVocabulary) },
    ...{ label: 2 * made, isApart: made++ % 2 === 1 },
    ...{ studentScale: Math.fround(studentScale), teacherScale: Math.fround(teacherScale) },
  });
  return [
    make("random", normal),
    make("of several tokens", normal, -0.7, -2.3),
    make("of tokens that were not to be expected", normal, -120, -0.1),
    make("tied", (count) => normal(count).map(Math.round), -0.2),
    make("extreme (+-60)", (count) => logits(count, (v) => v % 3 ? 120 * next() - 60 : 60 - v / count)),
    make(
      "-inf padded",
      (count) => normal(count).map((z, v) => v > 0 && v >= count - count / 3 ? -Infinity : z),
    ),
  ];
}

/** Every third token of the learner is the target's at another place. */
export function testMatch(vocabulary: number, teacherVocabulary: number): Int32Array {
  return Int32Array.from(
    { length: vocabulary },
    (_, v) => v % 3 === 0 && 2 * v < teacherVocabulary ? 2 * v : -1,
  );
}

function reference({ loss, options, temperature }: ResolvedGroupLoss, group: TestGroup): GroupReference {
  const teacherOf = testMatch(group.student.length, group.teacher.length);
  return loss.reference({ ...group, teacherOf, temperature, options });
}

function finiteReference(term: ResolvedGroupLoss, group: TestGroup): void {
  const { value, slope, gradient } = reference(term, group);
  const [what, number] = Number.isFinite(value) ? ["slope", slope] : ["value", value];
  if (!Number.isFinite(number)) {
    throw new CheckFailure(`reference() gives the ${what} ${number} on the group "${group.name}"`, {
      hint: "Work on logarithms: p * log p must not meet 0 * inf, and products of probabilities underflow.",
    });
  }
  const at = gradient.findIndex((g) => !Number.isFinite(g));
  if (at >= 0 || gradient.length !== group.student.length) {
    throw new CheckFailure(
      `reference() gives ${gradient.length} derivatives for ${group.student.length} logits` +
        (at < 0 ? "" : `, of which entry ${at} is ${gradient[at]}`) + `, on the group "${group.name}"`,
      { hint: "Return one finite derivative for each logit of the student." },
    );
  }
}

/** Compares with one-sided differences, between which a derivative must lie, at a kink too. */
function differences(term: ResolvedGroupLoss): string {
  const step = 1e-5;
  let worst = 0;
  for (const group of testGroups(...SMALL)) {
    const { value, gradient, slope } = reference(term, group);
    const scale = Math.max(1, ...gradient.map(Math.abs));
    const compare = (got: number, at: (h: number) => number, what: string) => {
      const sides = [(value - at(-step)) / step, (at(step) - value) / step];
      const error = Math.max(Math.min(...sides) - got, got - Math.max(...sides), 0) / scale;
      worst = Math.max(worst, error);
      if (error <= 2e-4) return;
      throw new CheckFailure(
        `on the group "${group.name}" the ${what} is ${got.toPrecision(6)}, but the value changes by ` +
          `${((sides[0]! + sides[1]!) / 2).toPrecision(6)}`,
        { hint: "Correct what reference() returns, or its value; then make the WGSL agree." },
      );
    };
    const { student, studentScale } = group;
    compare(
      slope,
      (h) => reference(term, { ...group, studentScale: studentScale + h }).value,
      "slope",
    );
    for (let v = 0; v < student.length; v++) {
      if (!Number.isFinite(student[v]!)) continue;
      const at = (h: number) =>
        reference(term, { ...group, student: student.with(v, student[v]! + h) }).value;
      compare(gradient[v]!, at, `gradient at entry ${v}`);
    }
  }
  return `largest difference ${worst.toExponential(1)}`;
}

/** Compares a kernel with the reference; returns the largest error as a share of the tolerance. */
async function compare(gpu: Gpu, term: ResolvedGroupLoss, groups: readonly TestGroup[]): Promise<number> {
  const { student, teacher } = groups[0]!;
  const found = await runGroupKernel(gpu, term, groups, testMatch(student.length, teacher.length));
  const errors = groups.map((group, r) => groupError(term, group, found, r));
  const masked = groups.length;
  if ([found.values[masked], ...found.gradients[masked]!].some((x) => x !== 0)) {
    throw new CheckFailure("a row that is no group has a value or a gradient", {
      hint: "This is not the loss's doing: please report it.",
    });
  }
  return Math.max(...errors);
}

/**
 * The largest error of a group's value, slope and gradient, as a share of what f32 is allowed.
 *
 * @throws {CheckFailure} if it is more than 1
 */
export function groupError(
  term: ResolvedGroupLoss,
  group: TestGroup,
  found: GroupOutcome,
  r: number,
): number {
  const { name, student, teacher } = group;
  const { value, gradient, slope } = reference(term, group);
  const spread = Math.max(1, ...[...student, ...teacher].filter(Number.isFinite).map(Math.abs));
  const scale = Math.max(1, ...gradient.map(Math.abs));
  let worst = 0;
  const check = (got: number, want: number, tolerance: number, what: string) => {
    const error = Math.abs(got - want) / tolerance;
    if (!(error <= 1)) {
      throw new CheckFailure(
        `on the group "${name}" of ${student.length} and ${teacher.length} entries the WGSL gives the ${what} ` +
          `${got}; reference() gives ${want.toPrecision(7)}`,
        { hint: "The WGSL and reference() disagree: correct one of the two." },
      );
    }
    worst = Math.max(worst, error);
  };
  check(found.values[r]!, value, 1e-5 + 1e-5 * Math.abs(value) + 2e-6 * spread, "value");
  check(found.slopes[r]!, slope, 1e-5 * Math.max(1, Math.abs(slope)) + 2e-6 * spread, "slope");
  gradient.forEach((g, v) =>
    check(
      found.gradients[r]![v]!,
      term.weight * g,
      2e-6 * spread * scale,
      `gradient at entry ${v}`,
    )
  );
  return worst;
}
