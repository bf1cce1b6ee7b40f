/** Golden rows: inputs, expected value and gradient, tolerances for f32. */
// @ts-types="../../types/std_assert.d.ts"
import { assertLess } from "@std/assert";
import type { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { assertClose, type Row } from "./harness.ts";

/** One row with what an independent implementation found. */
export interface GoldenRow extends Row {
  readonly value: number;
  readonly expected: ArrayLike<number>;
  /** Absolute; null: not to be compared. */
  readonly valueTolerance: number | null;
  readonly gradientTolerance: number | null;
}

/** The rows of one loss. */
export interface GoldenCase {
  readonly rows: readonly GoldenRow[];
}

/** Fails unless value and gradient of a row are within the tolerances; the gradient also as a whole and in its sum. */
export function assertGolden(name: string, row: GoldenRow, value: number, gradient: ArrayLike<number>): void {
  const what = `${name}, row ${row.name}`;
  if (row.valueTolerance !== null) assertClose([value], [row.value], row.valueTolerance, `${what}: value`);
  if (row.gradientTolerance === null) return;
  assertClose(gradient, row.expected, row.gradientTolerance, `${what}: gradient`);
  let [error, length, sum, largest] = [0, 0, 0, 0];
  for (let v = 0; v < gradient.length; v++) {
    error += (gradient[v]! - row.expected[v]!) ** 2;
    length += row.expected[v]! ** 2;
    sum += gradient[v]!;
    largest = Math.max(largest, Math.abs(row.expected[v]!));
  }
  // Where the row's own tolerance is the larger one, it is f32's floor: a difference of numbers much larger than itself.
  const norm = Math.max(1e-4 * Math.sqrt(length), row.gradientTolerance);
  if (largest > 1e-3) assertLess(Math.sqrt(error), norm, `${what}: error of the whole gradient`);
  assertLess(Math.abs(sum), 1e-5 * Math.max(1, largest), `${what}: sum of the gradient`);
}

interface Tolerances {
  tol_value: (number | null)[];
  tol_grad: (number | null)[];
}

/** Opens the golden files of a vocabulary size; the result finds the rows of a loss in `raw`, `tau1` or `tau2`. */
export async function readGoldens(
  vocabulary: number,
  open: (file: string) => Promise<SafetensorsFile>,
  tolerancesPath: string,
): Promise<(name: string, set: string) => Promise<GoldenCase | undefined>> {
  const { losses } = JSON.parse(await Deno.readTextFile(tolerancesPath)) as {
    losses: Record<string, { sets: Record<string, Tolerances> }>;
  };
  const inputs = await open(`V${vocabulary}_inputs.safetensors`);
  const array = async (file: SafetensorsFile, name: string) =>
    Array.from((await file.readArray(name)).data as Float64Array | Int32Array);
  const [student, teacher, labels] = [
    await array(inputs, "student"),
    await array(inputs, "teacher"),
    await array(inputs, "labels"),
  ];
  inputs.close();
  const files = new Map<string, SafetensorsFile>();
  return async (name, set) => {
    const tolerances = losses[name]?.sets[`V${vocabulary}_${set}`];
    if (!tolerances) return undefined;
    let file = files.get(set);
    if (!file) files.set(set, file = await open(`V${vocabulary}_${set}.safetensors`));
    const [values, gradients] = [await array(file, `${name}.value`), await array(file, `${name}.grad`)];
    const part = (list: number[], r: number) => list.slice(r * vocabulary, (r + 1) * vocabulary);
    return {
      rows: labels.map((label, r) => ({
        name: String(r),
        label,
        student: Float32Array.from(part(student, r)),
        teacher: Float32Array.from(part(teacher, r)),
        value: values[r]!,
        expected: part(gradients, r),
        valueTolerance: tolerances.tol_value[r]!,
        gradientTolerance: tolerances.tol_grad[r]!,
      })),
    };
  };
}
