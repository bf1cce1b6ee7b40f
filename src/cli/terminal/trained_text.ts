/**
 * What a recipe trains, as `limbeck validate` and `limbeck estimate` show it.
 *
 * @module
 */
import type { TrainingSetup } from "../../distill/program/plan_training.ts";
import { count } from "../../base/units.ts";

/** Lines that say what is trained, in the style of the lines beside them. */
export function trainedLines({ adapter, tensors, trainables }: TrainingSetup): string[] {
  const layers = adapter?.layers.length ?? 0;
  const lines = [
    `Trained        ${count(trainables.layout.trainable)} values; ` +
    (adapter ? `${adapter.plugin.id} on ${layers} ${layers === 1 ? "layer" : "layers"}` : "no adapter"),
  ];
  for (const [name, found] of tensors?.selection ?? []) {
    const values = found.reduce((sum, tensor) => sum + trainables.layout.get(tensor).count, 0);
    const ends = found.length > 1 ? `${found[0]} to ${found.at(-1)}` : found[0];
    lines.push(
      `  ${name}: ${found.length} ${found.length === 1 ? "tensor" : "tensors"}, ${
        count(values)
      } values, ${ends}`,
    );
  }
  return lines;
}
