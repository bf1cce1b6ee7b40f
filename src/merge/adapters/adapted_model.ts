/**
 * A model with adapters merged in.
 *
 * @module
 */
import { writeHuggingFaceFolder } from "../../formats/huggingface/write.ts";
import type { FloatDtype } from "../../formats/dtype.ts";
import type { TensorData } from "../../formats/model_source.ts";
import { timesTransposed, transposed } from "../../linalg/product.ts";
import { derivedCard } from "../written/derived_card.ts";
import { checkOutput, pieces, storageOf, type TensorWork } from "../written/output.ts";
import { Parents } from "../parents/parents.ts";
import { readRows } from "../parents/read_pieces.ts";
import { withTokenizer } from "../parents/vocabulary.ts";
import {
  adapterCard,
  type AdapterMerge,
  mergeAdapters,
  type MergedAdapter,
  type MergedModule,
} from "./adapters.ts";
import { type WeightUpdate, weightUpdates } from "./expert_modules.ts";

/**
 * Writes a base model with adapters merged in, whole or not at all: every weight that one of them changes is W + scale B A, summed in f64 and
 * rounded once.
 *
 * @param options.dtype Storage of the result; the base's when absent
 * @throws {InputError} as `mergeAdapters`; adapters that do not fit the base
 */
export async function writeAdaptedModel(
  base: string,
  merge: AdapterMerge,
  output: string,
  options: TensorWork & { readonly dtype?: FloatDtype } = {},
): Promise<MergedAdapter> {
  await checkOutput(output);
  const parents = await Parents.open([base], options.families);
  try {
    const parent = parents.get(base);
    const { tensors, parameterCount } = parent.architecture;
    const merged = await mergeAdapters(merge, parent.architecture);
    const updates = weightUpdates(merged.modules, parent.architecture);
    const reader = { parents, vocabulary: { rows: 0, tokenizer: undefined }, dtype: undefined };
    let done = 0;

    const read = async function* (name: string): AsyncGenerator<TensorData> {
      const shape = tensors.get(name)!;
      const update = updateOf(updates.get(name));
      for (const { first, count } of pieces(shape)) {
        options.signal?.throwIfAborted();
        const data = await readRows(reader, { parent: base, name }, first, count, false);
        update?.(data, first, count);
        yield { dtype: "f32", shape: [count, ...shape.slice(1)], data };
        options.onProgress?.(done += data.length, parameterCount, name);
      }
    };

    await writeHuggingFaceFolder(output, {
      config: parent.source.config,
      tokenizer: (await withTokenizer(parent)).files,
      tensors,
      read,
    }, {
      dtype: options.dtype ?? storageOf(parent),
      readme: async () => {
        const card = adapterCard(merge, merged, "transformers");
        const own = { role: "base", model: base, sha256: await parent.source.fingerprint() };
        return derivedCard({
          ...card,
          title: "Merged adapters in their base model",
          parents: [own, ...card.parents],
        });
      },
    });
    return merged;
  } finally {
    parents.close();
  }
}

/** Adds rows of scale b a to rows of a weight. */
function updateOf(
  found: WeightUpdate<MergedModule> | undefined,
): ((values: Float32Array, first: number, count: number) => void) | undefined {
  if (!found) return undefined;
  const { module, firstRow } = found;
  const { rank, scale, in: inSize, a, b } = module;
  const aT = transposed(a, rank, inSize);
  return (values, first, count) => {
    const rows = b.subarray((firstRow + first) * rank, (firstRow + first + count) * rank);
    const update = timesTransposed(rows, aT, [count, rank, inSize]);
    for (let i = 0; i < values.length; i++) values[i] = values[i]! + scale * update[i]!;
  };
}
