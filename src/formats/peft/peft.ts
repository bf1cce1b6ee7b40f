/**
 * LoRA adapters in the layout of PEFT (https://github.com/huggingface/peft): adapter_config.json and adapter_model.safetensors,
 * where the tensor of a module is called `base_model.model.` + module + `.lora_A.weight`; `expert_parameters.ts` says what it is for the
 * experts of a mixture.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { scanNonFinite } from "../dtype.ts";
import { openFile, writeFolderAtomically, writeTextAtomically } from "../files.ts";
import { loraRank, type LoraSettings, parsePeftConfig, peftConfigJson } from "./config.ts";
import { isTargeted, namedExperts, wrappedExperts } from "./expert_parameters.ts";
import { SafetensorsFile, type TensorData } from "../safetensors/safetensors.ts";
import { writeSafetensors } from "../safetensors/write.ts";

export { loraRank, loraScaling, type LoraSettings } from "./config.ts";

/** A LoRA adapter. */
export interface LoraAdapter {
  readonly settings: LoraSettings;
  /**
   * Every tensor by module path and suffix, for instance `model.layers.0.self_attn.q_proj.lora_A.weight` [rank, in] and
   * `.lora_B.weight` [out, rank]; with DoRA also `.lora_magnitude_vector` [out]. Those of the experts of a mixture lie one after another:
   * `model.layers.0.mlp.experts.down_proj.lora_A.weight` [experts * rank, in] and `.lora_B.weight` [experts * out, rank].
   */
  readonly tensors: ReadonlyMap<string, TensorData>;
  /** How many experts there are, by the path of a parameter that holds all of them; none when absent. */
  readonly experts?: ReadonlyMap<string, number>;
  /** Modules that were trained whole beside the adapter; only for writing. */
  readonly saved?: SavedModules;
}

/** All experts of a layer in one parameter of the base model. */
export interface ExpertsParameter {
  /** Such as `model.layers.0.mlp.experts.down_proj`. */
  readonly name: string;
  readonly experts: number;
  /** Of each. */
  readonly out: number;
  readonly in: number;
}

/** Modules that an adapter folder holds whole. */
export interface SavedModules {
  /** For the config's `modules_to_save`: ends of module names, as PEFT compares them. */
  readonly modules: readonly string[];
  /** Every tensor of these modules by its Hugging Face name, f32. */
  readonly tensors: ReadonlyMap<string, TensorData>;
}

const configFile = "adapter_config.json";
const weightsFile = "adapter_model.safetensors";
const prefix = "base_model.model.";
const dtypes = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

/**
 * Writes an adapter folder that PEFT loads, whole or not at all.
 *
 * @param options.readme Text of a README.md beside it.
 * @param options.replace Allows a folder that is already there.
 * @throws {InputError} when a module lacks a factor, a shape does not fit the rank, or no target names the module.
 *
 * @example
 * ```ts
 * await writePeftAdapter("adapter", {
 *   settings: { rank: 8, alpha: 16, targetModules: ["q_proj"], baseModel: "./base" },
 *   tensors,
 * });
 * ```
 */
export async function writePeftAdapter(
  path: string,
  adapter: LoraAdapter,
  options: { readme?: string; replace?: boolean } = {},
): Promise<void> {
  checkAdapter(adapter, path);
  const { settings, saved, tensors: own, experts = new Map() } = adapter;
  const all = [...wrappedExperts({ tensors: own, experts }), ...saved?.tensors ?? []];
  const tensors = new Map(all.map(([name, tensor]) => [prefix + name, tensor]));
  await writePeftFolder(path, peftConfigJson(settings, saved?.modules), tensors, options);
}

/**
 * Writes the files of an adapter of any method, whole or not at all, unchecked.
 *
 * @param config The text of adapter_config.json
 * @param tensors By their whole keys
 */
export async function writePeftFolder(
  path: string,
  config: string,
  tensors: ReadonlyMap<string, TensorData>,
  options: { readme?: string; replace?: boolean } = {},
): Promise<void> {
  const specs = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype: dtypes[dtype], shape }));
  await writeFolderAtomically(path, async (folder) => {
    await writeSafetensors(join(folder, weightsFile), specs, ({ name }) => tensors.get(name)!.data);
    await writeTextAtomically(join(folder, configFile), config);
    if (options.readme !== undefined) await writeTextAtomically(join(folder, "README.md"), options.readme);
  }, { replace: options.replace });
}

/**
 * Reads an adapter folder, bit for bit.
 *
 * @param weights Shapes of the base model's weights by name (`module.weight`), when known: every module must be one of them and fit.
 * @param experts Its layers of experts, likewise
 * @throws {InputError} for another kind of adapter, an option that is not supported, a tensor that is missing, unexpected, of the
 * wrong shape or not finite.
 */
export async function readPeftAdapter(
  path: string,
  weights?: ReadonlyMap<string, readonly number[]>,
  experts?: readonly ExpertsParameter[],
): Promise<LoraAdapter> {
  const settings = parsePeftConfig(await readText(join(path, configFile)), join(path, configFile));
  const where = join(path, weightsFile);
  const source = await openFile(where);
  try {
    const file = await SafetensorsFile.open(source);
    const tensors = new Map<string, TensorData>();
    for (const name of file.tensors.keys()) {
      if (!name.startsWith(prefix)) {
        throw new InputError(`tensor ${name} does not begin with ${prefix}`, { where });
      }
      const tensor = await file.read(name);
      const wrong = scanNonFinite(tensor.dtype, tensor.data);
      if (wrong) {
        throw new InputError(`tensor ${name} holds ${wrong.count} values that are NaN or infinite`, {
          where,
        });
      }
      tensors.set(name.slice(prefix.length), tensor);
    }
    const named = namedExperts(tensors, settings, where);
    const adapter = {
      settings,
      tensors: named.tensors,
      ...(named.experts.size > 0 ? { experts: named.experts } : {}),
    };
    checkAdapter(adapter, where, weights, experts);
    return adapter;
  } finally {
    source.close?.();
  }
}

async function readText(path: string): Promise<string> {
  const source = await openFile(path);
  try {
    return new TextDecoder().decode(await source.read(0, source.size));
  } finally {
    source.close?.();
  }
}

/** Checks that the tensors are complete, of fitting shapes, and of modules that the settings target. */
function checkAdapter(
  { settings, tensors, experts }: LoraAdapter,
  where: string,
  weights?: ReadonlyMap<string, readonly number[]>,
  layers: readonly ExpertsParameter[] = [],
): void {
  const suffixes = ["lora_A.weight", "lora_B.weight", ...(settings.dora ? ["lora_magnitude_vector"] : [])];
  const modules = new Set<string>();
  for (const name of tensors.keys()) {
    const suffix = suffixes.find((suffix) => name.endsWith(`.${suffix}`));
    if (!suffix) {
      throw new InputError(`tensor ${name} is none of ${suffixes.join(", ")}`, {
        where,
        hint: "Only LoRA on linear layers, without biases and modules_to_save, is supported.",
      });
    }
    modules.add(name.slice(0, -suffix.length - 1));
  }
  if (modules.size === 0) throw new InputError("the adapter holds no tensors", { where });

  for (const module of modules) {
    const shapes = suffixes.map((suffix) => {
      const tensor = tensors.get(`${module}.${suffix}`);
      if (!tensor) throw new InputError(`tensor ${module}.${suffix} is missing`, { where });
      return tensor.shape;
    });
    const rank = loraRank(settings, module);
    const count = experts?.get(module);
    const layer = layers.find(({ name }) => name === module);
    const weight = count === undefined ? weights?.get(`${module}.weight`) : layer && [layer.out, layer.in];
    if (weights && weight?.length !== 2) {
      throw new InputError(
        `the base model has no ${count === undefined ? "linear layer" : "experts"} ${module}`,
        { where },
      );
    }
    if (layer && count !== undefined && layer.experts !== count) {
      throw new InputError(`${module} has ${layer.experts} experts, and the adapter ${count}`, { where });
    }
    const [rows, columns] = weight ?? [shapes[1][0]! / (count ?? 1), shapes[0][1]];
    const expected = [[(count ?? 1) * rank, columns], [(count ?? 1) * rows, rank], [rows]];
    for (const [i, shape] of shapes.entries()) {
      if (shape.join() === expected[i].join()) continue;
      throw new InputError(
        `tensor ${module}.${suffixes[i]} has shape [${shape.join(", ")}], expected [${
          expected[i].join(", ")
        }]`,
        { where },
      );
    }
    const [key, targets] = count === undefined
      ? ["target_modules", settings.targetModules] as const
      : ["target_parameters", settings.targetParameters] as const;
    if (!isTargeted(module, targets)) {
      throw new InputError(`no entry of ${key} names ${module}, so PEFT would not load it`, { where });
    }
  }
}
