/**
 * A family of a plugin as a record like those of the built-in ones.
 *
 * @module
 */
import { describedFamily } from "../models/decoder/record.ts";
import type { DescribedConfig } from "../models/decoder/description.ts";
import type { ModelFamily } from "../models/family.ts";
import type { Family } from "./family_contract.ts";

/** The record of a family. It is called as the plugin is. */
export function recordOf({ id, architectures, names, describe, ...family }: Family): ModelFamily {
  const { ignored, layerFields, narrowing, buffers, decoder, head, tables } = family;
  const record = describedFamily({
    ...{ name: id, architectures, names, describe },
    ...(ignored ? { ignored } : {}),
    ...(layerFields ? { layerFields } : {}),
    ...(narrowing ? { narrowing } : {}),
    ...(buffers ? { buffers } : {}),
  });
  const own: Partial<ModelFamily<DescribedConfig>> = {
    ...(decoder ? { decoder } : {}),
    ...(head ? { head } : {}),
    ...(tables ? { tables: (config) => ({ ...record.tables(config), ...tables(config) }) } : {}),
  };
  return { ...record, ...own } as ModelFamily;
}
