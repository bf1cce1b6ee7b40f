/**
 * The kinds of plugins there are. A new kind is a row here: what registers, checks, lists, describes and begins plugins reads this table.
 *
 * @module
 */
import { oneOf } from "../../base/did_you_mean.ts";
import { adapter } from "./adapter.ts";
import { divergence } from "./divergence.ts";
import { family } from "./family.ts";
import { featureLoss } from "./feature_loss.ts";
import { groupLoss } from "./group_loss.ts";
import type { AnyPlugin, Kind } from "../kind.ts";
import { merge } from "./merge.ts";
import { rowLoss } from "./row_loss.ts";

/** All kinds of plugins, in the order in which they are named to users. */
export const KINDS = [divergence, rowLoss, featureLoss, groupLoss, adapter, merge, family] as const;

/** A kind of {@linkcode KINDS}. */
export type KnownKind = typeof KINDS[number];

/** The plugins of a kind. */
export type PluginOf<K extends Kind> = Parameters<K["check"]>[0];

/** A plugin of any kind. */
export type Plugin = PluginOf<KnownKind>;

/** What recipes call plugins. */
export type Role = KnownKind["role"];

/** The kind of a plugin; undefined where it says none that there is. */
export function kindOf<K extends Kind = KnownKind>(
  plugin: AnyPlugin,
  kinds: readonly K[] = KINDS as readonly Kind[] as readonly K[],
): K | undefined {
  return kinds.find(({ id }) => id === plugin.kind);
}

/** Names of the functions that make plugins: `defineX, defineY or defineZ`. */
export function definers(kinds: readonly Kind[] = KINDS): string {
  return oneOf(kinds.map(({ define }) => define));
}
