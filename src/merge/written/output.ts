/**
 * What all that writes a model tensor by tensor has in common.
 *
 * @module
 */
import type { ModelFamily } from "../../models/family.ts";
import { InputError } from "../../base/errors.ts";
import type { FloatDtype } from "../../formats/dtype.ts";
import { isTaken } from "../../formats/files.ts";
import type { Parent } from "../parents/parents.ts";

/** Entries of a tensor that are worked on at once. */
const PIECE = 1 << 20;

/** How long work is watched and stopped. */
export interface TensorWork {
  /** Called as values are done, with the tensor that is worked on. */
  readonly onProgress?: (done: number, total: number, tensor: string) => void;
  readonly signal?: AbortSignal | undefined;
  /** Families of models beside the built-in ones. */
  readonly families?: readonly ModelFamily[] | undefined;
}

/** The pieces of a tensor in order: which rows, and how many. */
export function* pieces([rows, ...row]: readonly number[]): Generator<{ first: number; count: number }> {
  const most = Math.max(1, Math.floor(PIECE / row.reduce((a, b) => a * b, 1)));
  for (let first = 0; first < rows!; first += most) yield { first, count: Math.min(most, rows! - first) };
}

/** @throws {InputError} something has that name already */
export async function checkOutput(output: string): Promise<void> {
  if (!await isTaken(output)) return;
  throw new InputError("is already there", { where: output, hint: "choose another name, or remove it" });
}

/** The smallest storage that holds every tensor of a model; f16 and bf16 side by side only fit f32. */
export function storageOf({ source, architecture }: Parent): FloatDtype {
  const found = new Set([...architecture.tensors.keys()].map((name) => source.tensors.get(name)!.exactDtype));
  return found.size === 1 ? [...found][0]! : "f32";
}
