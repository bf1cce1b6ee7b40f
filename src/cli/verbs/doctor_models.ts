/**
 * `limbeck doctor --models`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { relative } from "@std/path";
// @ts-types="../../../types/std_colors.d.ts"
import { green, red } from "@std/fmt/colors";
import { registryWith } from "../setup/registry.ts";
import { familiesOf } from "../../registry/families.ts";
import { type ExaminedModel, examineModel } from "../../distill/inputs/examine_model.ts";
import { findModels, type FoundModel } from "../../formats/find_models.ts";
import { count } from "../../base/units.ts";
import { placeOf } from "../../hub/hub_cache.ts";
import { writeHubName } from "../../hub/hub_name.ts";
import { hubSettings } from "../../hub/hub_settings.ts";
import type { Invocation } from "../command.ts";
import { shownPath } from "../terminal/shown_path.ts";
import { table } from "../terminal/table.ts";

/** What stands for the cache of the hub's models. */
const CACHE = "hf:";
/** A type of which there is less than this share is not shown. */
const LEAST_SHARE = 0.01;

/**
 * Says of the models in folders what each is, whether it loads, and what is missing where it does not.
 *
 * @param folders Paths, or `hf:` for the cache of the hub's models
 * @returns 0, or 3 where some model does not load
 * @throws {InputError} a folder that cannot be read
 */
export async function examineModels(
  folders: readonly string[],
  { out, plugins }: Invocation,
): Promise<number> {
  const families = familiesOf(await registryWith(plugins));
  const found = new Map<string, FoundModel & { name: string }>();
  for (const folder of folders) {
    const path = folder === CACHE ? hubSettings().cacheFolder : folder;
    for (const model of await findModels(path)) {
      found.set(model.path, { ...model, name: nameOf(model, path) });
    }
  }
  const examined: (ExaminedModel & { name: string })[] = [];
  for (const model of found.values()) {
    examined.push({ name: model.name, ...await examineModel(model, families) });
  }
  const loads = examined.filter((model) => model.loads).length;
  out.value({ ok: loads === examined.length, models: examined });
  if (examined.length === 0) {
    out.line(`There is no model in ${folders.map((folder) => shownPath(folder)).join(", ")}.`);
    return 0;
  }
  for (
    const line of table(["model", "family", "parameters", "storage", "tokens", "loads"], examined.map(row))
  ) {
    out.line(line);
  }
  for (const { name, problems } of examined) {
    for (const { part, message, hint } of problems) {
      out.line();
      out.line(`${name}: ${part}: ${message}`);
      if (hint) out.line(`  -> ${hint}`);
    }
  }
  out.line();
  const all = loads === examined.length;
  out.line(all ? green(`All ${loads} load.`) : red(`${loads} of ${examined.length} load.`));
  return all ? 0 : 3;
}

function row(
  { name, family, parameters, storage, vocabulary, loads }: ExaminedModel & { name: string },
) {
  const types = Object.entries(storage ?? {}).filter(([, values]) =>
    values >= LEAST_SHARE * (parameters ?? 0)
  );
  return [
    name,
    family ?? "?",
    parameters === undefined ? "?" : count(parameters),
    types.map(([type]) => type).join(", ") || "?",
    vocabulary?.tokens === undefined ? "?" : String(vocabulary.tokens),
    loads ? "yes" : "no",
  ];
}

/** What a model is called: by its name on the hub where it lies in a cache, else by its path within the folder that was named. */
function nameOf({ path }: FoundModel, folder: string): string {
  const place = placeOf(path);
  if (place) return writeHubName({ ...place, revision: place.commit.slice(0, 8) });
  return relative(folder, path) || shownPath(path);
}
