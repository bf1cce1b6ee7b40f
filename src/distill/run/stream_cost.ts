/**
 * What it costs to read a teacher's layers from disk again and again.
 *
 * @module
 */
import { bytes, short } from "../../base/units.ts";
import { putPieces } from "../inputs/models.ts";
import type { Plan } from "../../tensor/plan.ts";
import type { StreamedTeacher } from "../program/streamed/streamed_teacher.ts";

/** What is known before a teacher is streamed. */
export interface StreamCost {
  /** Layers of the teacher. */
  readonly layers: number;
  /** Micro-batches that go through a layer while it is there. */
  readonly waiting: number;
  /** Bytes that one pass through all layers reads, as they lie on the GPU. */
  readonly bytesPerPass: number;
  /** Seconds that this takes, from the reading of one layer. */
  readonly secondsPerPass: number;
}

/** Reads a layer, to forecast what reading takes. @throws {InputError} if it cannot be read */
export async function streamCost({ layers, waiting }: StreamedTeacher, plan: Plan): Promise<StreamCost> {
  const { model } = layers;
  // What another model has on the GPU is copied there.
  const read = Array.from(
    { length: layers.count },
    (_, layer) => layers.contents(layer, "A").filter(({ weight }) => !plan.storages.has(weight)),
  );
  const sizeOf = (contents: typeof read[number]) => contents.reduce((sum, { bytes }) => sum + bytes, 0);
  const sample = read.find((contents) => contents.length > 0) ?? [];
  const begin = performance.now();
  for (const { weight, spec } of sample) await putPieces(model.pieces(weight, spec.shape), () => {});
  const seconds = (performance.now() - begin) / 1000;
  const bytesPerPass = read.reduce((sum, contents) => sum + sizeOf(contents), 0);
  return {
    ...{ layers: layers.count, waiting, bytesPerPass },
    secondsPerPass: bytesPerPass === 0 ? 0 : seconds * bytesPerPass / sizeOf(sample),
  };
}

/** What to say of it. */
export function streamCostText(cost: StreamCost): string {
  const { layers, bytesPerPass, secondsPerPass, waiting } = cost;
  return `the teacher's ${layers} layers come from disk, two at a time: ${bytes(bytesPerPass)} and at least ${
    short(secondsPerPass)
  } s for each ${waiting === 1 ? "micro-batch" : `${waiting} micro-batches or fewer`}`;
}
