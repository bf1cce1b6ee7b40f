/** Arrays of reference files. */
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";
import { sharedPath } from "../shared.ts";

/** An array of a safetensors file, in the types that such files have. */
export type GoldenArray = Float32Array | Float64Array | Int32Array | Uint8Array;

/** Every array of a safetensors file in the reference folder, by name. */
export async function goldenArrays(path: string): Promise<Map<string, GoldenArray>> {
  const file = await SafetensorsFile.open(await openFile(sharedPath(path)));
  const all = new Map<string, GoldenArray>();
  for (const name of file.tensors.keys()) all.set(name, (await file.readArray(name)).data as GoldenArray);
  file.close();
  return all;
}
