/**
 * Reads the folder of reference values that a family is held to: docs/families.md has its files.
 *
 * @module
 */
// @ts-types="../../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../../base/errors.ts";
import { isObject } from "../../../base/json.ts";
import { toFloat32 } from "../../../formats/dtype.ts";
import { exists, openFile } from "../../../formats/files.ts";
import { openModel } from "../../../formats/open_model.ts";
import { SafetensorsFile } from "../../../formats/safetensors/safetensors.ts";
import type { FamilyReference, ReferenceArray } from "../../../registry/check/family_reference.ts";

const [IDS, EXPECTED, LEGACY] = ["ids.json", "expected.safetensors", "config.legacy.json"];
/** Weights are held in memory, as f32. */
const MOST_VALUES = 2 ** 26;

/** @throws {InputError} naming the file that is missing or does not do */
export async function readReference(folder: string): Promise<FamilyReference> {
  const model = await openModel(folder);
  try {
    const values = [...model.tensors.values()].reduce(
      (sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1),
      0,
    );
    if (values > MOST_VALUES) {
      throw new InputError(`holds a model of ${values} values; a reference has at most ${MOST_VALUES}`, {
        where: folder,
        hint: "Make a tiny random one of the same class: two layers of width 48 show as much.",
      });
    }
    const tensors = new Map<string, ReferenceArray>();
    for (const name of model.tensors.keys()) {
      const { dtype, shape, data } = await model.read(name);
      tensors.set(name, { shape, data: toFloat32(dtype, data) });
    }
    const configs = new Map([["config.json", model.config]]);
    const legacy = join(folder, LEGACY);
    if (await exists(legacy)) configs.set(LEGACY, await readObject(legacy));
    const ids = await readIds(join(folder, IDS));
    const expected = await readArrays(join(folder, EXPECTED));
    const logits = expected.get("logits");
    const wanted = [ids.length, ids[0]!.length];
    if (logits?.shape.length !== 3 || logits.shape[0] !== wanted[0] || logits.shape[1] !== wanted[1]) {
      throw new InputError(
        `logits ${logits ? `have shape [${logits.shape.join(", ")}]` : "are missing"}; expected [${
          wanted.join(", ")
        }, V]`,
        {
          where: join(folder, EXPECTED),
          hint: `They are of the ${wanted[0]} sequences of ${wanted[1]} tokens in ${IDS}.`,
        },
      );
    }
    return { where: folder, configs, tensors, ids, expected };
  } finally {
    model.close();
  }
}

async function readObject(path: string): Promise<Record<string, unknown>> {
  const text = await Deno.readTextFile(path).catch((cause) => {
    throw new InputError("cannot be read", { where: path, hint: "A reference has it.", cause });
  });
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch (cause) {
    throw new InputError("is no JSON", { where: path, cause });
  }
  throw new InputError("is no JSON object", { where: path });
}

async function readIds(path: string): Promise<number[][]> {
  const { ids } = await readObject(path);
  const isToken = (id: unknown) => Number.isSafeInteger(id) && Number(id) >= 0;
  if (
    Array.isArray(ids) && ids.length > 0 &&
    ids.every((row) =>
      Array.isArray(row) && row.length > 0 && row.length === ids[0].length && row.every(isToken)
    )
  ) return ids;
  throw new InputError("ids are no sequences of token ids, all of one length", {
    where: path,
    hint: 'Write {"ids": [[5, 17, ...], [8, 2, ...]]}.',
  });
}

async function readArrays(path: string): Promise<Map<string, ReferenceArray>> {
  const file = await SafetensorsFile.open(await openFile(path));
  try {
    const arrays = new Map<string, ReferenceArray>();
    for (const name of file.tensors.keys()) {
      const { dtype, shape, data } = await file.read(name);
      arrays.set(name, { shape, data: toFloat32(dtype, data) });
    }
    return arrays;
  } finally {
    file.close();
  }
}
