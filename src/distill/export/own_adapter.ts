/**
 * Any adapter as a folder of its own values: what a run leaves where no other program has a layout for it.
 *
 * @module
 */
import { writePeftFolder } from "../../formats/peft/peft.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";
import type { AdapterRecipe } from "../recipe/recipe.ts";
import type { TrainedTensors } from "../trained/trained_tensors.ts";

/** What the folder says of an adapter beside its values. */
export interface OwnAdapterOrigin {
  /** Folder of the model it belongs on. */
  readonly baseModel: string;
  readonly recipe: AdapterRecipe;
  /** Parameters that are not trained are drawn from it, or made from the base's weights. */
  readonly seed: number;
  /** Tensors of that model that were trained beside the adapter. */
  readonly beside?: { readonly tensors: TrainedTensors };
}

/**
 * Writes adapter_model.safetensors with every trained parameter and tensor under its own name, f32, and adapter_config.json with what it takes to
 * use them. The latter has no `peft_type`, so PEFT refuses the folder rather than load something else.
 */
export async function writeOwnAdapter(
  path: string,
  adapter: ModelAdapter,
  values: ReadonlyMap<string, Float32Array>,
  { baseModel, recipe, seed, beside }: OwnAdapterOrigin,
): Promise<void> {
  const { id, version, contract } = adapter.plugin;
  const { type: _, ...settings } = recipe;
  const config = {
    format: "limbeck-adapter",
    format_version: 1,
    adapter: { id, version, contract, ...settings, options: adapter.options },
    base_model_name_or_path: baseModel,
    seed,
    ...(beside ? { trained_tensors: beside.tensors.trained.map(({ name }) => name) } : {}),
  };
  const trained = [...adapter.trained, ...beside?.tensors.trained ?? []];
  const tensors = new Map(trained.map(({ name, shape }) => [
    name,
    { dtype: "f32" as const, shape: [...shape], data: new Float32Array(values.get(name)!) },
  ]));
  await writePeftFolder(path, JSON.stringify(config, null, 2) + "\n", tensors, { replace: true });
}
