/**
 * The configuration of a folder, `limbeck.config.ts`: the plugins that every command called from there knows.
 *
 * @module
 */
import type { Plugin } from "./kinds/mod.ts";

/** What a configuration may say. */
export interface Config {
  /**
   * Plugins themselves, files (relative to the configuration), or packages with their exact version, such as
   * `npm:@ada/losses@1.2.3`.
   */
  readonly plugins?: readonly (Plugin | string)[];
}

/**
 * Types a configuration; returns it unchanged.
 *
 * @example
 * ```ts ignore
 * import { defineConfig } from "@limbeck/limbeck/plugin";
 *
 * export default defineConfig({ plugins: ["./my_loss.ts", "npm:@ada/losses@1.2.3"] });
 * ```
 */
export function defineConfig(config: Config): Config {
  return config;
}
