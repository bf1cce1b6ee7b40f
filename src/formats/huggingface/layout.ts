/**
 * Models whose files are laid out otherwise than their tensors are used: matrices stored [in, out], names without what stands before them
 * in later files. Whoever opens such a folder sees matrices [out, in] under the later names; what is written is as the files have it.
 *
 * @module
 */
import type { FloatData } from "../dtype.ts";
import type { ModelSource } from "../model_source.ts";
import { checkRows, type TensorData } from "../safetensors/safetensors.ts";

/** How files of a model type are laid out. */
export interface FileLayout {
  readonly tensors?: TensorLayout;
  /** The config's field with the number of layers. */
  readonly layers: string;
  /** What the older generation of configs calls the base of rotary positions and their part of a head; undefined where there are none. */
  readonly rope: { readonly theta: string; readonly partial: string } | undefined;
}

/** How tensors are stored. */
export interface TensorLayout {
  /** Matrices that are stored [in, out]. */
  readonly transposed: RegExp;
  /** What stands before the names of all tensors but the head's, in files that transformers writes today. */
  readonly prefix: string;
}

const USUAL: FileLayout = {
  layers: "num_hidden_layers",
  rope: { theta: "rope_theta", partial: "partial_rotary_factor" },
};

/** By `model_type`. */
const LAYOUTS: Readonly<Record<string, FileLayout>> = {
  // Its linear layers are of a kind of their own ("Conv1D").
  gpt2: {
    tensors: { transposed: /\.(c_attn|c_proj|c_fc)\.weight$/, prefix: "transformer." },
    layers: "n_layer",
    rope: undefined,
  },
  gpt_neox: { ...USUAL, rope: { theta: "rotary_emb_base", partial: "rotary_pct" } },
};

/** The layout of a config's model. */
export function layoutOf(config: Readonly<Record<string, unknown>>): FileLayout {
  const named: unknown = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  const type = typeof named === "string" ? TYPES[named] ?? config.model_type : config.model_type;
  return typeof type === "string" && Object.hasOwn(LAYOUTS, type) ? LAYOUTS[type]! : USUAL;
}

/** Types by the classes of transformers that a config may name alone. */
const TYPES: Readonly<Record<string, string>> = { GPT2LMHeadModel: "gpt2", GPTNeoXForCausalLM: "gpt_neox" };

/** A model as its tensors are used. Closing it closes the source. */
export function laidOut(source: ModelSource, { transposed, prefix }: TensorLayout): ModelSource {
  const bare = ![...source.tensors.keys()].some((name) => name.startsWith(prefix));
  const nameOf = (stored: string) => bare && !stored.startsWith("lm_head.") ? `${prefix}${stored}` : stored;
  const stored = new Map([...source.tensors.keys()].map((name) => [nameOf(name), name]));
  const isTurned = (name: string) =>
    transposed.test(name) && source.tensors.get(stored.get(name)!)?.shape.length === 2;
  const tensors = new Map(
    [...source.tensors].map(([name, info]) => {
      const used = nameOf(name);
      return [used, isTurned(used) ? { ...info, shape: info.shape.toReversed() } : info];
    }),
  );
  // Rows of what is stored in columns need all of it: the last one is kept, as rows are asked for in turn.
  let last: { name: string; tensor: TensorData } | undefined;
  const whole = async (name: string): Promise<TensorData> => {
    if (last?.name !== name) last = { name, tensor: transpose(await source.read(stored.get(name) ?? name)) };
    return last.tensor;
  };
  return {
    ...source,
    tensors,
    nf4: (name) => isTurned(name) ? undefined : source.nf4?.(stored.get(name) ?? name),
    read: async (name) =>
      isTurned(name)
        ? transpose(await source.read(stored.get(name)!))
        : await source.read(stored.get(name) ?? name),
    async readRows(name, first, count) {
      if (!isTurned(name)) return await source.readRows(stored.get(name) ?? name, first, count);
      const { dtype, shape, data } = await whole(name);
      checkRows(source.path, name, shape, first, count);
      const width = shape[1]!;
      return { dtype, shape: [count, width], data: data.slice(first * width, (first + count) * width) };
    },
  };
}

/** A matrix with rows and columns exchanged. */
export function transpose({ dtype, shape, data }: TensorData): TensorData {
  const [rows, columns] = shape as [number, number];
  const turned: FloatData = data instanceof Float32Array
    ? new Float32Array(data.length)
    : new Uint16Array(data.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) turned[c * rows + r] = data[r * columns + c]!;
  }
  return { dtype, shape: [columns, rows], data: turned };
}
