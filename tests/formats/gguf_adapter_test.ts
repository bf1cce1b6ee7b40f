/** GGUF adapters of every family: put on the file of the base, they make the file of the merged model, tensor by tensor. */
// @ts-types="../../types/std_assert.d.ts"
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { openFile } from "../../src/formats/files.ts";
import { writeGgufAdapter } from "../../src/formats/gguf/adapter.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import { ARCHITECTURES } from "../models/tiny_configs.ts";
import { randomArray } from "../tensor/harness.ts";
import { fittingConfig, type MemoryModel, memoryModel, withGguf } from "./memory_model.ts";

for (const architecture of ARCHITECTURES) {
  Deno.test(`a ${architecture}'s file and its adapter are together the file of the merged model`, async () => {
    const model = memoryModel(fittingConfig(architecture));
    const { config, family, linearLayers, expertLayers, tensors } = model.architecture;
    const [rank, scale] = [2, 1.5];
    const ofExperts = expertLayers.flatMap(({ modules, experts, in: width }) =>
      modules(0).map((name) => ({ name, experts, out: tensors.get(`${name}.weight`)![0]!, in: width }))
    );
    const both: { name: string; out: number; in: number; experts?: number }[] = [
      ...linearLayers,
      ...ofExperts,
    ];
    const layers = both.map(({ name, out, in: width, experts }, i) => ({
      ...{ path: name, inFeatures: width, outFeatures: out },
      ...(experts === undefined ? {} : { experts }),
      a: randomArray((experts ?? 1) * rank * width, 900 + i) as Float32Array<ArrayBuffer>,
      b: randomArray((experts ?? 1) * out * rank, 800 + i) as Float32Array<ArrayBuffer>,
    }));
    const product = (a: ArrayLike<number>, b: ArrayLike<number>) => {
      const width = a.length / rank;
      return Float64Array.from({ length: b.length / rank * width }, (_, k) => {
        const [row, column] = [Math.floor(k / width), k % width];
        return scale * (b[row * rank]! * a[column]! + b[row * rank + 1]! * a[width + column]!);
      });
    };
    const merged = new Map(model.values);
    const products = (a: Float32Array, b: Float32Array, experts: number) =>
      Array.from({ length: experts }, (_, e) => {
        const of = (all: Float32Array) =>
          all.subarray(e * all.length / experts, (e + 1) * all.length / experts);
        return product(of(a), of(b));
      });
    for (const { path, experts = 1, a, b } of layers) {
      products(a, b, experts).forEach((update, e) => {
        const name = `${path.replace("experts.0.", `experts.${e}.`)}.weight`;
        merged.set(name, model.values.get(name)!.map((v, k) => v + update[k]!));
      });
    }
    const readAll = async (path: string) => {
      const file = await GgufFile.open(await openFile(path));
      const found = new Map<string, Float32Array>();
      const experts = new Map<string, number>();
      for (const [name, { shape }] of file.tensors) {
        found.set(name, (await file.read(name)).data as Float32Array);
        experts.set(name, shape.length === 3 ? shape[0]! : 1);
      }
      file.close();
      return { found, experts };
    };
    await withGguf(model, async (path) => {
      const adapterPath = `${path}.adapter`;
      const lora = { rank, scale, layers };
      const architecture = family.gguf!;
      await writeGgufAdapter(adapterPath, { name: "update", lora, architecture, config });
      const { found: base } = await readAll(path);
      const { found: adapter, experts } = await readAll(adapterPath);
      assertEquals(adapter.size, 2 * layers.length);
      await withGguf({ ...model, read: readerOf(model, merged) }, async (path) => {
        let adapted = 0;
        for (const [name, values] of (await readAll(path)).found) {
          const [a, b] = ["a", "b"].map((side) => adapter.get(`${name}.lora_${side}`));
          const update = a && b
            ? products(a, b, experts.get(`${name}.lora_a`)!).flatMap((values) => [...values])
            : new Float64Array(values.length);
          if (a && b) adapted++;
          values.forEach((v, k) => assertAlmostEquals(v, base.get(name)![k]! + update[k]!, 1e-5, name));
        }
        assertEquals(adapted, layers.length);
      });
    });
  });
}

function readerOf(
  { architecture }: MemoryModel,
  values: ReadonlyMap<string, Float32Array<ArrayBuffer>>,
): MemoryModel["read"] {
  return (name) =>
    Promise.resolve({
      dtype: "f32",
      shape: architecture.tensors.get(name)!,
      data: values.get(name)!.slice(),
    });
}
