/** A model folder as transformers saves one that bitsandbytes has quantised to 4 bits. */
import { openModel } from "../../src/formats/open_model.ts";
import { DYNAMIC_CODE, NF4_CODE, quantizeMagnitudes, quantizeNf4 } from "../../src/formats/nf4.ts";
import { toFloat32 } from "../../src/formats/dtype.ts";
import { writeSafetensors } from "../../src/formats/safetensors/write.ts";
import type { SafetensorsDtype } from "../../src/formats/safetensors/safetensors.ts";

interface Stored {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

/** What lies beside a weight in NF4, and its codes. */
export function bitsAndBytesTensors(
  name: string,
  shape: readonly number[],
  values: Float32Array,
  nested: boolean,
): Stored[] {
  const { packed, magnitudes } = quantizeNf4(values);
  const state: Record<string, unknown> = { quant_type: "nf4", blocksize: 64, dtype: "float32", shape };
  const part = (suffix: string, dtype: SafetensorsDtype, data: Uint8Array | Float32Array): Stored => ({
    name: `${name}.${suffix}`,
    dtype,
    shape: [data.length],
    data,
  });
  const parts = [part("quant_map", "F32", NF4_CODE)];
  if (nested) {
    const { codes, factors, offset } = quantizeMagnitudes(magnitudes);
    Object.assign(state, { nested_blocksize: 256, nested_dtype: "float32", nested_offset: offset });
    parts.push(
      part("absmax", "U8", codes),
      part("nested_absmax", "F32", factors),
      part("nested_quant_map", "F32", DYNAMIC_CODE),
    );
  } else parts.push(part("absmax", "F32", magnitudes));
  const json = new TextEncoder().encode(JSON.stringify(state));
  return [
    { name, dtype: "U8", shape: [packed.length, 1], data: packed },
    ...parts,
    part("quant_state.bitsandbytes__nf4", "U8", json),
  ];
}

/** Writes the folder of a model with its linear layers but the head quantised. */
export async function writeBitsAndBytes(folder: string, path: string, nested: boolean): Promise<void> {
  const model = await openModel(folder);
  const tensors: Stored[] = [];
  for (const [name, { shape }] of model.tensors) {
    const { dtype, data } = await model.read(name);
    if (/_proj\.weight$/.test(name)) {
      tensors.push(...bitsAndBytesTensors(name, shape, toFloat32(dtype, data), nested));
    } else tensors.push({ name, dtype: dtype.toUpperCase() as SafetensorsDtype, shape, data });
  }
  const config = {
    ...model.config,
    quantization_config: {
      quant_method: "bitsandbytes",
      load_in_4bit: true,
      load_in_8bit: false,
      bnb_4bit_quant_type: "nf4",
      bnb_4bit_use_double_quant: nested,
    },
  };
  model.close();
  await Deno.mkdir(path);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(`${folder}/${name}`, `${path}/${name}`);
  }
  await Deno.writeTextFile(`${path}/config.json`, JSON.stringify(config));
  const held = new Map(tensors.map((tensor) => [tensor.name, tensor.data]));
  await writeSafetensors(`${path}/model.safetensors`, tensors, ({ name }) => held.get(name)!);
}
