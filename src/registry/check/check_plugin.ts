/**
 * Checks one plugin: contract, options, arithmetic, time and memory.
 *
 * @module
 */
import type { LinearAlgebra } from "../adapter_contract.ts";
import type { AnyPlugin, Kind } from "../kind.ts";
import { Registry } from "../registry.ts";
import { Checklist, type CheckListener } from "./checklist.ts";
import { checkContract, checkOptions } from "./contract_checks.ts";
import type { FamilyReference } from "./family_reference.ts";

export type { CheckListener, CheckResult, Outcome } from "./checklist.ts";

/** What a plugin is checked with. */
export interface PluginCheck {
  readonly plugin: AnyPlugin;
  /** Plugins whose ids and tensor names are taken. */
  readonly others: readonly AnyPlugin[];
  /** Options to check it with; those left out take their defaults. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Handed to adapters whose parameters begin from the weight. */
  readonly linalg: LinearAlgebra;
  /** The kinds there are; Limbeck's own when absent. */
  readonly kinds?: readonly Kind[];
  /** What a family is held to. */
  readonly reference?: FamilyReference;
}

/**
 * Checks a plugin. Never throws on its account: what it does wrong is a result with `fail`.
 *
 * It runs the plugin's own code, so it belongs in a process that may hang and may touch nothing.
 */
export async function checkPlugin(
  { plugin, others, options, linalg, kinds, reference }: PluginCheck,
  listener: CheckListener,
): Promise<void> {
  const list = new Checklist(listener);
  const registry = new Registry<Kind>(kinds);
  if (!await checkContract(plugin, others, registry, list)) return;
  const parsed = await checkOptions(plugin, options, list);
  if (parsed) await registry.kindOf(plugin)!.check(plugin, parsed, list, linalg, reference);
}
