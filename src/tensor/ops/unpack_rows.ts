/**
 * Rows that came in 16 or 8 bits a value, as f32.
 *
 * @module
 */
import source from "../../../kernels/rows/unpack_rows.wgsl" with { type: "text" };
import { expandTemplate } from "../../gpu/template.ts";
import type { Tensor } from "../graph.ts";
import { ensure, grid, type Op } from "../op.ts";

/** out[r, c] = the value at column c of row r. It has no gradient: what is stored is not trained. */
const unpackRowsOp: Op<{ readonly width: number; readonly bits: 8 | 16 }> = {
  name: "unpackRows",
  infer(inputs, { width, bits }) {
    const [packed, scales] = inputs as [Tensor, Tensor | undefined];
    ensure(
      packed.dtype === "u32" && packed.shape.length === 2,
      "unpackRows",
      inputs,
      "expected u32 [R, words]",
    );
    ensure(
      packed.dim(1) === packedWords(width, bits),
      "unpackRows",
      inputs,
      `${width} values of ${bits} bits take ${packedWords(width, bits)} words a row`,
    );
    ensure(
      (scales === undefined) === (bits === 16),
      "unpackRows",
      inputs,
      "rows of 8 bits have a scale, rows of 16 bits have none",
    );
    ensure(
      !scales || (scales.dtype === "f32" && String(scales.shape) === String([packed.dim(0), 1])),
      "unpackRows",
      inputs,
      "the scales must be f32 [R, 1]",
    );
    return [{ shape: [packed.dim(0), width], dtype: "f32" }];
  },
  lower({ inputs, outputs, attributes: { width, bits }, device, dispatch }) {
    const elements = outputs[0]!.dim(0) * width;
    const groups = Math.ceil(elements / 64);
    dispatch({
      kernel: `unpackRows ${bits}`,
      wgsl: expandTemplate("unpack_rows", source, { BITS: bits }),
      tensors: [...inputs, outputs[0]!],
      size: [elements, groups, width, packedWords(width, bits)],
      groups: grid(groups, device),
    });
  },
};

/** Words of 32 bits that hold a row; what is left of the last is not looked at. */
export function packedWords(width: number, bits: 8 | 16): number {
  return Math.ceil(width * bits / 32);
}

/**
 * f32 [R, width] of rows stored in 16 bits (bf16), or in 8 bits with a scale for each row.
 *
 * @param packed u32 [R, ceil(width * bits / 32)], the first value of a word in its lowest bits
 * @param scales f32 [R, 1]: a value is its signed 8-bit code times the scale; absent for 16 bits
 * @throws {ShapeError} if shapes or types are others
 */
export function unpackRows(packed: Tensor, width: number, scales?: Tensor): Tensor {
  const bits = scales ? 8 : 16;
  return packed.graph.add(unpackRowsOp, [packed, ...(scales ? [scales] : [])], { width, bits })[0]!;
}
