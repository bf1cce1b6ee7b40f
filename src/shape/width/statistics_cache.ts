/**
 * Statistics of inputs, kept on disk: they take a pass over all text, and serve any width.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { canonicalJson } from "../../base/json.ts";
import { openFile, unwritable } from "../../formats/files.ts";
import { SafetensorsFile } from "../../formats/safetensors/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors/write.ts";
import type { InputStatistics, LayerStatistics } from "./flap.ts";

/** What statistics follow from. */
export interface StatisticsOrigin {
  /** Hash of the model's weights and config. */
  readonly model: string;
  /** Layers of it that are kept. */
  readonly layers: readonly number[];
  /** Hash of the samples. */
  readonly data: string;
  /** Whether they are AmoebaLLM's running ones. */
  readonly faithful: boolean;
}

const FORMAT = "limbeck input statistics 1";
const ROLES = ["attention", "mlp"] as const;
const PARTS = ["mean", "variance"] as const;

/**
 * The statistics of an origin: those that are kept, or else those that `measure` gives, which are kept. A file that is damaged is made
 * again.
 *
 * @throws {InputError} if the folder cannot be written
 */
export async function rememberedStatistics(
  folder: string,
  origin: StatisticsOrigin,
  measure: () => Promise<LayerStatistics[]>,
): Promise<LayerStatistics[]> {
  const about = canonicalJson({ format: FORMAT, ...origin });
  const path = join(folder, `${createHash("sha256").update(about).digest("hex")}.safetensors`);
  const known = await read(path, about, origin.layers.length).catch(() => undefined);
  if (known) return known;
  const measured = await measure();
  const arrays = new Map<string, Float64Array>(
    measured.flatMap((layer, i) =>
      ROLES.flatMap((role) => PARTS.map((part) => [`${i}.${role}.${part}`, layer[role][part]] as const))
    ),
  );
  try {
    await Deno.mkdir(folder, { recursive: true });
  } catch (error) {
    throw unwritable(folder, error);
  }
  await writeSafetensors(
    path,
    [...arrays].map(([name, { length }]) => ({ name, dtype: "F64" as const, shape: [length] })),
    ({ name }) => arrays.get(name)!,
    { about, tokens: String(measured[0]!.mlp.count) },
  );
  return measured;
}

async function read(path: string, about: string, layers: number): Promise<LayerStatistics[] | undefined> {
  const file = await SafetensorsFile.open(await openFile(path));
  try {
    if (file.metadata.get("about") !== about) return undefined;
    const count = Number(file.metadata.get("tokens"));
    const array = async (name: string) => (await file.readArray(name)).data as Float64Array;
    const of = async (layer: number, role: string): Promise<InputStatistics> => ({
      count,
      mean: await array(`${layer}.${role}.mean`),
      variance: await array(`${layer}.${role}.variance`),
    });
    const found: LayerStatistics[] = [];
    for (let layer = 0; layer < layers; layer++) {
      found.push({ attention: await of(layer, "attention"), mlp: await of(layer, "mlp") });
    }
    return found;
  } finally {
    file.close();
  }
}
