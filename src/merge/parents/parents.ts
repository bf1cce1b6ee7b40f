/**
 * The models that are merged: opened, each with all that its config promises.
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
import type { ModelFamily } from "../../models/family.ts";
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
   * @param families Beside the built-in ones
   * @throws {InputError} naming every model that is not there, is none, or is damaged
   */
  static async open(
    names: Iterable<string>,
    families: readonly ModelFamily[] = [],
  ): Promise<Parents> {
    const parents = await Parents.tryOpen(names, families);
    if (parents instanceof Parents) return parents;
    throw unopened(parents);
  }

  /** The same, which says what is wrong with each model that cannot be opened. None is left open then. */
  static async tryOpen(
    names: Iterable<string>,
    families: readonly ModelFamily[] = [],
  ): Promise<Parents | Failures> {
    const parents = new Map<string, Parent>();
    const failures = new Map<string, InputError>();
    let isDone = false;
    try {
      for (const name of new Set(names)) {
        const opened = await openParent(name, families).catch((error) => {
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

async function openParent(name: string, families: readonly ModelFamily[]): Promise<Parent> {
  const source = await openModel(name);
  try {
    const where = source.kind === "huggingface" ? join(name, "config.json") : name;
    const architecture = readArchitecture(source.config, where, families);
    checkTensors(architecture, source.tensors, name);
    return { name, source, architecture };
  } catch (error) {
    source.close();
    throw error;
  }
}
