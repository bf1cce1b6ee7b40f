/**
 * What feature losses must do: one number a position, from its own sample alone, and a gradient that is its derivative.
 *
 * @module
 */
import type { FeatureLoss } from "../feature_contract.ts";
import type { Gpu } from "../../gpu/device.ts";
import {
  EXAMPLE_MODELS,
  type FeatureModels,
  type StreamInput,
  tapWidth,
  traceFeatureLoss,
} from "../feature_program.ts";
import { CheckFailure, type Checklist } from "./checklist.ts";
import { compareGradients, openDevice, randomValues, TracedProgram, type Values } from "./traced.ts";

/** A stream of two samples and filler, as the trainer packs it. */
const STREAM: Readonly<Record<StreamInput, readonly number[]>> = {
  segments: [0, 0, 0, 0, 0, 1, 1, 1, 1, -1, -1],
  start: [0, 0, 0, 0, 0, 5, 5, 5, 5, 9, 10],
  end: [5, 5, 5, 5, 5, 9, 9, 9, 9, 10, 11],
  supervised: [0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0],
  prompt: [1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0],
};
const TOKENS = STREAM.segments.length;

/** Checks a feature loss on two models of other widths, and on two of which one is made of the other's layers. */
export async function checkFeatureLoss(
  loss: FeatureLoss,
  options: Readonly<Record<string, unknown>>,
  list: Checklist,
): Promise<void> {
  const { teacher } = EXAMPLE_MODELS;
  const cut = { ...teacher, layers: 2, originals: [1, 4] };
  for (
    const [what, student] of [["models of other widths", EXAMPLE_MODELS.student], [
      "a student cut from its teacher",
      cut,
    ]] as const
  ) {
    let gpu: Gpu | undefined;
    let traced: Traced | undefined;
    try {
      const ok = await list.step(`taps, parameters and shapes, ${what}`, async () => {
        gpu = await openDevice();
        traced = await trace(gpu, loss, options, { student, teacher });
        return `f32 [T] from ${Object.keys(traced.values).join(", ")}`;
      }, "program() must return the loss of each position, f32 [T].");
      if (!ok || !traced) return;
      const { program, values } = traced;
      await list.step(
        `gradients against finite differences, ${what}`,
        () => compareGradients(program, values),
      );
      await list.step(`each sample by itself, ${what}`, () => checkSamples(program, values));
      await list.step(`same bytes twice, ${what}`, () => checkTwice(program, values));
    } finally {
      traced?.program.destroy();
      gpu?.destroy();
    }
  }
}

interface Traced {
  readonly program: TracedProgram;
  readonly values: Values;
}

async function trace(
  gpu: Gpu,
  loss: FeatureLoss,
  options: Readonly<Record<string, unknown>>,
  models: FeatureModels,
): Promise<Traced> {
  const values: Record<string, Values[string]> = {};
  const taps = loss.taps(models, options);
  if (taps.student.length === 0) {
    throw new CheckFailure("it taps nothing of the student, so nothing can be learnt", {
      hint: "Name taps in taps().",
    });
  }
  for (const model of ["student", "teacher"] as const) {
    taps[model].forEach((tap, i) => {
      const shape = [TOKENS, tapWidth(tap, models[model])];
      values[`${model} ${tap}`] = randomValues(shape, (model === "student" ? 10 : 30) + i);
    });
  }
  const parameters = loss.parameters?.(models, options) ?? [];
  parameters.forEach((p, i) => values[p.name] = randomValues(p.shape, 50 + i, 0.5));
  const learnt = [...new Set(taps.student.map((t) => `student ${t}`)), ...parameters.map((p) => p.name)];
  const known = (name: string) => {
    if (name in values) return name;
    throw new CheckFailure(`program() asks for "${name}", which taps() and parameters() do not name`);
  };
  const constants = Object.fromEntries(
    Object.entries(STREAM).map(([name, data]) => [name, Int32Array.from(data)]),
  );
  const program = await TracedProgram.make(
    gpu,
    values,
    learnt,
    [TOKENS],
    (graph, input) => traceFeatureLoss(graph, loss, options, models, TOKENS, (name) => input(known(name))),
    constants,
  );
  const unused = learnt.find((name) => !program.differentiable.includes(name));
  if (unused === undefined) return { program, values };
  program.destroy();
  throw new CheckFailure(`the loss does not depend on ${unused}`, {
    hint: "Leave out what is not used, or do not detach it.",
  });
}

/** What stands in one sample must not change the loss of another. */
async function checkSamples(program: TracedProgram, values: Values): Promise<string> {
  const { y } = await program.run(values);
  for (const sample of [0, 1, -1]) {
    const others = Object.fromEntries(
      Object.entries(values).map(([name, { shape, data }], k) => {
        // Only inner values have rows of positions.
        if (!/^(student|teacher) /.test(name)) return [name, { shape, data }];
        const other = randomValues(shape, 200 + k).data;
        const isKept = (i: number) => STREAM.segments[Math.floor(i / shape[1]!)] === sample;
        return [name, { shape, data: data.map((x, i) => (isKept(i) ? x : other[i]!)) }];
      }),
    );
    const changed = (await program.run(others)).y.findIndex((x, t) =>
      STREAM.segments[t] === sample && !Object.is(x, y[t])
    );
    if (changed < 0) continue;
    throw new CheckFailure(`the loss of position ${changed} depends on positions of another sample`, {
      hint: "Samples are packed side by side: relate positions within sample.start ... sample.end only.",
    });
  }
  return "yes";
}

async function checkTwice(program: TracedProgram, values: Values): Promise<string> {
  const [a, b] = [await program.run(values), await program.run(values)];
  if (a.y.some((x) => !Number.isFinite(x))) {
    throw new CheckFailure(`the loss is ${a.y.find((x) => !Number.isFinite(x))}`);
  }
  if (a.y.every((x, i) => Object.is(x, b.y[i]))) return "yes";
  throw new CheckFailure("two runs on the same values gave different bytes");
}
