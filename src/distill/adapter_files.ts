/**
 * An adapter as files that PEFT and others load: in PEFT's own layout of the method, or as the plain LoRA that means the same.
 *
 * @module
 */
import { InputError } from "../errors.ts";
import { writePeftAdapter, writePeftFolder } from "../formats/peft.ts";
import { peftConfigOf } from "../formats/peft_config.ts";
import type { TensorData } from "../formats/model_source.ts";
import type { AdaptedLayer, PeftLayout, PlainLora } from "../registry/contract.ts";
import type { ModelAdapter } from "./adapter.ts";

/**
 * `peft`: PEFT's layout where it has the method, else plain LoRA. `peft-plain`: plain LoRA of one rank and one scale for all layers,
 * for programs that know neither rsLoRA nor patterns.
 */
export type AdapterForm = "peft" | "peft-plain";

/** Whether an adapter can be written in a form. Of PEFT's methods only LoRA loads ranks that differ between layers. */
export function hasForm(adapter: ModelAdapter, form: AdapterForm): boolean {
  const { plugin, settings, options } = adapter;
  if (plugin.plainLora) return true;
  const layout = form === "peft" ? plugin.peft?.(settings, options) : undefined;
  return layout !== undefined && (layout.peftType === "LORA" || hasOneRank(adapter));
}

function hasOneRank({ layers, settings }: ModelAdapter): boolean {
  return layers.every((l) => l.rank === settings.rank);
}

/**
 * Writes an adapter folder.
 *
 * @param values All values by name, see `ModelAdapter.namedValues`
 * @throws {InputError} for an adapter that does not exist in this form
 */
export async function writeAdapter(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  baseModel: string,
  form: AdapterForm = "peft",
): Promise<void> {
  if (!hasForm(adapter, form)) {
    const { id } = adapter.plugin;
    throw new InputError(
      form === "peft-plain"
        ? `the adapter "${id}" is no low-rank update of the weight, so there is no plain LoRA that means the same`
        : `PEFT has no layout for the adapter "${id}"${hasOneRank(adapter) ? "" : " with ranks by layer"}`,
      {
        where: "recipe adapter.type",
        hint: `${
          id === "dora" ? "vLLM and llama.cpp do not load DoRA; " : ""
        }merge it into the weights: \`limbeck export --target merged\`, or \`--target gguf\``,
      },
    );
  }
  const layout = form === "peft" ? adapter.plugin.peft?.(adapter.settings, adapter.options) : undefined;
  if (layout?.peftType === "LORA") await writeLora(path, adapter, values, baseModel, layout);
  else if (layout && hasOneRank(adapter)) {
    await writeOther(path, adapter, values, baseModel, layout);
  } else await writePlain(path, adapter, values, baseModel, form === "peft-plain");
}

/** LoRA and its relatives that PEFT knows by a flag. */
async function writeLora(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  baseModel: string,
  layout: PeftLayout,
): Promise<void> {
  const { rank, alpha, dropout, rslora } = adapter.settings;
  await writePeftAdapter(path, {
    settings: {
      rank,
      alpha,
      dropout,
      rsLora: rslora,
      dora: layout.config.use_dora === true,
      targetModules: targetModules(adapter),
      baseModel,
      rankPattern: pattern(adapter.layers, rank, (l) => l.rank),
      alphaPattern: pattern(adapter.layers, alpha, (l) => l.alpha),
    },
    tensors: new Map(layerTensors(adapter, values, layout)),
  }, { replace: true });
}

/** Methods with a type of their own. */
async function writeOther(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  baseModel: string,
  layout: PeftLayout,
): Promise<void> {
  const tensors = new Map<string, TensorData>(
    layerTensors(adapter, values, layout).map(([name, t]) => [`base_model.model.${name}`, t]),
  );
  for (const [key, t] of Object.entries(layout.network?.(adapter.sharedValues(values)) ?? {})) {
    tensors.set(key, f32(t.shape, t.data));
  }
  const config = peftConfigOf(
    layout.peftType,
    { baseModel, targetModules: targetModules(adapter) },
    layout.config,
  );
  await writePeftFolder(path, config, tensors, { replace: true });
}

/** W + scale B A of every layer. */
async function writePlain(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  baseModel: string,
  uniform: boolean,
): Promise<void> {
  const found = adapter.layers.map((layer) => ({
    layer,
    lora: adapter.plugin.plainLora!(adapter.values(layer.path, values)),
  }));
  const rank = Math.max(...found.map(({ lora }) => lora.rank));
  const { scale } = found[0]!.lora;
  const all = found.map(({ layer, lora }) => ({
    layer,
    lora: uniform ? padded(lora, layer, rank, scale) : lora,
  }));
  const of = (path: string) => all.find(({ layer }) => layer.path === path)!.lora;
  const alpha = (l: PlainLora) => l.scale * l.rank;
  await writePeftAdapter(path, {
    settings: {
      rank,
      alpha: scale * rank,
      targetModules: targetModules(adapter),
      baseModel,
      rankPattern: pattern(adapter.layers, rank, (l) => of(l.path).rank),
      alphaPattern: pattern(adapter.layers, scale * rank, (l) => alpha(of(l.path))),
    },
    tensors: new Map(all.flatMap(({ layer: { path, inFeatures, outFeatures }, lora }) => [
      [`${path}.lora_A.weight`, f32([lora.rank, inFeatures], lora.a)],
      [`${path}.lora_B.weight`, f32([outFeatures, lora.rank], lora.b)],
    ])),
  }, { replace: true });
}

/** The same update with a given rank and scale: rows and columns of zeros are added, B takes up the rest of the scale. */
function padded(
  lora: PlainLora,
  { outFeatures, inFeatures }: AdaptedLayer,
  rank: number,
  scale: number,
): PlainLora {
  const [a, b] = [new Float32Array(rank * inFeatures), new Float32Array(outFeatures * rank)];
  a.set(lora.a);
  for (let o = 0; o < outFeatures; o++) {
    for (let r = 0; r < lora.rank; r++) {
      b[o * rank + r] = lora.b[o * lora.rank + r]! * (lora.scale === scale ? 1 : lora.scale / scale);
    }
  }
  return { rank, scale, a, b };
}

/** The saved parameters of every layer, under their names in PEFT without its prefix. */
function layerTensors(
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  layout: PeftLayout,
): [string, TensorData][] {
  return adapter.layers.flatMap(({ path }) => {
    const { parameter } = adapter.values(path, values);
    return adapter.definitions(path).flatMap((p): [string, TensorData][] => {
      const suffix = layout.suffixes ? layout.suffixes[p.name] : p.trainable === false ? undefined : p.suffix;
      if (suffix === undefined) return [];
      return [[`${path}.${suffix}`, f32(p.shape, parameter(p.name))]];
    });
  });
}

function f32(shape: readonly number[], data: Float32Array): TensorData {
  return { dtype: "f32", shape: [...shape], data: new Float32Array(data) };
}

function pattern(
  layers: readonly AdaptedLayer[],
  usual: number,
  valueOf: (layer: AdaptedLayer) => number,
): Record<string, number> {
  return Object.fromEntries(layers.filter((l) => valueOf(l) !== usual).map((l) => [l.path, valueOf(l)]));
}

/** Short names where they mean exactly the adapted layers, else full paths. */
function targetModules(adapter: ModelAdapter): string[] {
  const paths = adapter.layers.map((l) => l.path);
  const names = new Map<string, number>();
  for (const path of paths) {
    const name = path.split(".").at(-1)!;
    names.set(name, (names.get(name) ?? 0) + 1);
  }
  return [...names.values()].every((count) => count === adapter.modelLayers)
    ? [...names.keys()].sort()
    : paths;
}
