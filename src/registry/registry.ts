/**
 * The registry of plugins: a value that is passed down, never a global.
 *
 * @module
 */
import { nearest, oneOf } from "../base/did_you_mean.ts";
import { InputError } from "../base/errors.ts";
import { CONTRACT_VERSION, PluginError } from "../base/plugin.ts";
import type { AnyPlugin, Complaint, Kind } from "./kind.ts";
import { definers, kindOf, KINDS, type KnownKind, type PluginOf } from "./kinds/mod.ts";

/** `author/name` or, for built-ins, `name`: lower-case words joined by hyphens. */
const ID = /^(?:[a-z0-9]+(?:-[a-z0-9]+)*\/)?[a-z0-9]+(?:-[a-z0-9]+)*$/;

/** Plugins by role and id. `K` are the kinds that it takes. */
export class Registry<K extends Kind = KnownKind> {
  readonly #kinds: readonly K[];
  readonly #plugins = new Map<string, PluginOf<K>>();
  readonly #modules = new Map<AnyPlugin, string>();

  constructor(kinds: readonly K[] = KINDS as readonly Kind[] as readonly K[]) {
    this.#kinds = kinds;
  }

  /**
   * Registers a plugin.
   *
   * @param module The file or package it comes from; absent for built-ins
   * @throws {PluginError} on what {@linkcode Registry.complaint} says of it
   */
  add(plugin: PluginOf<K>, module?: string): this {
    const complaint = this.complaint(plugin, module);
    if (complaint) throw new PluginError(String(plugin.id), complaint.message, complaint);
    this.#plugins.set(this.#key(plugin), plugin);
    if (module !== undefined) this.#modules.set(plugin, module);
    return this;
  }

  /**
   * Why a plugin cannot be registered: a malformed or taken id, another contract version, no known kind, something that its kind needs is
   * missing, or what another of its kind has for itself; undefined where it can.
   */
  complaint(plugin: AnyPlugin, module?: string): Complaint | undefined {
    const { id, contract } = plugin;
    if (typeof id !== "string" || !ID.test(id)) {
      return {
        message: "the id must be lower-case words joined by hyphens, as author/name",
        hint: 'write it as id: "author/name"',
      };
    }
    if (contract !== CONTRACT_VERSION) {
      return {
        message: `it was written for contract ${contract}; this Limbeck speaks ${CONTRACT_VERSION}`,
        hint: "get a version of the plugin, or of Limbeck, that fits",
      };
    }
    const kind = this.kindOf(plugin);
    if (!kind || typeof plugin.options?.safeParse !== "function") {
      return {
        message: `it is no ${oneOf(this.#roles())}: its kind or its schema of options is missing`,
        hint: `make it with ${definers(this.#kinds)}`,
      };
    }
    const missing = kind.functions.find((name) => typeof Reflect.get(plugin, name) !== "function");
    if (missing !== undefined) {
      return {
        message: `${missing}() is missing`,
        hint: `a ${kind.id} needs ${kind.functions.join("(), ")}()`,
      };
    }
    return kind.malformed?.(plugin) ?? this.#clash(plugin, kind, module);
  }

  /** What two plugins have that only one may. */
  #clash(plugin: AnyPlugin, { id, unique }: Kind, module: string | undefined): Complaint | undefined {
    const taken = this.#plugins.get(this.#key(plugin));
    if (taken) {
      const [first, second] = [this.moduleOf(taken), module].map((m) => m ?? "Limbeck itself");
      return {
        message: "another plugin of this kind has the same id",
        hint: `one is in ${first}, the other in ${second}; take one of them away`,
      };
    }
    for (const other of this.list()) {
      if (!unique || other.kind !== id) continue;
      const names = unique.of(other);
      const clash = unique.of(plugin).find((name) => names.includes(name));
      if (clash !== undefined) return { message: `${unique.say(clash)}, as those of "${other.id}" do` };
    }
    return undefined;
  }

  /** Registers several plugins of one module. */
  addAll(plugins: Iterable<PluginOf<K>>, module?: string): this {
    for (const plugin of plugins) this.add(plugin, module);
    return this;
  }

  /** The kind of a plugin; undefined where it says none that there is. */
  kindOf(plugin: AnyPlugin): K | undefined {
    return kindOf(plugin, this.#kinds);
  }

  /** The file or package that a plugin comes from; undefined for built-ins. */
  moduleOf(plugin: AnyPlugin): string | undefined {
    return this.#modules.get(plugin);
  }

  /** All plugins, in the order they were added. */
  list(): PluginOf<K>[] {
    return [...this.#plugins.values()];
  }

  /** A plugin by role and id; undefined where there is none. */
  find<R extends K["role"]>(role: R, id: string): PluginOf<Extract<K, { role: R }>> | undefined {
    return this.#plugins.get(`${role} ${id}`) as PluginOf<Extract<K, { role: R }>> | undefined;
  }

  /**
   * A plugin by role and id.
   *
   * @throws {InputError} naming the ids there are
   */
  get<R extends K["role"]>(role: R, id: string): PluginOf<Extract<K, { role: R }>> {
    const found = this.find(role, id);
    if (found) return found;
    const known = this.list().filter((p) => this.#key(p) === `${role} ${p.id}`).map((p) => p.id);
    const near = nearest(id, known);
    throw new InputError(`there is no ${role} "${id}"; there are ${known.join(", ") || "none"}`, {
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
  options(
    plugin: AnyPlugin,
    given: Readonly<Record<string, unknown>>,
    where: string,
  ): Record<string, unknown> {
    const result = plugin.options.safeParse(given);
    if (result.success) return result.data;
    const problems = result.error.issues.map((i) => `\n  ${[where, ...i.path].join(".")}: ${i.message}`);
    throw new InputError(`the options of "${plugin.id}" are not valid${problems.join("")}`, {
      where: "recipe",
    });
  }

  #key(plugin: AnyPlugin): string {
    return `${this.kindOf(plugin)?.role} ${plugin.id}`;
  }

  #roles(): string[] {
    return [...new Set(this.#kinds.map(({ role }) => role))];
  }
}
