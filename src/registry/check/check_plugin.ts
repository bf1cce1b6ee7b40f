/**
 * Checks one plugin: contract, options, arithmetic, time and memory.
 *
 * @module
 */
import type { LinearAlgebra, Plugin } from "../contract.ts";
import { checkAdapter } from "./adapters.ts";
import { Checklist, type CheckListener } from "./checklist.ts";
import { checkContract, checkOptions } from "./contract_checks.ts";
import { checkController } from "./controllers.ts";
import { checkFeatureLoss } from "./feature_losses.ts";
import { checkRowLoss } from "./row_losses.ts";

export type { CheckListener, CheckResult, Outcome } from "./checklist.ts";

/** What a plugin is checked with. */
export interface PluginCheck {
  readonly plugin: Plugin;
  /** Plugins whose ids and tensor names are taken. */
  readonly others: readonly Plugin[];
  /** Options to check it with; those left out take their defaults. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Handed to adapters whose parameters begin from the weight. */
  readonly linalg: LinearAlgebra;
}

/**
 * Checks a plugin. Never throws on its account: what it does wrong is a result with `fail`.
 *
 * It runs the plugin's own code, so it belongs in a process that may hang and may touch nothing.
 */
export async function checkPlugin(
  { plugin, others, options, linalg }: PluginCheck,
  listener: CheckListener,
): Promise<void> {
  const list = new Checklist(listener);
  if (!await checkContract(plugin, others, list)) return;
  const parsed = await checkOptions(plugin, options, list);
  if (!parsed) return;
  if (plugin.kind === "adapter") await checkAdapter(plugin, parsed, list, linalg);
  else if (plugin.kind === "feature-loss") await checkFeatureLoss(plugin, parsed, list);
  else {
    await checkController(plugin, parsed, list);
    await checkRowLoss(plugin, parsed, list);
  }
}
