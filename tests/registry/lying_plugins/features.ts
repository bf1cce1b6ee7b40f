/** Feature losses: an honest one, and two that do what they must not. */
import { CONTRACT_VERSION, defineFeatureLoss, type FeatureLoss, tensor } from "@limbeck/limbeck/plugin";
import { z } from "zod";

/** Squared distance of projected hidden states, summed over the hidden size. */
const honest = (id: string): FeatureLoss =>
  defineFeatureLoss({
    id: `liar/${id}`,
    version: "1.0.0",
    contract: CONTRACT_VERSION,
    options: z.strictObject({ tap: z.string().default("hidden") }),
    taps: (_, { tap }) => ({ student: [tap], teacher: [tap] }),
    parameters: ({ student, teacher }) => [{
      name: "projection",
      suffix: "projection",
      shape: [teacher.hiddenSize, student.hiddenSize],
      initialisation: { kind: "normal", deviation: 0.1 },
    }],
    program({ student, teacher, parameter, options: { tap } }) {
      const difference = tensor.subtract(tensor.linear(student(tap), parameter("projection")), teacher(tap));
      const sums = tensor.sumColumns(tensor.pointwise([difference], (x) => x.square()));
      return tensor.reshape(sums, [sums.dim(0)]);
    },
  });

const LIES: Readonly<Record<string, () => unknown>> = {
  "honest-feature": () => honest("honest-feature"),
  "not-a-row": (): FeatureLoss => ({ ...honest("not-a-row"), program: ({ student }) => student("hidden") }),
  "unknown-tap": (): FeatureLoss => ({
    ...honest("unknown-tap"),
    program: ({ student }) => student("elsewhere"),
  }),
};

/** The lie of that name. */
export function lie(name: string): unknown {
  return LIES[name]!();
}
