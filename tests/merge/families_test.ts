/** Merging, slices, residuals and extracted adapters of every known family, on the small models of ../shared. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { extractLora } from "../../src/merge/residual/extract.ts";
import { writeResidual } from "../../src/merge/residual/residual.ts";
import { Architecture } from "../../src/models/architecture.ts";
import { readArchitecture } from "../../src/models/families.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { inFolder } from "./in_folder.ts";
import { mergeTiny, valuesOf } from "./tiny_merge.ts";

const FOLDER = "goldens/families";

type Config = Record<string, unknown>;

function configOf(folder: string): Config {
  return JSON.parse(Deno.readTextFileSync(`${folder}/config.json`));
}

/** Families whose configs can be read, by their folders. */
function knownFamilies(): Map<string, Architecture> {
  const known = new Map<string, Architecture>();
  const skipped: string[] = [];
  for (const { name, isDirectory } of Deno.readDirSync(sharedPath(FOLDER))) {
    if (!isDirectory) continue;
    const folder = sharedPath(`${FOLDER}/${name}`);
    try {
      known.set(name, readArchitecture(configOf(folder), folder));
    } catch {
      skipped.push(name);
    }
  }
  if (skipped.length > 0) console.log(`skip: families that are not known: ${skipped.join(", ")}`);
  return known;
}

/** Compares all tensors of two models. */
async function assertSame(path: string, original: string, { tensors }: Architecture): Promise<void> {
  const [found, expected] = [await valuesOf(path), await valuesOf(original)];
  assertEquals([...found.keys()].sort(), [...tensors.keys()].sort());
  for (const [name, values] of found) assertEquals(values, expected.get(name), `${original}: ${name}`);
}

sharedTest("a model merged with itself, whole or in slices, is that model, whatever its family", async () => {
  const families = knownFamilies();
  assert(families.size > 0);
  for (const [name, architecture] of families) {
    await inFolder(async (folder) => {
      const model = sharedPath(`${FOLDER}/${name}`);
      const { layers } = architecture.config;
      await mergeTiny(folder, { method: "linear", models: [{ model }, { model }] }, "whole");
      await assertSame(`${folder}/whole`, model, architecture);
      const slices = [[0, 1], [1, layers]].map((part) => ({ sources: [{ model, layers: part }] }));
      await mergeTiny(folder, { method: "passthrough", slices }, "slices");
      await assertSame(`${folder}/slices`, model, architecture);
      for (const output of ["whole", "slices"]) {
        const { config } = readArchitecture(configOf(`${folder}/${output}`), `${folder}/${output}`);
        assertEquals(config, architecture.config, name);
      }
    });
  }
});

sharedTest(
  "what stands before the layers is the first slice's, what stands after them the last one's",
  async () => {
    for (const [name, { config, family }] of knownFamilies()) {
      await inFolder(async (folder) => {
        const model = sharedPath(`${FOLDER}/${name}`);
        await mergeTiny(
          folder,
          { method: "linear", models: [{ model, weight: 2 }], options: { normalize: false } },
          "twice",
        );
        const parts = [{ model, layers: [0, 1] }, { model: `${folder}/twice`, layers: [1, config.layers] }];
        await mergeTiny(folder, {
          method: "passthrough",
          slices: parts.map((part) => ({ sources: [part] })),
        });
        const [merged, once] = [await valuesOf(`${folder}/merged`), await valuesOf(model)];
        for (const [tensor, values] of merged) {
          const isFirst = tensor.startsWith(`${family.names.layers}.0.`) ||
            (/embed|wte|wpe/.test(tensor) && !tensor.startsWith(`${family.names.head}.`));
          assertEquals(values, isFirst ? once.get(tensor) : once.get(tensor)!.map((x) => 2 * x), tensor);
        }
      });
    }
  },
);

sharedTest(
  "a residual of nothing changes nothing, and its adapter is nothing, whatever the family",
  async () => {
    for (const [name, architecture] of knownFamilies()) {
      await inFolder(async (folder) => {
        const model = sharedPath(`${FOLDER}/${name}`);
        await writeResidual({ base: model, instruct: model, newBase: model }, `${folder}/residual`);
        await assertSame(`${folder}/residual`, model, architecture);
        const { total, byLayer } = await extractLora(model, model, `${folder}/adapter`, { rank: 2 });
        assertEquals([total, byLayer], [0, byLayer.map(() => 0)]);
      });
    }
  },
);

sharedTest(
  "layers that differ by their place are stacked with what a config says of each, or refused",
  async () => {
    for (const [name, { config, tensors }] of knownFamilies()) {
      const model = sharedPath(`${FOLDER}/${name}`);
      const written = configOf(model);
      const types = written.layer_types as readonly string[] | undefined;
      if (types === undefined || new Set(types).size === 1) continue;
      await inFolder(async (folder) => {
        const slices = [[1, config.layers], [0, 1]].map((part) => ({ sources: [{ model, layers: part }] }));
        await mergeTiny(folder, { method: "passthrough", slices });
        const merged = configOf(`${folder}/merged`);
        assertEquals(merged.layer_types, [...types.slice(1), types[0]]);
        assertEquals(readArchitecture(merged, name).tensors.size, tensors.size);
        // Without the list the kinds follow from the places.
        const old = `${folder}/old`;
        await Deno.mkdir(old);
        await Deno.copyFile(`${model}/model.safetensors`, `${old}/model.safetensors`);
        const { layer_types: _, ...rest } = written;
        await Deno.writeTextFile(`${old}/config.json`, JSON.stringify(rest));
        const moved = [{ sources: [{ model: old, layers: [1, config.layers] }] }];
        await assertRejects(
          () => mergeTiny(folder, { method: "passthrough", slices: moved }, "moved"),
          InputError,
          "of the result, where ",
        );
      });
    }
  },
);
