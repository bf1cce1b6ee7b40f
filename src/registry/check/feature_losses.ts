/**
 * What feature losses must do: one number a position, and a gradient that is its derivative.
 *
 * @module
 */
import type { FeatureLoss, ModelShape } from "../contract.ts";
import type { Gpu } from "../../gpu/device.ts";
import { CheckFailure, type Checklist } from "./checklist.ts";
import { compareGradients, openDevice, randomValues, TracedProgram, type Values } from "./traced.ts";

const TOKENS = 5;
const STUDENT: ModelShape = { layers: 3, hiddenSize: 12, vocabularySize: 40 };
const TEACHER: ModelShape = { layers: 5, hiddenSize: 20, vocabularySize: 40 };

/** Checks a feature loss on models with hidden sizes that differ. */
export async function checkFeatureLoss(
  loss: FeatureLoss,
  options: Readonly<Record<string, unknown>>,
  list: Checklist,
): Promise<void> {
  const models = { student: STUDENT, teacher: TEACHER };
  const values: Record<string, Values[string]> = {};
  let gpu: Gpu | undefined;
  let program: TracedProgram | undefined;
  try {
    const traced = await list.step("taps, parameters and shapes", async () => {
      const taps = loss.taps(models, options);
      if (taps.student.length === 0) {
        throw new CheckFailure("it taps nothing of the student, so nothing can be learnt", {
          hint: "Name taps in taps().",
        });
      }
      taps.student.forEach((t, i) =>
        values[`student ${t}`] = randomValues([TOKENS, STUDENT.hiddenSize], 10 + i)
      );
      taps.teacher.forEach((t, i) =>
        values[`teacher ${t}`] = randomValues([TOKENS, TEACHER.hiddenSize], 30 + i)
      );
      const parameters = loss.parameters?.(models, options) ?? [];
      parameters.forEach((p, i) => values[p.name] = randomValues(p.shape, 50 + i, 0.5));
      const learnt = [...taps.student.map((t) => `student ${t}`), ...parameters.map((p) => p.name)];
      gpu = await openDevice();
      const known = (name: string) => {
        if (name in values) return name;
        throw new CheckFailure(`program() asks for "${name}", which taps() and parameters() do not name`);
      };
      program = await TracedProgram.make(gpu, values, learnt, [TOKENS], (graph, input) =>
        loss.program({
          student: (tap) => input(known(`student ${tap}`)),
          teacher: (tap) => input(known(`teacher ${tap}`)),
          parameter: (name) => input(known(name)),
          segments: graph.input("segments", [TOKENS], "i32"),
          options,
        }));
      return `f32 [T] from ${Object.keys(values).join(", ")}`;
    }, "program() must return the loss of each position, f32 [T].");
    if (!traced || !program) return;
    const ready = program;
    await list.step("gradients against finite differences", () => compareGradients(ready, values));
    await list.step("same bytes twice", async () => {
      const [a, b] = [await ready.run(values), await ready.run(values)];
      if (a.y.some((x) => !Number.isFinite(x))) {
        throw new CheckFailure(`the loss is ${a.y.find((x) => !Number.isFinite(x))}`);
      }
      if (a.y.every((x, i) => Object.is(x, b.y[i]))) return "yes";
      throw new CheckFailure("two runs on the same values gave different bytes");
    });
  } finally {
    program?.destroy();
    gpu?.destroy();
  }
}
