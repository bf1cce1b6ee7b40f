/**
 * `model.safetensors.index.json`: which file of a sharded model holds which tensor.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { parseStrictJson } from "../strict_json.ts";

/**
 * Reads an index.
 *
 * @returns The tensors that each shard must hold, by the shard's file name, in order of name.
 * @throws {InputError} when it is malformed, empty, or names a shard by anything but a plain file name.
 */
export function parseShardIndex(text: string, where: string): Map<string, string[]> {
  const index = parseStrictJson(text, where);
  const map = index instanceof Map ? index.get("weight_map") : undefined;
  if (!(map instanceof Map)) throw new InputError("there is no weight_map object", { where });
  if (map.size === 0) throw new InputError("weight_map is empty", { where });
  const shards = new Map<string, string[]>();
  for (const [tensor, shard] of map) {
    if (typeof shard !== "string" || !isPlainName(shard)) {
      throw new InputError(`tensor ${tensor} is mapped to ${JSON.stringify(shard)}`, {
        where,
        hint: "A shard must be the name of a .safetensors file in the same folder.",
      });
    }
    const tensors = shards.get(shard);
    if (tensors) tensors.push(tensor);
    else shards.set(shard, [tensor]);
  }
  return new Map([...shards].sort(([a], [b]) => a < b ? -1 : 1));
}

/** Letters, digits and a little punctuation, not beginning with a dot: no separator, drive or parent folder on any system. */
function isPlainName(name: string): boolean {
  return /^[A-Za-z0-9_][A-Za-z0-9_.+-]*\.safetensors$/.test(name) && !name.includes("..");
}
