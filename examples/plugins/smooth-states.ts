// A loss at level 3: a tensor program over inner values of the models; its gradient comes from automatic differentiation. The states
// behind the last layers are compared by a difference that large values do not dominate, the student's through a trained matrix.
//
//   limbeck plugin check examples/plugins/smooth-states.ts

import { CONTRACT_VERSION, defineFeatureLoss, tensor } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineFeatureLoss({
  id: "example/smooth-states",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description:
    "sqrt(difference^2 + width^2) - width of the states behind the last layers, mean over the hidden size",
  source: "pseudo-Huber loss: Charbonnier et al., IEEE Trans. Image Process. 6 (1997)",
  options: z.strictObject({
    width: z.number().positive().default(1).describe(
      "Differences below it count as squares, those above as they are",
    ),
  }),
  // What is wanted of each model; for a student cut from its teacher the last layers are the same one.
  taps: ({ student, teacher }) => ({
    student: [`model.layers.${student.layers - 1}.output`],
    teacher: [`model.layers.${teacher.layers - 1}.output`],
  }),
  // Trained with the adapter and thrown away at the end.
  parameters: ({ student, teacher }) => [{
    name: "projection",
    suffix: "projection.weight",
    shape: [teacher.hiddenSize, student.hiddenSize],
    initialisation: { kind: "normal", deviation: student.hiddenSize ** -0.5 },
  }],
  program({ models, student, teacher, parameter, options: { width } }) {
    const own = student(`model.layers.${models.student.layers - 1}.output`); // [T, H]
    const wanted = teacher(`model.layers.${models.teacher.layers - 1}.output`);
    const projected = tensor.linear(own, parameter("projection"));
    const terms = tensor.pointwise(
      [projected, wanted],
      (s, t) => s!.sub(t!).square().add(width ** 2).sqrt().sub(width),
    );
    const sums = tensor.sumColumns(terms); // [T, 1]
    return tensor.scale(tensor.reshape(sums, [sums.dim(0)]), 1 / models.teacher.hiddenSize);
  },
});
