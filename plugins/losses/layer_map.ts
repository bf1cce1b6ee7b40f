/**
 * Which layer of the student learns from which layer of the teacher.
 *
 * @module
 */
import { z } from "zod";
import type { ModelShape } from "../../src/registry/contract.ts";

/** The option of a loss over layers: pairs, or a rule that gives them. */
export const layerMap = z.union([
  z.enum(["auto", "even", "last"]),
  z.array(z.tuple([z.int().min(0), z.int().min(0)])).min(1),
]).describe(
  "Pairs [student's layer, teacher's layer] from 0; last: the last two; even: each of the student's with one of the teacher's, " +
    "spread evenly; auto: each with the one it was in the teacher, even where the student is not made of the teacher's layers",
);

/** The pairs [student's layer, teacher's layer] that the option means for two models. */
export function layerPairs(
  map: z.output<typeof layerMap>,
  { student, teacher }: { student: ModelShape; teacher: ModelShape },
): readonly (readonly [number, number])[] {
  if (map === "last") return [[student.layers - 1, teacher.layers - 1]];
  if (typeof map !== "string") return map;
  const own = Array.from({ length: student.layers }, (_, i) => i);
  if (map === "auto" && student.originals) return own.map((i) => [i, student.originals![i]!]);
  // The last of each group of teacher / student layers, so that the last one learns from the last.
  return own.map((i) => [i, Math.max(0, Math.round((i + 1) * teacher.layers / student.layers) - 1)]);
}
