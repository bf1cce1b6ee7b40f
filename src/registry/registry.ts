/**
 * The registry of plugins: a value that is passed down, never a global.
 *
 * @module
 */
import { InputError } from "../base/errors.ts";
import type { Adapter, Loss, Plugin } from "./contract.ts";
import { CONTRACT_VERSION, PluginError, type PluginKind } from "../base/plugin.ts";

/** What can be looked up. */
export interface Kinds {
  readonly loss: Loss;
  readonly adapter: Adapter;
}

/** `author/name` or, for built-ins, `name`: lower-case words joined by hyphens. */
const ID = /^(?:[a-z0-9]+(?:-[a-z0-9]+)*\/)?[a-z0-9]+(?:-[a-z0-9]+)*$/;

const KINDS: readonly PluginKind[] = ["divergence", "row-loss", "feature-loss", "adapter"];

/** Losses and adapters by id. */
export class Registry {
  readonly #plugins = new Map<string, Plugin>();
  readonly #modules = new Map<Plugin, string>();

  /**
   * Registers a plugin.
   *
   * @param module The file or package it comes from; absent for built-ins
   * @throws {PluginError} on a malformed or taken id, another contract version, or a tensor suffix that another adapter has
   */
  add(plugin: Plugin, module?: string): this {
    const { id, contract } = plugin;
    if (typeof id !== "string" || !ID.test(id)) {
      throw new PluginError(String(id), "the id must be lower-case words joined by hyphens, as author/name");
    }
    if (contract !== CONTRACT_VERSION) {
      throw new PluginError(
        id,
        `it was written for contract ${contract}; this Limbeck speaks ${CONTRACT_VERSION}`,
        {
          hint: "get a version of the plugin, or of Limbeck, that fits",
        },
      );
    }
    if (!KINDS.includes(plugin.kind) || typeof plugin.options?.safeParse !== "function") {
      throw new PluginError(id, "it is no loss or adapter: its kind or its schema of options is missing", {
        hint: "make it with defineDivergence, defineLoss, defineFeatureLoss or defineAdapter",
      });
    }
    const key = this.#key(plugin);
    const taken = this.#plugins.get(key);
    if (taken) {
      const [first, second] = [this.moduleOf(taken), module].map((m) => m ?? "Limbeck itself");
      throw new PluginError(id, "another plugin of this kind has the same id", {
        hint: `one is in ${first}, the other in ${second}; take one of them away`,
      });
    }
    if (plugin.kind === "adapter") {
      for (const other of this.#plugins.values()) {
        if (other.kind !== "adapter") continue;
        const clash = plugin.suffixes.find((s) => other.suffixes.includes(s));
        if (clash) throw new PluginError(id, `its tensors end in "${clash}", as those of "${other.id}" do`);
      }
    }
    this.#plugins.set(key, plugin);
    if (module !== undefined) this.#modules.set(plugin, module);
    return this;
  }

  /** Registers several plugins of one module. */
  addAll(plugins: Iterable<Plugin>, module?: string): this {
    for (const plugin of plugins) this.add(plugin, module);
    return this;
  }

  /** The file or package that a plugin comes from; undefined for built-ins. */
  moduleOf(plugin: Plugin): string | undefined {
    return this.#modules.get(plugin);
  }

  /** All plugins, in the order they were added. */
  list(): Plugin[] {
    return [...this.#plugins.values()];
  }

  /**
   * A plugin by kind and id.
   *
   * @throws {InputError} naming the ids there are
   */
  get<K extends keyof Kinds>(kind: K, id: string): Kinds[K] {
    const found = this.#plugins.get(`${kind} ${id}`);
    if (found) return found as Kinds[K];
    const known = this.list().filter((p) => this.#key(p) === `${kind} ${p.id}`).map((p) => p.id);
    const near = nearest(id, known);
    throw new InputError(`there is no ${kind} "${id}"; there are ${known.join(", ") || "none"}`, {
      hint: near
        ? `did you mean "${near}"? A plugin of your own is given with --plugin ./file.ts`
        : "check the spelling, or give the plugin's file with --plugin ./file.ts",
    });
  }

  /**
   * Options checked by the plugin's schema, defaults filled in.
   *
   * @param where Path in the recipe, for errors
   * @throws {InputError} with every problem
   */
  options(plugin: Plugin, given: Readonly<Record<string, unknown>>, where: string): Record<string, unknown> {
    const result = plugin.options.safeParse(given);
    if (result.success) return result.data;
    const problems = result.error.issues.map((i) => `\n  ${[where, ...i.path].join(".")}: ${i.message}`);
    throw new InputError(`the options of "${plugin.id}" are not valid${problems.join("")}`, {
      where: "recipe",
    });
  }

  #key(plugin: Plugin): string {
    return `${plugin.kind === "adapter" ? "adapter" : "loss"} ${plugin.id}`;
  }
}

/** The known name that differs from `name` by a slip: at most a third of its letters. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const distances = known.map((other) => ({ other, distance: editDistance(name.slice(0, 80), other) }));
  const best = distances.sort((a, b) => a.distance - b.distance)[0];
  return best && best.distance <= Math.max(1, best.other.length / 3) ? best.other : undefined;
}

/** Levenshtein distance: insertions, deletions and replacements that make one text of the other. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + Number(a[i - 1] !== b[j - 1]));
    }
    row = next;
  }
  return row[b.length]!;
}
