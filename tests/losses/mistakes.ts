/** Mistakes planted in a row kernel, all in one text: compiling a text for each would take most of a test's time. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../src/gpu/device.ts";
import type { ResolvedLoss } from "../../src/losses/traced.ts";
import { type Row, runKernel } from "./harness.ts";

/**
 * An edit of the kernel's source. `WRONG` in the replacement is a condition: the row is one of those that this mistake is made in.
 * Elsewhere the replacement must do what stood there.
 */
export type Mistake = readonly [pattern: RegExp, replacement: string];

/** Fails if `compare` lets a row pass that it should not: of each mistake at least one row of all must fail, without mistake none. */
export async function assertNoticed(
  gpu: Gpu,
  terms: readonly ResolvedLoss[],
  rows: readonly Row[],
  mistakes: Readonly<Record<string, Mistake>>,
  compare: (row: Row, got: { values: Float32Array; gradient: Float32Array }) => void,
  options: Parameters<typeof runKernel>[3] = {},
): Promise<void> {
  const names = Object.keys(mistakes);
  // Every row under every mistake, and before them all under none.
  const repeated = [undefined, ...names].flatMap(() => rows);
  const edit = (wgsl: string) => plant(wgsl, Object.values(mistakes), rows.length);
  const { values, gradient } = await runKernel(gpu, terms, repeated, { ...options, edit });
  const fails = (r: number) => {
    try {
      compare(repeated[r]!, { values: values[r]!, gradient: gradient[r]! });
      return false;
    } catch {
      return true;
    }
  };
  const failed = repeated.map((_, r) => fails(r));
  const of = (i: number) => failed.slice(i * rows.length, (i + 1) * rows.length);
  assertEquals(of(0), rows.map(() => false), "rows without a mistake");
  assertEquals(names.filter((_, i) => !of(i + 1).includes(true)), [], "mistakes that nobody noticed");
}

/** Mistake i is made in the rows from `count` (i + 1) on. */
function plant(wgsl: string, mistakes: readonly Mistake[], count: number): string {
  const row = /^ *let row = .*;$/m;
  assert(row.test(wgsl), "the kernel has no row");
  const numbered = wgsl
    .replace(row, `$&\n  planted = row / ${count}u;`)
    .replace("@compute", "var<private> planted: u32;\n@compute");
  return mistakes.reduce((text, [pattern, replacement], i) => {
    const edited = text.replace(pattern, replacement.replaceAll("WRONG", `planted == ${i + 1}u`));
    assert(edited !== text, `${pattern} has nothing to change in\n${text}`);
    return edited;
  }, numbered);
}
