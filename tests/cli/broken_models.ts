/** Model folders with one thing wrong, for tests of what users are told. */
import { writeTinyModel } from "../distill/tiny_model.ts";

/** Makes one thing wrong in a folder that holds a good model. */
export type Breakage = (folder: string) => Promise<unknown> | void;

/** Header and bytes of a safetensors file. */
interface Parts {
  header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  data: Uint8Array;
}

async function readParts(path: string): Promise<Parts> {
  const bytes = await Deno.readFile(path);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { __metadata__: _, ...header } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return { header, data: bytes.slice(8 + length) };
}

async function writeParts(path: string, { header, data }: Parts): Promise<void> {
  let json = JSON.stringify(header);
  json += " ".repeat((8 - json.length % 8) % 8);
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(new TextEncoder().encode(json), 8);
  bytes.set(data, 8 + json.length);
  await Deno.writeFile(path, bytes);
}

/** Changes the only weight file. */
export function weights(change: (parts: Parts) => void): Breakage {
  return async (folder) => {
    const parts = await readParts(`${folder}/model.safetensors`);
    change(parts);
    await writeParts(`${folder}/model.safetensors`, parts);
  };
}

/** What the tests change in config.json and tokenizer.json. */
interface ModelJson extends Record<string, unknown> {
  model: { type: string; vocab: Record<string, number> };
}

/** Changes a JSON file. */
export function json(name: string, change: (value: ModelJson) => void): Breakage {
  return async (folder) => {
    const value = JSON.parse(await Deno.readTextFile(`${folder}/${name}`));
    change(value);
    await Deno.writeTextFile(`${folder}/${name}`, JSON.stringify(value));
  };
}

/** Puts something else in a file's place. */
export function replaced(name: string, text: string): Breakage {
  return (folder) => Deno.writeTextFile(`${folder}/${name}`, text);
}

/** Splits the weights into two files with an index, then changes the index. */
export function sharded(change: (map: Record<string, string>, folder: string) => unknown): Breakage {
  return async (folder) => {
    const { header, data } = await readParts(`${folder}/model.safetensors`);
    const names = Object.keys(header);
    const map: Record<string, string> = {};
    for (const [i, some] of [names.slice(0, 5), names.slice(5)].entries()) {
      const part: Parts = { header: {}, data: new Uint8Array() };
      for (const name of some) {
        const [begin, end] = header[name]!.data_offsets;
        const at = part.data.length;
        part.header[name] = { ...header[name]!, data_offsets: [at, at + end - begin] };
        part.data = new Uint8Array([...part.data, ...data.subarray(begin, end)]);
        map[name] = `part-${i}.safetensors`;
      }
      await writeParts(`${folder}/part-${i}.safetensors`, part);
    }
    await Deno.remove(`${folder}/model.safetensors`);
    await change(map, folder);
    await Deno.writeTextFile(
      `${folder}/model.safetensors.index.json`,
      JSON.stringify({ metadata: {}, weight_map: map }),
    );
  };
}

/** Writes a good model and breaks it. */
export async function writeBrokenModel(folder: string, breakage: Breakage): Promise<void> {
  await writeTinyModel(folder);
  await breakage(folder);
}
