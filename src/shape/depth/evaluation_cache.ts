/**
 * What has been measured of subsets, kept on disk as it is measured, so that a search that was ended goes on where it was.
 *
 * A file is named by a hash of all that its numbers follow from: model, samples, metric. Its first line says what these are; each other
 * line has one subset. A line that a kill cut short is not there for whoever reads, and the next one begins after it.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { isObject } from "../../base/json.ts";
import { canonicalJson } from "../../base/json.ts";
import { unwritable } from "../../formats/files.ts";
import { subsetKey } from "./subsets.ts";

/** What numbers follow from. */
export interface EvaluationOrigin {
  /** Hash of the model's weights and config. */
  readonly model: string;
  /** Hash of the samples, and of which of their tokens count. */
  readonly data: string;
  /** What is measured, with what it depends on beside the samples. */
  readonly metric: string;
}

/** What was measured, by name; null where it is no finite number. */
export type SubsetValues = Readonly<Record<string, number | null>>;

const FORMAT = "limbeck layer evaluations 1";

/** The evaluations of one model, data and metric. */
export class EvaluationCache {
  readonly path: string;
  readonly #values = new Map<string, SubsetValues>();
  #file: Deno.FsFile | undefined;

  private constructor(path: string) {
    this.path = path;
  }

  /**
   * Opens or begins the file of an origin.
   *
   * @throws {InputError} if the folder cannot be written
   */
  static async open(folder: string, origin: EvaluationOrigin): Promise<EvaluationCache> {
    const about = canonicalJson({ format: FORMAT, ...origin });
    const name = createHash("sha256").update(about).digest("hex");
    const cache = new EvaluationCache(join(folder, `${name}.jsonl`));
    try {
      await Deno.mkdir(folder, { recursive: true });
      const text = await Deno.readTextFile(cache.path).catch((error) => {
        if (error instanceof Deno.errors.NotFound) return "";
        throw error;
      });
      for (const line of text.split("\n")) cache.#take(line);
      cache.#file = await Deno.open(cache.path, { append: true, create: true });
      if (text === "") cache.#append(about);
      else if (!text.endsWith("\n")) cache.#append("");
    } catch (error) {
      cache.close();
      throw unwritable(cache.path, error);
    }
    return cache;
  }

  /** Subsets that are known. */
  get size(): number {
    return this.#values.size;
  }

  /** What was measured of a subset, if it was. */
  get(kept: readonly number[]): SubsetValues | undefined {
    return this.#values.get(subsetKey(kept));
  }

  /** Keeps what was measured of a subset; it is on disk when this returns. */
  add(kept: readonly number[], values: SubsetValues): void {
    this.#values.set(subsetKey(kept), values);
    this.#append(JSON.stringify({ kept, values }));
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #append(line: string): void {
    const bytes = new TextEncoder().encode(`${line}\n`);
    for (let done = 0; done < bytes.length;) done += this.#file!.writeSync(bytes.subarray(done));
    this.#file!.syncDataSync();
  }

  #take(line: string): void {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      return;
    }
    if (!isObject(value) || !Array.isArray(value.kept) || !isObject(value.values)) return;
    this.#values.set(subsetKey(value.kept), value.values as SubsetValues);
  }
}
