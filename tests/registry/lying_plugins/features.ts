/** Feature losses: an honest one, and some that do what they must not. */
import {
  CONTRACT_VERSION,
  defineFeatureLoss,
  type FeatureLoss,
  sign,
  type Tensor,
  tensor,
} from "@limbeck/limbeck/plugin";
import { z } from "zod";

function rowSums(x: Tensor): Tensor {
  const sums = tensor.sumColumns(x);
  return tensor.reshape(sums, [sums.dim(0)]);
}

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
      return rowSums(tensor.pointwise([difference], (x) => x.square()));
    },
  });

const LIES: Readonly<Record<string, () => unknown>> = {
  "honest-feature": () => honest("honest-feature"),
  "not-a-row": (): FeatureLoss => ({ ...honest("not-a-row"), program: ({ student }) => student("hidden") }),
  "unknown-tap": (): FeatureLoss => ({
    ...honest("unknown-tap"),
    program: ({ student }) => student("elsewhere"),
  }),
  // A staircase: flat where it is differentiated, and yet it rises.
  "jumps": (): FeatureLoss => ({
    ...honest("jumps"),
    program: (inputs) => {
      const steps = Array.from({ length: 40 }, (_, i) => i / 20 - 1);
      const stairs = tensor.pointwise(
        [inputs.student("hidden")],
        (x) => steps.map((s) => sign(x!.sub(s))).reduce((a, b) => a.add(b)),
      );
      return tensor.add(honest("jumps").program(inputs), rowSums(stairs));
    },
  }),
  // The mean over the whole stream, whatever sample a position is of.
  "neighbours": (): FeatureLoss => ({
    ...honest("neighbours"),
    program: (inputs) => {
      const rows = honest("neighbours").program(inputs);
      const mean = tensor.sumRows(tensor.reshape(rows, [rows.dim(0), 1]));
      return tensor.pointwise([rows, mean], (row, all) => row!.add(all!));
    },
  }),
  "unused": (): FeatureLoss => ({
    ...honest("unused"),
    program: ({ student }) => rowSums(tensor.pointwise([student("hidden")], (x) => x!.square())),
  }),
};

/** The lie of that name. */
export function lie(name: string): unknown {
  return LIES[name]!();
}
