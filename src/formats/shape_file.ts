/**
 * Shape files: which layers of a model a smaller one keeps, and which heads and channels of them, without any weights. A recipe's
 * `student.shape` cuts its student by one.
 *
 * @module
 */
import { z } from "zod";
import { system } from "../base/system.ts";
import { InputError } from "../base/errors.ts";
import { unreadable, writeTextAtomically } from "./files.ts";

/** A shape, and the model that it is of. */
export interface ShapeFile {
  readonly limbeck: "shape";
  readonly version: 1;
  readonly model: ShapedModel;
  /** Layers of the model that stay, from 0 and rising. */
  readonly keptLayers: readonly number[];
  /** Absent where the kept layers stay as wide as they are. */
  readonly width?: ShapeWidth;
}

/** The model that a shape is of. */
export interface ShapedModel {
  /** Where it lay when the shape was found; for people. */
  readonly path: string;
  /** Hash (SHA-256, hex) of its weights and config. */
  readonly identity: string;
  /** Layers of the whole model. */
  readonly layers: number;
}

/** What the kept layers keep of their width, a list for each kept layer in the order of `keptLayers`. */
export interface ShapeWidth {
  /** Groups of query heads with their head of keys and values, from 0 and rising. */
  readonly groups: readonly (readonly number[])[];
  /** Channels of the MLP, from 0 and rising. */
  readonly channels: readonly (readonly number[])[];
  /** Biases in place of what was cut: the base64 of little-endian f64 [hiddenSize]; none when absent. */
  readonly compensation?: readonly { readonly attention: string; readonly mlp: string }[];
}

const index = z.number().int().min(0);
const rising = z.array(index).refine(
  (list) => list.every((n, i) => i === 0 || n > list[i - 1]!),
  "must rise, each number once",
);

const schema: z.ZodType<ShapeFile> = z.strictObject({
  limbeck: z.literal("shape"),
  version: z.literal(1),
  model: z.strictObject({
    path: z.string(),
    identity: z.string().regex(/^[0-9a-f]{64}$/, "must be 64 hexadecimal digits"),
    layers: z.number().int().min(1),
  }),
  keptLayers: rising.min(1),
  width: z.strictObject({
    groups: z.array(rising),
    channels: z.array(rising),
    compensation: z.array(z.strictObject({ attention: z.base64(), mlp: z.base64() })).optional(),
  }).optional(),
}).superRefine(({ model, keptLayers, width }, context) => {
  const wrong = (path: string[], message: string) => context.addIssue({ code: "custom", path, message });
  const beyond = keptLayers.filter((layer) => layer >= model.layers);
  if (beyond.length > 0) {
    wrong(["keptLayers"], `names layers ${beyond.join(", ")} of a model with ${model.layers}`);
  }
  for (const [name, lists] of Object.entries(width ?? {})) {
    if (!lists || lists.length === keptLayers.length) continue;
    wrong(["width", name], `has ${lists.length} entries for ${keptLayers.length} kept layers`);
  }
});

/**
 * Reads a shape file.
 *
 * @throws {InputError} if it is not there, or is none
 */
export async function readShapeFile(path: string): Promise<ShapeFile> {
  const text = await system.readTextFile(path).catch((error) => {
    throw unreadable(path, error);
  });
  return parseShapeFile(text, path);
}

/**
 * Reads what a shape file says.
 *
 * @param where How errors name it
 * @throws {InputError} if it is none
 */
export function parseShapeFile(text: string, where: string): ShapeFile {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`is no shape file: not valid JSON: ${(error as Error).message}`, {
      where,
      hint: HINT,
    });
  }
  const { data, error } = schema.safeParse(value);
  if (data) return data;
  const problems = error.issues.map((issue) => `${issue.path.join(".") || "the file"}: ${issue.message}`);
  throw new InputError(`is no shape file: ${problems.join("; ")}`, { where, hint: HINT });
}

const HINT = "`limbeck shrink MODEL --shape FILE` writes one.";

/** Writes a shape file, whole or not at all; one that is there is replaced. */
export async function writeShapeFile(path: string, shape: ShapeFile): Promise<void> {
  await writeTextAtomically(path, JSON.stringify(shape, null, 1) + "\n");
}

/**
 * Requires that a shape is of a model.
 *
 * @param identity Hash of the model's weights and config
 * @param where The shape file
 * @throws {InputError} if it is of another one
 */
export function checkShapedModel({ model }: ShapeFile, identity: string, path: string, where: string): void {
  if (model.identity === identity) return;
  throw new InputError(
    `is the shape of another model than ${path}: it was found for ${model.path}, whose weights and config have the hash ${
      model.identity.slice(0, 12)
    }, not ${identity.slice(0, 12)}`,
    {
      where,
      hint: "Name the model that the shape was found for, or find one for this model with `limbeck shrink`.",
    },
  );
}
