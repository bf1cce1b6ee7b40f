/**
 * What a kind of plugins is: a row of the table in `kinds/mod.ts`. Everything that differs between kinds is in it.
 *
 * @module
 */
import type { PluginHeader } from "../base/plugin.ts";
import type { LinearAlgebra } from "./adapter_contract.ts";
import type { Controller } from "../losses/contract.ts";
import type { Checklist } from "./check/checklist.ts";
import type { FamilyReference } from "./check/family_reference.ts";

/** A plugin, as far as all kinds are alike. */
export interface AnyPlugin extends PluginHeader {
  readonly kind: string;
  /** Options that a schedule may change at every step. */
  readonly scheduled?: readonly string[];
  /** Sets some of them. */
  readonly controller?: Controller;
}

/** What is wrong with a plugin, and what to do about it. */
export interface Complaint {
  readonly message: string;
  readonly hint?: string;
}

/** A kind of plugins. `P` is the contract: what its `define` helper returns. */
export interface Kind<P extends AnyPlugin = AnyPlugin, Role extends string = string> {
  /** What its plugins have for `kind`. */
  readonly id: P["kind"];
  /** What recipes call such plugins. Kinds of one role share the names of plugins. */
  readonly role: Role;
  /** Name of the function that makes them. */
  readonly define: string;
  /** Functions without which none can work. */
  readonly functions: readonly string[];
  /** Fields of the plugin with schemas of options beside its own, and whose they are: `of each parent`. */
  readonly furtherOptions?: Readonly<Partial<Record<Extract<keyof P, string>, string>>>;
  /** What else makes one malformed, whatever its options. */
  malformed?(plugin: P): Complaint | undefined;
  /** What no two plugins of the kind may share. */
  readonly unique?: {
    of(plugin: P): readonly string[];
    /** Says so of one of them: `its tensors end in "x"`. */
    say(name: string): string;
  };
  /** Functions that few runs call: they count in the identity of a plugin only where a run says so itself. */
  readonly apart?: readonly string[];
  /** What it computes with these options, as text, where the text of its functions does not show it: a part of its identity. */
  computes?(plugin: P, options: Readonly<Record<string, unknown>>): string | undefined;
  /** Checks its behaviour, when contract and options have passed; against values of another program where the user has some. */
  check(
    plugin: P,
    options: Record<string, unknown>,
    list: Checklist,
    linalg: LinearAlgebra,
    reference?: FamilyReference,
  ): Promise<void>;
  /** How one is begun: `limbeck plugin new NAME`. */
  readonly template: {
    readonly name: string;
    /** In brackets behind the name, in the help. */
    readonly about?: string;
    /** A plugin that works as it is; NAME, SUFFIX (NAME for a tensor) and FILE stand for those of the new one. */
    readonly source: string;
  };
}
