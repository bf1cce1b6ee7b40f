/** The largest logits of a row against a sort, with ties between and within lanes, and a mistake that must be noticed. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertNotEquals } from "@std/assert";
import { z } from "zod";
import { CONTRACT_VERSION, defineLoss, NO_ENTRY, topEntries, topIds } from "../../src/registry/contract.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { random, withGpu } from "./hard_rows.ts";
import { FAMILIES, type Row, runKernel, term } from "./harness.ts";

const K = 6;

/** The ids at one place of both models in one number, exact in f32: below 2^20. The place is a number of the step: one text has them all. */
const place = defineLoss({
  id: "test/place",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  options: z.strictObject({ place: z.int() }),
  scheduled: ["place"],
  needsTeacher: true,
  surrogateGradient: "it is measured only",
  wgsl: ({ scalars }) => `
    ${topEntries("student", K)}
    ${topEntries("teacher", K)}
    fn $place(id: u32) -> f32 { return select(f32(id), 1023.0, id == ${NO_ENTRY}); }
    fn $value() -> f32 {
      $find_student();
      $find_teacher();
      let at = u32(${scalars.place});
      return $place($ids_student[at]) * 1024.0 + $place($ids_teacher[at]);
    }
    fn $gradient(v: u32, z: f32, t: f32) -> f32 { return 0.0; }`,
  reference: ({ student }) => ({ value: 0, gradient: new Float64Array(student.length) }),
});

/** What the kernel finds at each place of each row. */
async function placesOf(
  gpu: Gpu,
  list: readonly Row[],
  edit?: (wgsl: string) => string,
): Promise<number[][]> {
  const found = list.map((): number[] => []);
  for (let at = 0; at < K; at++) {
    const terms = [term(place, { place: at }, { monitor: true, name: "place" })];
    const { values } = await runKernel(gpu, terms, list, { gradient: false, edit });
    values.forEach(([value], r) => found[r]!.push(value!));
  }
  return found;
}

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
        const found = await placesOf(gpu, list);
        list.forEach((row, r) => assertEquals(found[r], expected(row), `${row.name}, ${vocabulary}`));
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
    assertNotEquals(await placesOf(gpu, list, spoilt), list.map(expected));
  });
});
