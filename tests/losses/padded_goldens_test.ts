/** Heads with more rows than their vocabulary has tokens, cut to them, against an independent f64 implementation. */
// @ts-types="../../types/std_assert.d.ts"
import { assert } from "@std/assert";
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { referenceSparseRow } from "../../src/losses/sparse_reference.ts";
import crossEntropy from "../../plugins/losses/cross_entropy.ts";
import forwardKl from "../../plugins/losses/forward_kl.ts";
import jensenShannon from "../../plugins/losses/jensen_shannon.ts";
import reverseKl from "../../plugins/losses/reverse_kl.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { assertClose, atAnyTemperature, FAMILIES, reference, type Row, runKernel, term } from "./harness.ts";
import { topOf } from "./sparse_rows.ts";

const LOSSES = { fkl: forwardKl, rkl: reverseKl, js: jensenShannon, ce: crossEntropy };
const NAMES = Object.keys(LOSSES) as (keyof typeof LOSSES)[];
const FOLDER = "goldens/teachers/padded";
// As the reference's README has them.
const [VALUE, GRADIENT] = [1e-5, 1e-6];

/** A row whose logits are those of the vocabulary's tokens, and what the reference says of it by the names of its losses. */
interface PaddedRow extends Row {
  readonly values: Readonly<Record<string, number>>;
  /** By all rows of the student's head. */
  readonly gradients: Readonly<Record<string, readonly number[]>>;
}

interface Case {
  readonly temperature: number;
  readonly vocabulary: number;
  readonly rows: readonly PaddedRow[];
}

async function cases(): Promise<Case[]> {
  const described = JSON.parse(await Deno.readTextFile(sharedPath(`${FOLDER}.json`)));
  const file = await SafetensorsFile.open(await openFile(sharedPath(`${FOLDER}.safetensors`)));
  const read = async (name: string) => Array.from((await file.readArray(name)).data as Float64Array);
  const found: Case[] = [];
  for (
    const [name, { true: vocabulary, student, teacher, rows, tau }] of Object.entries<Described>(described)
  ) {
    const [z, y, labels] = [
      await read(`${name}.student`),
      await read(`${name}.teacher`),
      await read(`${name}.labels`),
    ];
    const cut = (logits: number[], r: number, width: number) =>
      Float32Array.from(logits.slice(r * width, r * width + vocabulary));
    for (const temperature of tau) {
      const [values, gradients]: Record<string, number[]>[] = [{}, {}];
      for (const loss of [...NAMES, "top16_bucket_fkl"]) {
        values![loss] = await read(`${name}.tau${temperature}.${loss}.value`);
        gradients![loss] = await read(`${name}.tau${temperature}.${loss}.grad`);
      }
      const each = <T>(of: Record<string, number[]>, pick: (list: number[]) => T) =>
        Object.fromEntries(Object.entries(of).map(([loss, list]) => [loss, pick(list)]));
      found.push({
        ...{ temperature, vocabulary },
        rows: Array.from({ length: rows }, (_, r) => ({
          name: `${name}, row ${r}`,
          student: cut(z, r, student),
          teacher: cut(y, r, teacher),
          label: labels[r]!,
          values: each(values!, (list) => list[r]!),
          gradients: each(gradients!, (list) => list.slice(r * student, (r + 1) * student)),
        })),
      });
    }
  }
  file.close();
  return found;
}

interface Described {
  readonly true: number;
  readonly student: number;
  readonly teacher: number;
  readonly rows: number;
  readonly tau: readonly number[];
}

function compare(
  what: string,
  { values, gradients, student }: PaddedRow,
  losses: readonly string[],
  found: { values: ArrayLike<number>; gradient: ArrayLike<number> },
): void {
  const width = gradients[losses[0]!]!.length;
  const sum = Array.from(
    { length: width },
    (_, v) => losses.reduce((g, loss) => g + gradients[loss]![v]!, 0),
  );
  assertClose(found.values, losses.map((loss) => values[loss]!), VALUE, `${what}: values`);
  assertClose(found.gradient, sum.slice(0, student.length), losses.length * GRADIENT, `${what}: gradient`);
  assert(
    sum.slice(student.length).every((g) => g === 0),
    `${what}: rows beyond the vocabulary have a gradient`,
  );
}

/** Cross-entropy is without temperature. */
const terms = (losses: readonly (keyof typeof LOSSES)[], temperature: number) =>
  losses.map((loss) => term(LOSSES[loss], {}, loss === "ce" ? {} : { temperature }));

sharedTest(
  "losses of heads cut to their vocabulary are the reference's, in f64 and with a cached target",
  async () => {
    const found = await cases();
    assert(found.length > 0);
    for (const { temperature, rows } of found) {
      for (const row of rows) {
        for (const loss of NAMES) {
          compare(`${row.name}, ${loss}`, row, [loss], reference(terms([loss], temperature), row));
        }
        const target = { kind: "top-k", entries: 16, temperatures: [temperature] } as const;
        const cached = topOf(row.teacher, target.entries, target.temperatures);
        const student = Float64Array.from(row.student);
        const sparse = referenceSparseRow(terms(["fkl"], temperature), student, cached, target, row.label);
        compare(`${row.name}, cached`, row, ["top16_bucket_fkl"], sparse);
      }
    }
  },
);

// All losses in one kernel, whose text is the same for every vocabulary.
sharedTest(
  "kernels give the reference's losses of heads cut to their vocabulary, both families",
  async () => {
    const found = await cases();
    for (const describe of FAMILIES) {
      const gpu = await openGpu({ describe });
      try {
        for (const { temperature, rows } of found) {
          const list = terms(NAMES, temperature).map(atAnyTemperature);
          const { values, gradient } = await runKernel(gpu, list, rows);
          rows.forEach((row, r) =>
            compare(`${row.name} [${describe.family}]`, row, NAMES, {
              values: values[r]!,
              gradient: gradient[r]!,
            })
          );
        }
      } finally {
        gpu.destroy();
      }
    }
  },
);
