/**
 * A constant copy of a value for the gradient's eyes: the same memory, through which nothing flows back.
 *
 * @module
 */
import { ShapeError } from "../../base/errors.ts";
import type { Tensor } from "../graph.ts";
import type { Op } from "../op.ts";

/** The op behind {@linkcode detach}: a view. */
const detachOp: Op<null> = {
  name: "detach",
  infer: ([x]) => [x!],
  alias: () => ({ input: 0, byteOffset: 0 }),
  stopsGradients: true,
  lower() {
    throw new ShapeError("a view has no kernel; this is a bug");
  },
};

/** The same values, constant in every gradient. Costs nothing. */
export function detach(x: Tensor): Tensor {
  return x.graph.add(detachOp, [x], null)[0]!;
}
