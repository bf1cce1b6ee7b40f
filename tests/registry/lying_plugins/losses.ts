/** Losses that do what they must not. Each is one module's default export, chosen by {@linkcode lie}. */
import {
  CONTRACT_VERSION,
  defineDivergence,
  defineLoss,
  type Loss,
  type RowMemory,
} from "@limbeck/limbeck/plugin";
import { z } from "zod";

const header = { version: "1.0.0", contract: CONTRACT_VERSION, options: z.strictObject({}) };

/** A row loss, mean of z^2 / 2, whose value and gradient can be replaced. */
function meanSquare(id: string, parts: { value?: string; gradient?: string; memory?: RowMemory } = {}): Loss {
  return defineLoss({
    ...header,
    ...(parts.memory ? { memory: parts.memory } : {}),
    id: `liar/${id}`,
    needsTeacher: false,
    wgsl: () => `
      fn $value() -> f32 {
        ${parts.value ?? ""}
        var sum = 0.0;
        for (var v = lane; v < row_vocabulary; v += LANES) { let z = max(student(v), -1.0e3); sum += 0.5 * z * z; }
        return row_sum(sum) / f32(row_vocabulary);
      }
      fn $gradient(v: u32, z: f32, t: f32) -> f32 {
        ${parts.gradient ?? "return select(z, 0.0, z < -1.0e3) / f32(row_vocabulary);"}
      }`,
    reference({ student }) {
      const floored = student.map((z) => Math.max(z, -1000));
      return {
        value: floored.reduce((sum, z) => sum + z * z / 2, 0) / student.length,
        gradient: floored.map((z, v) => student[v]! < -1000 ? 0 : z / student.length),
      };
    },
  });
}

/** A loop that never ends by itself. Each turn takes long, for drivers that break a loop off after so many. */
const ENDLESS = `loop { if (row_vocabulary == 0u) { break; } ${"workgroupBarrier(); ".repeat(1000)} }`;

const LIES: Readonly<Record<string, () => unknown>> = {
  honest: () => meanSquare("honest"),
  "wrong-gradient": () =>
    meanSquare("wrong-gradient", { gradient: "return 1.01 * z / f32(row_vocabulary);" }),
  "nan": () =>
    meanSquare("nan", {
      gradient: "return select(z / f32(row_vocabulary), bitcast<f32>(0x7fc00000u + (v & 0u)), v == 3u);",
    }),
  "out-of-row": () =>
    meanSquare("out-of-row", {
      value: "let words = arrayLength(&row_values); if (lane == 0u) { row_values[words - 1u] = 7.0; }",
    }),
  "beyond-memory": () =>
    meanSquare("beyond-memory", {
      memory: { perEntry: 2, workgroup: 8 },
      value: "if (lane == 0u) { $store(2u * row_vocabulary, 7u); }",
    }),
  "scribbles": () =>
    meanSquare("scribbles", { value: "student_logits[student_row + row_vocabulary] = student_logits[0];" }),
  // Mesa's software driver breaks every loop off after 65,535 turns, so this one gives a wrong value there; others hang.
  "endless-loop": () => meanSquare("endless-loop", { value: "loop { if (row_sum(1.0) < 0.0) { break; } }" }),
  "endless-kernel": () => meanSquare("endless-kernel", { value: ENDLESS }),
  "endless-script": () => {
    const loss = meanSquare("endless-script") as unknown as { reference: unknown };
    loss.reference = () => {
      for (;;);
    };
    return loss;
  },
  "no-kernel": () => meanSquare("no-kernel", { gradient: "return z * undeclared;" }),
  "wrong-reference": () => {
    const loss = meanSquare("wrong-reference") as unknown as {
      reference: (row: { student: Float64Array }) => unknown;
    };
    const honest = loss.reference;
    loss.reference = (row) => {
      const { value, gradient } = honest(row) as { value: number; gradient: Float64Array };
      return { value, gradient: gradient.map((g) => -g) };
    };
    return loss;
  },
  "same-id": () => ({
    ...defineDivergence({ ...header, id: "forward-kl", term: ({ p, logQ }) => p.mul(logQ) }),
  }),
  "other-contract": () => ({ ...meanSquare("other-contract"), contract: 99 }),
  "loose-options": () => ({ ...meanSquare("loose-options"), options: z.object({}) }),
  "no-default": () => ({ ...meanSquare("no-default"), options: z.strictObject({ k: z.number() }) }),
  "no-schema": () => ({ ...meanSquare("no-schema"), options: { k: 3 } }),
  "infinite": () =>
    defineDivergence({
      ...header,
      id: "liar/infinite",
      term: ({ p, q, logP }) => p.mul(logP.sub(p.add(q).sub(p).log())),
    }),
  "exits": () => {
    const loss = meanSquare("exits") as unknown as { reference: unknown };
    loss.reference = () => Deno.exit(0);
    return loss;
  },
  "reads-files": () => {
    const loss = meanSquare("reads-files") as unknown as { reference: unknown };
    loss.reference = () => Deno.readTextFileSync("/etc/passwd");
    return loss;
  },
};

/** The lie of that name. */
export function lie(name: string): unknown {
  return LIES[name]!();
}
