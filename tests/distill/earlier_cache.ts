/** A cache as earlier versions wrote it, made of one of today. */
import { createHash } from "node:crypto";
import { prepareRun } from "../../src/distill/inputs/prepare.ts";
import type { Recipe } from "../../src/distill/recipe/recipe.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import type { MeasuredSet, WrittenTexts } from "../../src/distill/teacher/cache.ts";
import { CacheFolder } from "../../src/distill/teacher/cache_folder.ts";
import type { RowFormat } from "../../src/distill/teacher/cached_rows.ts";
import { earlierKey, type EarlierOrigin, earlierSamples } from "../../src/distill/teacher/earlier_cache.ts";
import { wantedCache } from "../../src/distill/teacher/make_cache.ts";
import { cachePath } from "../../src/distill/teacher/origin.ts";
import { writeSafetensors } from "../../src/formats/safetensors/write.ts";
import { Registry } from "../../src/registry/registry.ts";
import { builtins } from "../../plugins/mod.ts";

/**
 * Takes the cache of a recipe away and puts one of format 1 in its place.
 *
 * @param namesHeldOut Whether it says how many samples of each set are held out; the earliest did not
 * @returns its folder
 */
export async function makeEarlier(recipe: Recipe, place: string, namesHeldOut: boolean): Promise<string> {
  const prepared = await prepareRun(recipe);
  try {
    const setup = setUp(prepared, new Registry().addAll(builtins));
    const wanted = (await wantedCache(prepared, setup, [place]))!;
    const folder = await CacheFolder.open(place, wanted.origin);
    const { offsets, identity } = earlierSamples(wanted.keys);
    const pieces: Uint8Array[] = [];
    for (const { hash } of wanted.keys.values()) {
      const { shard, begin, bytes } = folder.entry(hash)!;
      pieces.push((await Deno.readFile(shard)).slice(begin, begin + bytes));
    }
    const { teacher, format, seed } = folder.origin;
    const origin: EarlierOrigin = {
      ...{ teacher, samples: identity, format: format as RowFormat, seed },
      ...(namesHeldOut ? { heldOutSets: prepared.sets.heldOut.map((set) => set.samples.length) } : {}),
    };
    const key = earlierKey(origin);
    const path = cachePath(place, key);
    const records = await Array.fromAsync(Deno.readDir(`${folder.path}/records`));
    const record = async <T>(kind: string) => {
      const { name } = records.find(({ name }) => name.startsWith(kind))!;
      return JSON.parse(await Deno.readTextFile(`${folder.path}/records/${name}`)).value as T;
    };
    const hash = createHash("sha256");
    for (const piece of pieces) hash.update(piece);
    const about = {
      ...{ format: 1, key, origin },
      heldOut: await record<MeasuredSet>("held-out"),
      texts: await record<WrittenTexts>("texts"),
      rows: { count: offsets.at(-1), bytes: folder.rowBytes, sha256: hash.digest("hex") },
    };
    await Deno.mkdir(path);
    await writeSafetensors(
      `${path}/rows.safetensors`,
      [
        { name: "offsets", dtype: "F64", shape: [offsets.length] },
        { name: "rows", dtype: "U8", shape: [offsets.at(-1)!, folder.rowBytes] },
      ],
      ({ name }) => (name === "offsets" ? offsets : joined(pieces)),
      { format: "limbeck teacher cache 1", key },
    );
    await Deno.writeTextFile(`${path}/teacher.json`, JSON.stringify(about));
    await Deno.remove(folder.path, { recursive: true });
    return path;
  } finally {
    prepared.close();
  }
}

async function* joined(pieces: readonly Uint8Array[]) {
  for (const piece of pieces) yield await Promise.resolve(piece);
}
