/**
 * The registry of plugins: a value that is passed down, never a global.
 *
 * @module
 */
import { InputError } from "../errors.ts";
import type { Adapter, Loss, Plugin } from "./contract.ts";
import { CONTRACT_VERSION, PluginError } from "./plugin.ts";

/** What can be looked up. */
export interface Kinds {
  readonly loss: Loss;
  readonly adapter: Adapter;
}

/** `author/name` or, for built-ins, `name`: lower-case words joined by hyphens. */
const ID = /^(?:[a-z0-9]+(?:-[a-z0-9]+)*\/)?[a-z0-9]+(?:-[a-z0-9]+)*$/;

/** Losses and adapters by id. */
export class Registry {
  readonly #plugins = new Map<string, Plugin>();

  /**
   * Registers a plugin.
   *
   * @throws {PluginError} on a malformed or taken id, another contract version, or a tensor suffix that another adapter has
   */
  add(plugin: Plugin): this {
    const { id, contract } = plugin;
    if (!ID.test(id)) {
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
    const key = this.#key(plugin);
    if (this.#plugins.has(key)) throw new PluginError(id, "another plugin of this kind has the same id");
    if (plugin.kind === "adapter") {
      for (const other of this.#plugins.values()) {
        if (other.kind !== "adapter") continue;
        const clash = plugin.suffixes.find((s) => other.suffixes.includes(s));
        if (clash) throw new PluginError(id, `its tensors end in "${clash}", as those of "${other.id}" do`);
      }
    }
    this.#plugins.set(key, plugin);
    return this;
  }

  /** Registers several plugins. */
  addAll(plugins: Iterable<Plugin>): this {
    for (const plugin of plugins) this.add(plugin);
    return this;
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
    throw new InputError(`there is no ${kind} "${id}"; there are ${known.join(", ")}`, {
      hint: "check the spelling, or give the plugin's file with --plugin",
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
