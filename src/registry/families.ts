/**
 * The model families among plugins, as those who read models want them: models never see the registry.
 *
 * @module
 */
import type { ModelFamily } from "../models/family.ts";
import { pluginIdentity } from "./identity.ts";
import { recordOf } from "./family_record.ts";
import type { Registry } from "./registry.ts";

/** Families of a registry, beside the built-in ones. */
export function familiesOf(registry: Registry): ModelFamily[] {
  return registry.list().flatMap((plugin) =>
    plugin.kind === "family" ? [{ ...recordOf(plugin), identity: pluginIdentity(plugin) }] : []
  );
}
