/**
 * A few figures of the reference, for a clone that has none beside it: three adapters with what PEFT's add_weighted_adapter makes of them, and
 * one matrix (the difference of two models' weights) with its best approximation of rank 2 and its singular values, by numpy in f64.
 */
import { openFile } from "../../src/formats/files.ts";
import { SafetensorsFile } from "../../src/formats/safetensors/safetensors.ts";

const path = decodeURIComponent(new URL("fixtures/figures.safetensors", import.meta.url).pathname);

/** Opens them; closed at the end of its block. */
export async function figures(): Promise<SafetensorsFile & Disposable> {
  const file = await SafetensorsFile.open(await openFile(path));
  return Object.assign(file, { [Symbol.dispose]: () => file.close() });
}
