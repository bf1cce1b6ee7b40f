/**
 * What every plugin has: an id, versions and a schema of its options.
 *
 * @module
 */
import { z } from "zod";
import { LimbeckError } from "./errors.ts";

/** Version of the contract that this Limbeck speaks. It rises when a plugin written for the one before could break. */
export const CONTRACT_VERSION = 1;

/** Schema of a plugin's options: a strict object, so that a misspelt option is an error. */
export type OptionsSchema = z.ZodObject;

/** What every plugin definition begins with. */
export interface PluginHeader<Schema extends OptionsSchema = OptionsSchema> {
  /** `author/name`, lower-case words joined by hyphens; built-ins have no slash. */
  readonly id: string;
  /** The plugin's own version, such as `1.0.0`. */
  readonly version: string;
  /** The contract it was written for: {@linkcode CONTRACT_VERSION}. */
  readonly contract: number;
  /** One line for lists. */
  readonly description?: string;
  /** Where the method comes from: paper, equation. */
  readonly source?: string;
  /** Options a recipe may give, with defaults. Shown to users as JSON Schema. */
  readonly options: Schema;
}

/** A plugin that breaks the contract. Names the plugin and the rule. */
export class PluginError extends LimbeckError {
  override readonly exitCode = 3;
  override readonly code: string = "plugin";
  readonly plugin: string;

  constructor(plugin: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(`plugin "${plugin}": ${message}`, options);
    this.plugin = plugin;
  }
}

/** Options of a plugin without any. */
export const noOptions: z.ZodObject<Record<never, never>, z.core.$strict> = z.strictObject({});
