/**
 * What each held-out sequence came to, for each model of a comparison: what paired differences over texts are made of. In files of their
 * own, since they are many.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { exists, writeTextAtomically } from "../../formats/files.ts";
import { taskFile } from "./compared_tasks.ts";

/** One held-out set, measured sequence by sequence. */
export interface MeasuredSet {
  readonly name: string;
  /** Sum of the cross-entropy over each sequence's supervised tokens, in nats. */
  readonly losses: readonly number[];
  /** Its supervised tokens. */
  readonly tokens: readonly number[];
}

/** The folder of these files in a comparison's. */
const FOLDER = "sequences";

const fileSchema = z.object({
  sets: z.array(z.object({
    name: z.string(),
    losses: z.array(z.number().nullable()),
    tokens: z.array(z.number().int().min(0)),
  })).min(1),
});

/**
 * What has been measured of a model.
 *
 * @param name a run's folder in the comparison's, or the name of a model
 * @returns undefined where nothing has been
 * @throws {InputError} a file that is damaged
 */
export async function readSequences(
  folder: string,
  name: string,
): Promise<readonly MeasuredSet[] | undefined> {
  const path = join(folder, FOLDER, `${name}.json`);
  if (!await exists(path)) return undefined;
  try {
    const { sets } = fileSchema.parse(JSON.parse(await Deno.readTextFile(path)));
    return sets.map(({ losses, ...rest }) => ({ ...rest, losses: losses.map((loss) => loss ?? NaN) }));
  } catch (cause) {
    throw new InputError("does not hold what the held-out sequences came to", {
      where: path,
      cause,
      hint: "Remove it, and the model is measured again.",
    });
  }
}

/** Keeps what has been measured of a model. */
export async function writeSequences(
  folder: string,
  name: string,
  sets: readonly MeasuredSet[],
): Promise<void> {
  await Deno.mkdir(join(folder, FOLDER), { recursive: true });
  await writeTextAtomically(join(folder, FOLDER, `${name}.json`), JSON.stringify({ sets }) + "\n");
}

/** Forgets what has been measured of a model that is made anew, on tasks too. */
export async function removeSequences(folder: string, name: string): Promise<void> {
  for (const path of [join(folder, FOLDER, `${name}.json`), taskFile(folder, name)]) {
    if (await exists(path)) await Deno.remove(path);
  }
}

/** The mean over all tokens of a set, in nats; null where it is not finite. */
export function meanLoss({ losses, tokens }: MeasuredSet): number | null {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const mean = sum(losses) / sum(tokens);
  return Number.isFinite(mean) ? mean : null;
}
