/**
 * Cutting a tensor into parts that fit one binding of a device each.
 *
 * @module
 */
import type { DeviceDescription } from "../gpu/description.ts";
import { DeviceError } from "../base/errors.ts";
import { show, type Tensor } from "./graph.ts";
import type { Window } from "./op.ts";
import { byteLength, bytesOf, elementCount, gcd, padded, wholeBlockUnits } from "./weight_storage.ts";

/** Consecutive units of a tensor, and what to bind to reach them: the first of them is the first in the binding. */
export interface Part {
  readonly first: number;
  readonly count: number;
  readonly binding: Tensor | Window;
}

/** What {@linkcode windows} cuts. A unit is never cut: a row of a matrix, or a value or block of a flat tensor. */
export interface Cut {
  /** Elements of a unit; a row by default. */
  readonly unitElements?: number;
  /** The first unit; 0 by default. It must begin at a multiple of 256 bytes. */
  readonly first?: number;
  /** How many units; all by default. */
  readonly count?: number;
  /** Every part but the last holds a multiple of this many units; 1 by default. */
  readonly multiple?: number;
  /** No part holds more units, even where a binding could. */
  readonly most?: number;
  /** No part holds more units than these or the smallest part, even where a binding could. */
  readonly about?: number;
}

/**
 * The parts of a tensor, in order. One part, the whole tensor, where that fits a binding.
 *
 * @throws {DeviceError} if not even the smallest part fits a binding
 */
export function windows(tensor: Tensor, device: DeviceDescription, cut: Cut = {}): Part[] {
  const elements = elementCount(tensor.shape);
  const unitElements = cut.unitElements ?? elements / tensor.dim(0);
  const { first = 0, count = elements / unitElements - first, multiple = 1 } = cut;
  const whole = byteLength(tensor);
  const limit = cut.most ?? cut.about ?? Infinity;
  if (whole <= device.maxBindingSize && first === 0 && count <= limit) {
    return [{ first, count, binding: tensor }];
  }

  // So many units are a multiple of `multiple`, whole blocks, and a multiple of the alignment in bytes.
  const blocks = wholeBlockUnits(tensor.dtype, unitElements);
  const unit = multiple * blocks / gcd(multiple, blocks);
  const bytesOfUnits = (units: number) => bytesOf(tensor.dtype, units * unitElements);
  const step = unit * device.offsetAlignment / gcd(bytesOfUnits(unit), device.offsetAlignment);
  const fits = Math.floor(device.maxBindingSize / bytesOfUnits(step)) * step;
  const wanted = Math.floor(limit / step) * step;
  const most = Math.min(cut.most === undefined ? Math.max(wanted, step) : wanted, fits);
  if (most === 0) {
    throw new DeviceError(
      `${show(tensor)} must be bound in parts of at least ${bytesOfUnits(step)} bytes, ` +
        `which this device's limit of ${device.maxBindingSize} bytes a binding does not allow`,
    );
  }
  const parts: Part[] = [];
  for (let at = first; at < first + count; at += most) {
    const units = Math.min(most, first + count - at);
    const byteOffset = bytesOfUnits(at);
    // Whole vectors of four words: storage is padded to them, and kernels read them.
    const bytes = Math.min(padded(bytesOfUnits(units)), whole - byteOffset);
    parts.push({ first: at, count: units, binding: { tensor, byteOffset, byteLength: bytes } });
  }
  return parts;
}
