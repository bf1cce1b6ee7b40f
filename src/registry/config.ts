/**
 * The configuration of a folder, `limbeck.config.ts`: the plugins that every command called from there knows.
 *
 * @module
 */
import type { Adapter } from "./adapter_contract.ts";
import type { Loss } from "./feature_contract.ts";

/** What a configuration may say. */
export interface Config {
  /**
   * Losses and adapters: plugins themselves, files (relative to the configuration), or packages with their exact version, such as
   * `npm:@ada/losses@1.2.3`.
   */
  readonly plugins?: readonly (Loss | Adapter | string)[];
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
