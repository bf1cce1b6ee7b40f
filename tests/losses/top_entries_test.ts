/** The largest logits of a row against a sort, with ties between and within lanes, and a mistake that must be noticed. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals } from "@std/assert";
import {
  CONTRACT_VERSION,
  defineLoss,
  NO_ENTRY,
  noOptions,
  topEntries,
  topIds,
} from "../../src/registry/contract.ts";
import { random, withGpu } from "./hard_rows.ts";
import { FAMILIES, type Row, runKernel, term } from "./harness.ts";

const K = 6;

/** The ids at one place of both models in one number, exact in f32: below 2^20. */
const places = Array.from({ length: K }, (_, place) =>
  defineLoss({
    id: `test/place-${place}`,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: noOptions,
    needsTeacher: true,
    surrogateGradient: "it is measured only",
    wgsl: () => `
      ${topEntries("student", K)}
      ${topEntries("teacher", K)}
      fn $place(id: u32) -> f32 { return select(f32(id), 1023.0, id == ${NO_ENTRY}); }
      fn $value() -> f32 {
        $find_student();
        $find_teacher();
        return $place($ids_student[${place}]) * 1024.0 + $place($ids_teacher[${place}]);
      }
      fn $gradient(v: u32, z: f32, t: f32) -> f32 { return 0.0; }`,
    reference: ({ student }) => ({ value: 0, gradient: new Float64Array(student.length) }),
  }));
const terms = places.map((loss) => term(loss, {}, { monitor: true, name: loss.id }));

/** Rows with no, few and nothing but ties, and with fewer finite logits than places. */
function rows(vocabulary: number): Row[] {
  const next = random(vocabulary);
  const row = (name: string, logit: (v: number) => number): Row => ({
    name,
    student: Float32Array.from({ length: vocabulary }, (_, v) => logit(v)),
    teacher: Float32Array.from({ length: vocabulary }, (_, v) => logit(vocabulary - 1 - v)),
    label: 0,
  });
  return [
    row("apart", () => 9 * next()),
    row("few values", () => Math.round(2 * next())),
    row("all equal", () => 1.5),
    row("rising", (v) => v),
    row("four finite", (v) => (v % 9 === 2 && v < 36 ? v % 2 : -Infinity)),
  ];
}

function expected({ student, teacher }: Row): number[] {
  const [own, target] = [student, teacher].map((z) => topIds(Float64Array.from(z), K));
  return Array.from({ length: K }, (_, place) => (own![place] ?? 1023) * 1024 + (target![place] ?? 1023));
}

for (const { family } of FAMILIES) {
  Deno.test(`${family} topEntries() finds what a sort finds, at ties the lower id first`, async () => {
    for (const vocabulary of [1, 5, 36, 37, 513, 516]) {
      const list = rows(vocabulary);
      await withGpu(family!, async (gpu) => {
        const { values } = await runKernel(gpu, terms, list, { gradient: false });
        list.forEach((row, r) => assertEquals([...values[r]!], expected(row), `${row.name}, ${vocabulary}`));
      });
    }
  });
}

Deno.test(`topEntries() with lanes that all pass over a tie does not pass`, async () => {
  const list = rows(513);
  await withGpu("tiled", async (gpu) => {
    const spoilt = (wgsl: string) => {
      const wrong = wgsl.replaceAll(/if \(offered && id == \w+\[at\]\)/g, "if (offered)");
      assertNotEquals(wrong, wgsl);
      return wrong;
    };
    const { values } = await runKernel(gpu, terms, list, { gradient: false, edit: spoilt });
    assertNotEquals(values.map((own) => [...own]), list.map(expected));
  });
});
