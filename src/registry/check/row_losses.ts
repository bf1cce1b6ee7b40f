/**
 * What divergences and row losses must do: values and gradients against f64, and against finite differences of them.
 *
 * @module
 */
import type { KernelFamily } from "../../gpu/description.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { ExpressionNode } from "../../tensor/expr/mod.ts";
import { defineDivergence, type Divergence, type RowLoss } from "../../losses/contract.ts";
import { type ResolvedLoss, traceObjective } from "../../losses/traced.ts";
import { referenceRow } from "../../losses/reference.ts";
import { type RowReference } from "../../losses/reference.ts";
import { cacheRefusal, looksAtTarget, type SparseTarget } from "../../losses/sparse_target.ts";
import { CONTRACT_VERSION, noOptions } from "../../base/plugin.ts";
import { cachedForm } from "./cached_teacher.ts";
import { CheckFailure, type Checklist, CheckSkipped } from "./checklist.ts";
import { checkController } from "./controllers.ts";
import { checkPairs } from "./pairs.ts";
import { compileKernels, runRows } from "./row_runner.ts";
import { type TestRow, testRows } from "./rows.ts";
import { openDevice } from "./traced.ts";

/** Small rows for finite differences; those for kernels are odd, so that no vector fits, or a multiple of four. */
const SMALL = 17;
/** Of them a cache keeps. */
const KEPT = 6;
const SHAPES = [{ vocabulary: 513, temperature: 1 }, { vocabulary: 516, temperature: 2 }] as const;
/** Rows and entries of the timing. */
const TIMED = { rows: 32, vocabulary: 4096, dispatches: 3 } as const;

/** What the others are timed beside. */
const forwardKl = defineDivergence({
  id: "yardstick",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  options: noOptions,
  term: ({ p, logP, logQ }) => p.mul(logP.sub(logQ)),
});

/** Checks a loss over rows of logits, and its controller if it has one. */
export async function checkRowLoss(
  loss: Divergence | RowLoss,
  options: Readonly<Record<string, unknown>>,
  list: Checklist,
): Promise<void> {
  const term = (temperature: number): ResolvedLoss => ({
    loss,
    options,
    name: "loss",
    weight: 0.5,
    temperature,
  });
  await checkController(loss, options, list);
  if (loss.kind === "divergence" && loss.pairs) await checkPairs(loss, options, list);
  const own = formOf(loss);

  const finite = await list.step(`${own} in f64`, () => {
    for (const row of live(SMALL, term(1))) finiteReference(term(1), row, own);
    return term(1).loss.kind === "divergence" && usesRawLogits(term(1))
      ? "finite; it works on raw logits, so not on rows padded with -inf, which are left out here"
      : "value and gradient are finite on every kind of row";
  }, `${own} must return one value for any row of logits.`);
  if (!finite) return;
  await list.step("gradient against finite differences, f64", () => differences(term(1), own));
  const trait = traits(term(1));
  await list.step("gradient sums to zero over the vocabulary, f64", () => {
    if (trait.worstSum < 1e-7) return `at most ${trait.worstSum.toExponential(0)}`;
    if (usesRawLogits(term(1))) throw new CheckSkipped("need not: the loss looks at raw logits");
    throw new CheckFailure(`it sums to ${trait.worstSum.toPrecision(3)} on the row "${trait.worstRow}"`, {
      hint:
        "A loss of softmax(z) does not change when all logits rise alike: the gradient lacks - q * sum(u).",
    });
  });
  await list.step("zero where p = q, f64", () => {
    if (trait.zeroAtEqual) return "value and gradient vanish";
    throw new CheckSkipped("not a divergence: value or gradient differ from 0 at p = q");
  });

  await checkCachedTeacher(term(1), list);

  for (const family of ["tiled", "subgroup8"] as const) await checkFamily(family, term, own, trait, list);
}

/** What a loss has in f64, as a plugin's author calls it. */
function formOf(loss: Divergence | RowLoss): string {
  return loss.kind === "row-loss" ? "reference()" : loss.term ? "term()" : "value()";
}

/** The form of a loss for cached teachers: K tokens, and one bucket for all others. */
export async function checkCachedTeacher(term: ResolvedLoss, list: Checklist): Promise<void> {
  const { loss, options } = term;
  const target: SparseTarget = { kind: "top-k", entries: KEPT, temperatures: [1] };
  let evaluate: ((row: TestRow, student: Float64Array) => RowReference) | undefined;
  await list.step("cached teacher, f64", () => {
    if (!looksAtTarget(loss, options)) throw new CheckSkipped("the loss does not look at the teacher");
    const reason = cacheRefusal(loss, options, target);
    if (reason) throw new CheckSkipped(`not to be had with teacher.cache: ${reason}`);
    const found = cachedForm(term, target, live(SMALL, term));
    evaluate = found.evaluate;
    const sampled = cacheRefusal(loss, options, { ...target, kind: "samples" });
    return `${found.summary}; ${sampled ? `of samples it cannot be had: ${sampled}` : "of samples too"}`;
  });
  if (!evaluate) return;
  await list.step(
    "gradient with a cached teacher against finite differences, f64",
    () => differences(term, formOf(loss), evaluate),
  );
}

async function checkFamily(
  family: KernelFamily,
  term: (temperature: number) => ResolvedLoss,
  own: string,
  trait: Traits,
  list: Checklist,
): Promise<void> {
  let gpu: Gpu | undefined;
  try {
    const compiled = await list.step(`kernels compile (${family})`, async () => {
      gpu = await openFamily(family);
      for (const { vocabulary, temperature } of SHAPES) {
        list.offer(await compileKernels(gpu, term(temperature), vocabulary));
      }
      return `${2 * SHAPES.length} kernels on ${gpu.description.name}`;
    }, "Read the compiler's message; in a row loss, `$` must stand before every name of your own.");
    if (!compiled || !gpu) return;
    const device = gpu;
    const ran = await list.step(`kernel against ${own} (${family})`, async () => {
      const errors = [];
      for (const { vocabulary, temperature } of SHAPES) {
        errors.push(await compareRows(device, term(temperature), vocabulary, own, trait));
      }
      return `largest difference ${(100 * Math.max(...errors)).toPrecision(2)} % of what f32 is allowed`;
    });
    if (!ran) return;
    await list.step(`same bytes twice (${family})`, async () => {
      const rows = testRows(513);
      const [a, b] = [await runRows(device, term(1), rows), await runRows(device, term(1), rows)];
      const bytes = (o: typeof a) => JSON.stringify([bits(o.values), ...o.gradients.map(bits)]);
      if (bytes(a) === bytes(b)) return "yes";
      throw new CheckFailure("two runs on the same rows gave different bytes", {
        hint: "Reduce in a fixed order: use row_sum, row_max and row_min_u32, and no atomics.",
      });
    });
    await list.step(`time and memory a row (${family})`, async () => {
      const one = testRows(TIMED.vocabulary)[0]!;
      const rows = Array.from({ length: TIMED.rows }, () => one);
      const time = async (t: ResolvedLoss) =>
        (await runRows(device, t, rows, TIMED.dispatches)).milliseconds * 1000 / TIMED.rows;
      const base = await time({ loss: forwardKl, options: {}, name: "yardstick", weight: 1, temperature: 1 });
      const mine = await time(term(1));
      const needsTeacher = term(1).loss.kind === "row-loss"
        ? (term(1).loss as RowLoss).needsTeacher
        : traceUses(term(1), /^(logP|teacherLogit)/);
      const { loss } = term(1);
      const memory = loss.kind === "row-loss" ? loss.memory?.perEntry ?? 0 : 0;
      const bytes = ((needsTeacher ? 2 : 1) + memory) * 4 * TIMED.vocabulary + 8;
      return `${mine.toFixed(1)} us, ${(mine / base).toFixed(2)} times forward KL (${base.toFixed(1)} us); ` +
        `${bytes} bytes, forward KL ${8 * TIMED.vocabulary + 8}, at ${TIMED.vocabulary} entries`;
    });
  } finally {
    gpu?.destroy();
  }
}

async function openFamily(family: KernelFamily): Promise<Gpu> {
  const gpu = await openDevice({ describe: { family } });
  if (family === "subgroup8" && gpu.description.subgroupSize !== 8) {
    gpu.destroy();
    throw new CheckSkipped("this device's subgroups do not have 8 lanes");
  }
  return gpu;
}

function bits(numbers: ArrayLike<number>): number[] {
  return [...new Uint32Array(Float32Array.from(numbers).buffer)];
}

/** Rows that are not masked, and that a loss must be able to take. */
function live(vocabulary: number, term: ResolvedLoss): TestRow[] {
  return rowsFor(vocabulary, term).filter((row) => row.label >= 0);
}

/** A divergence of raw logits cannot take -inf: the difference of two is no number. */
function rowsFor(vocabulary: number, term: ResolvedLoss): TestRow[] {
  const finite = term.loss.kind === "divergence" && usesRawLogits(term);
  return testRows(vocabulary).filter((row) => !(finite && row.name === "-inf padded"));
}

function reference(term: ResolvedLoss, row: TestRow, student: Float64Array = Float64Array.from(row.student)) {
  return referenceRow([term], student, Float64Array.from(row.teacher), row.label);
}

function finiteReference(term: ResolvedLoss, row: TestRow, own: string): void {
  const { values: [value], gradient } = reference(term, row);
  const hint = row.name === "-inf padded"
    ? "Vocabularies may be padded with logits of -inf: work on logP and logQ, which have a floor, or leave such entries out with select()."
    : "Mixtures go through logAddExp, sums of exponentials through logSumExp; p * log p must not meet 0 * inf.";
  if (!Number.isFinite(value)) {
    throw new CheckFailure(`${own} gives the value ${value} on the row "${row.name}"`, { hint });
  }
  if (gradient.length !== row.student.length) {
    throw new CheckFailure(
      `${own} returns a gradient of ${gradient.length} entries for a row of ${row.student.length}`,
      {
        hint: "Return one derivative for each logit of the student.",
      },
    );
  }
  const at = gradient.findIndex((g) => !Number.isFinite(g));
  if (at >= 0) {
    throw new CheckFailure(
      `${own} gives the gradient ${gradient[at]} at entry ${at} of the row "${row.name}"`,
      { hint },
    );
  }
}

/**
 * Compares the gradient with one-sided differences of the value: it must lie between them, which at a smooth point means it is the
 * derivative, and at a kink that it is a subgradient.
 */
function differences(
  term: ResolvedLoss,
  own: string,
  evaluate: (row: TestRow, student: Float64Array) => RowReference = (row, student) =>
    reference(term, row, student),
): string {
  const step = 1e-5;
  let worst = 0;
  for (const row of live(SMALL, term)) {
    const student = Float64Array.from(row.student);
    const { values: [value], gradient } = evaluate(row, student);
    const scale = Math.max(1, ...gradient.map(Math.abs));
    for (let v = 0; v < SMALL; v++) {
      const at = (h: number) => evaluate(row, student.with(v, student[v]! + h)).values[0]!;
      const sides = [(value! - at(-step)) / step, (at(step) - value!) / step];
      // The gradient carries the term's weight.
      const g = gradient[v]! / term.weight;
      const error = Math.max(Math.min(...sides) - g, g - Math.max(...sides), 0) / scale;
      if (!(error <= 2e-4)) {
        if (term.loss.kind === "row-loss" && term.loss.surrogateGradient) {
          throw new CheckSkipped(`not its derivative, by design: ${term.loss.surrogateGradient}`);
        }
        if (detaches(term)) {
          throw new CheckSkipped(
            "the loss detaches a part, so its gradient is not the derivative of its value",
          );
        }
        throw new CheckFailure(
          `on the row "${row.name}", entry ${v}, the gradient is ${
            g.toPrecision(6)
          }, but the value changes by ` +
            `${((sides[0]! + sides[1]!) / 2).toPrecision(6)} per unit of the logit`,
          {
            hint: own === "reference()"
              ? "Correct the gradient that reference() returns, or its value; then make the WGSL agree. " +
                "If the two differ by design, say why in surrogateGradient."
              : "The expression has a derivative that its own value does not show: look for select() at jumps.",
          },
        );
      }
      worst = Math.max(worst, error);
    }
  }
  return `largest difference ${worst.toExponential(1)}`;
}

/** What a loss shows in f64, and its kernels must show too. */
interface Traits {
  readonly worstSum: number;
  readonly worstRow: string;
  readonly zeroAtEqual: boolean;
}

function traits(term: ResolvedLoss): Traits {
  let [worstSum, worstRow, zeroAtEqual] = [0, "", false];
  for (const row of live(SMALL, term)) {
    const { values: [value], gradient } = reference(term, row);
    const total = Math.abs(gradient.reduce((a, b) => a + b, 0)) / Math.max(1, ...gradient.map(Math.abs));
    if (total > worstSum) [worstSum, worstRow] = [total, row.name];
    if (row.name === "p = q") {
      zeroAtEqual = Math.abs(value!) < 1e-12 && gradient.every((g) => Math.abs(g) < 1e-12);
    }
  }
  return { worstSum, worstRow, zeroAtEqual };
}

/** Compares a kernel with the reference; returns the largest error as a share of the tolerance. */
async function compareRows(
  gpu: Gpu,
  term: ResolvedLoss,
  vocabulary: number,
  own: string,
  trait: Traits,
): Promise<number> {
  const rows = rowsFor(vocabulary, term);
  const { values, gradients } = await runRows(gpu, term, rows);
  const part = own === "reference()" ? "the WGSL" : "the kernel";
  let worst = 0;
  rows.forEach((row, r) => {
    const where = `on the row "${row.name}" of ${vocabulary} entries at temperature ${term.temperature}`;
    const expected = row.label < 0
      ? { values: [0], gradient: new Float64Array(vocabulary) }
      : reference(term, row);
    const spread = Math.max(1, ...[...row.student, ...row.teacher].filter(Number.isFinite).map(Math.abs));
    const compare = (got: number, want: number, tolerance: number, what: string) => {
      const error = Math.abs(got - want) / tolerance;
      if (!(error <= 1)) {
        const hint = !Number.isFinite(got)
          ? "A NaN or an infinity: keep exponents at or below 0 by taking the row's maximum off first."
          : own === "reference()"
          ? `The WGSL and reference() disagree: correct $${
            what.startsWith("value") ? "value" : "gradient"
          }().`
          : "f32 loses too much here: rearrange the expression so that no large numbers cancel.";
        throw new CheckFailure(
          `${where}, ${part} gives the ${what} ${got}; ${own} gives ${want.toPrecision(7)}`,
          { hint },
        );
      }
      worst = Math.max(worst, error);
    };
    const value = expected.values[0]!;
    compare(values[r]!, value, 1e-5 + 1e-5 * Math.abs(value) + 2e-6 * spread, "value");
    const scale = Math.max(1, ...expected.gradient.map(Math.abs));
    expected.gradient.forEach((want, v) =>
      compare(gradients[r]![v]!, want, 2e-6 * spread * scale, `gradient at entry ${v}`)
    );
    if (row.label < 0) return;
    if (trait.worstSum < 1e-7) {
      const size = Math.max(1, gradients[r]!.reduce((a, g) => a + Math.abs(g), 0));
      compare(
        gradients[r]!.reduce((a, b) => a + b, 0),
        0,
        3e-5 * spread * size,
        "gradient's sum over the vocabulary",
      );
    }
    if (trait.zeroAtEqual && row.name === "p = q") {
      compare(values[r]!, 0, 1e-5, "value at p = q");
      gradients[r]!.forEach((g, v) => compare(g, 0, 1e-6, `gradient at p = q, entry ${v}`));
    }
  });
  return worst;
}

function detaches(term: ResolvedLoss): boolean {
  return traceSome(term, (e) => e.kind === "detach");
}

function usesRawLogits(term: ResolvedLoss): boolean {
  return term.loss.kind === "row-loss" || traceUses(term, /^(student|teacher)Logit$/);
}

function traceUses(term: ResolvedLoss, name: RegExp): boolean {
  return traceSome(term, (e) => e.kind === "variable" && name.test(e.name));
}

/** Whether any part of a divergence's expressions fulfils `test`; false for row losses. */
function traceSome(term: ResolvedLoss, test: (e: ExpressionNode) => boolean): boolean {
  if (term.loss.kind === "row-loss") return false;
  const { values, statistics } = traceObjective([term]);
  const seen = new Set<ExpressionNode>();
  const visit = (e: ExpressionNode): boolean => {
    if (seen.has(e)) return false;
    seen.add(e);
    return test(e) || e.operands.some(visit);
  };
  return [...values.values(), ...statistics.map((s) => s.body)].some(visit);
}
