/**
 * Rows of a table by index: token embeddings, and gathering some rows of an activation.
 *
 * @module
 */
import source from "../../../kernels/rows/gather_rows.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";
import { byteLength, isWeight, weightIncludes } from "../weight_storage.ts";
import { windows } from "../windows.ts";

/** out[t, :] = table[indices[t], :]. It has no gradient: nothing that is looked up by index is trained. */
export const gatherRowsOp: Op<null> = {
  name: "gatherRows",
  infer(inputs) {
    const [table, indices] = inputs;
    ensure(table!.shape.length === 2, "gatherRows", inputs, "the table must have two dimensions");
    ensure(
      isWeight(table!),
      "gatherRows",
      inputs,
      "the table must be a weight",
    );
    ensure(
      indices!.shape.length === 1 && indices!.dtype === "i32",
      "gatherRows",
      inputs,
      "the indices must be i32 of one dimension",
    );
    return [{ shape: [indices!.dim(0), table!.dim(1)], dtype: "f32" }];
  },
  lower({ inputs, outputs, device, dispatch }) {
    const [table, indices] = inputs as [Tensor, Tensor];
    const width = table.dim(1);
    const vector = width % 4 === 0 ? 4 : 1;
    const threads = device.family === "subgroup8" ? 8 : 64;
    const wgsl = expandTemplate("gather_rows", source, {
      WEIGHT: table.dtype,
      THREADS: threads,
      VECTOR: vector,
    }, weightIncludes(table));
    for (const part of windows(table, device)) {
      dispatch({
        kernel: `gatherRows ${table.dtype}`,
        wgsl,
        tensors: [indices, part.binding, outputs[0]!],
        size: [indices.dim(0), width / vector, part.first, part.count, table.dim(0)],
        groups: grid(indices.dim(0), device),
        // Each token's row, which lies in one of the parts; what the table holds besides is not read. Every thread reads the index.
        traffic: 4 * threads * indices.dim(0) +
          indices.dim(0) * (byteLength(table) / table.dim(0) + 4 * width) * part.count / table.dim(0),
      });
    }
  },
};

/**
 * Token embeddings. A table larger than a binding is read in parts. The table is taken to be frozen: there is no gradient.
 *
 * @param table [V, H] in any storage of weights
 * @param tokens i32 [T]; a token outside 0 .. V - 1 gives a row of zeros
 * @returns f32 [T, H]
 * @throws {ShapeError} if shapes or types are others
 * @example
 * ```ts ignore
 * const x = embedding(graph.weight("embed_tokens", [32000, 288], "bf16"), graph.input("tokens", [256], "i32"));
 * ```
 */
export function embedding(table: Tensor, tokens: Tensor): Tensor {
  return table.graph.add(gatherRowsOp, [table, tokens], null)[0]!;
}
