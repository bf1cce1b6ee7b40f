/**
 * The models that are merged: opened, and checked against one another before anything is computed.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import type { ModelSource } from "../../formats/model_source.ts";
import { openModel } from "../../formats/open_model.ts";
import type { Architecture } from "../../models/architecture.ts";
import { readArchitecture } from "../../models/families.ts";
import { checkTensors } from "../../models/weights.ts";

/** A model that is merged. */
export interface Parent {
  /** As the recipe names it. */
  readonly name: string;
  readonly source: ModelSource;
  readonly architecture: Architecture;
}

/** Why models cannot be merged, by their names. */
export type Failures = ReadonlyMap<string, InputError>;

/** The one error, or one that lists them all. */
export function unopened(failures: Failures): InputError {
  const [one, ...others] = failures.values();
  if (others.length === 0) return one!;
  const lines = [...failures.values()].map(({ message }) => `\n  ${message}`);
  return new InputError(`${failures.size} models cannot be opened:${lines.join("")}`);
}

/** The models of a merge by the name that the recipe gives them, the base first. */
export class Parents {
  readonly #byName: ReadonlyMap<string, Parent>;

  private constructor(byName: ReadonlyMap<string, Parent>) {
    this.#byName = byName;
  }

  /**
   * Opens models and checks that each holds what its config promises.
   *
   * @throws {InputError} naming every model that is not there, is none, or is damaged
   */
  static async open(names: Iterable<string>): Promise<Parents> {
    const parents = await Parents.tryOpen(names);
    if (parents instanceof Parents) return parents;
    throw unopened(parents);
  }

  /** The same, which says what is wrong with each model that cannot be opened. None is left open then. */
  static async tryOpen(names: Iterable<string>): Promise<Parents | Failures> {
    const parents = new Map<string, Parent>();
    const failures = new Map<string, InputError>();
    let isDone = false;
    try {
      for (const name of new Set(names)) {
        const opened = await openParent(name).catch((error) => {
          if (error instanceof InputError) return error;
          throw error;
        });
        if (opened instanceof InputError) failures.set(name, opened);
        else parents.set(name, opened);
      }
      isDone = failures.size === 0;
      return isDone ? new Parents(parents) : failures;
    } finally {
      if (!isDone) parents.forEach(({ source }) => source.close());
    }
  }

  /** A model by its name. It must be one of those that were opened. */
  get(name: string): Parent {
    return this.#byName.get(name)!;
  }

  [Symbol.iterator](): Iterator<Parent> {
    return this.#byName.values();
  }

  close(): void {
    for (const { source } of this) source.close();
  }
}

async function openParent(name: string): Promise<Parent> {
  const source = await openModel(name);
  try {
    const where = source.kind === "huggingface" ? join(name, "config.json") : name;
    const architecture = readArchitecture(source.config, where);
    checkTensors(architecture, source.tensors, name);
    return { name, source, architecture };
  } catch (error) {
    source.close();
    throw error;
  }
}

/** What decides how weights are used, not which there are. Where it differs the result has the first model's. */
const SOFT_FIELDS: Readonly<Record<string, string>> = {
  normEpsilon: "rms_norm_eps",
  contextLength: "max_position_embeddings",
  inverseFrequencies: "the rotary frequencies (rope_theta, rope_scaling)",
};

/** What models of one merge may differ in, or what is looked at elsewhere. */
const FREE_FIELDS = ["layers", "vocabularySize", "bosToken", "eosTokens", "ropeTheta", "attentionScaling"];

/**
 * Checks that models are of one architecture.
 *
 * @returns What differs without forbidding the merge, in words
 * @throws {InputError} naming the first model that is unlike the first, and every field in which it is
 */
export function checkAlike(parents: Iterable<Parent>): string[] {
  const [first, ...others] = parents;
  const notes: string[] = [];
  for (const other of others) {
    const unlike: string[] = [];
    for (const [field, left, right] of differences(first!, other)) {
      const soft = SOFT_FIELDS[field];
      if (soft === undefined) unlike.push(`${field} is ${right}, not ${left}`);
      else notes.push(`${soft} of ${other.name} differ from those of ${first!.name}, which the result has`);
    }
    if (unlike.length === 0) continue;
    throw new InputError(`is another kind of model than ${first!.name}: ${unlike.join("; ")}`, {
      where: other.name,
      hint:
        "Only models of one architecture and of the same sizes can be merged, such as those trained from one base.",
    });
  }
  return notes;
}

/** Fields of two configs that differ, with their values as JSON. */
function differences(first: Parent, other: Parent): [field: string, left: string, right: string][] {
  const [a, b] = [first, other].map(({ architecture: { config } }) => new Map(Object.entries(config)));
  const json = (value: unknown) =>
    JSON.stringify(ArrayBuffer.isView(value) ? [...value as Float64Array] : value);
  return [...new Set([...a!.keys(), ...b!.keys()])].flatMap((field) => {
    const [left, right] = [json(a!.get(field)), json(b!.get(field))];
    return left === right || FREE_FIELDS.includes(field) ? [] : [[field, left, right]];
  });
}
