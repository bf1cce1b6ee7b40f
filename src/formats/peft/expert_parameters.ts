/**
 * LoRA on parameters that hold all experts of a mixture, as PEFT keeps it (`target_parameters`; `ParamWrapper` in peft/tuners/lora/layer.py).
 *
 * transformers has the experts of a layer in one module, with one parameter [experts, out, in] for each of their layers. PEFT puts a wrapper
 * around that module for each parameter that is adapted, one around the other in the order in which the module has them, and the keys in
 * files name wrappers: `mlp.experts.lora_A.weight` is of the outermost, each further one is called `base_layer` of that around it. A is
 * [experts * rank, in], expert by expert; B is [out, rank * experts], where the columns of an expert are every experts-th.
 *
 * Here every parameter has its own path, `mlp.experts.down_proj`, and B is [experts * out, rank], expert by expert too.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { TensorData } from "../safetensors/safetensors.ts";
import { loraRank, type LoraSettings } from "./config.ts";

/** Parameters of an experts' module, in the order in which transformers has them. */
const PARAMETERS: readonly string[] = ["gate_up_proj", "down_proj"];

/** Tensors by their paths, and how many experts those of experts are of. */
export interface NamedTensors {
  readonly tensors: ReadonlyMap<string, TensorData>;
  /** By path, such as `model.layers.0.mlp.experts.down_proj`. */
  readonly experts: ReadonlyMap<string, number>;
}

/** Whether a name of `target_modules` or `target_parameters` means a path. */
export function isTargeted(path: string, targets: readonly string[] = []): boolean {
  return targets.some((target) => path === target || path.endsWith(`.${target}`));
}

const WRAPPED = /^(.+?)((?:\.base_layer)*)\.lora_(A|B)\.weight$/;

/**
 * Gives tensors of wrappers the paths of the parameters that these adapt.
 *
 * @param tensors By their keys in the file, without its prefix
 * @throws {InputError} where wrappers are not those that `target_parameters` asks for, or shapes are of no number of experts
 */
export function namedExperts(
  tensors: ReadonlyMap<string, TensorData>,
  settings: LoraSettings,
  where: string,
): NamedTensors {
  if (!settings.targetParameters) return { tensors, experts: new Map() };
  const named = new Map<string, TensorData>();
  const experts = new Map<string, number>();
  const wrappers = new Map<string, Set<number>>();
  const found = [...tensors].map(([key, tensor]) => {
    const [, module, inner = "", side] = WRAPPED.exec(key) ?? [];
    const wrapped = module !== undefined && !isTargeted(module, settings.targetModules);
    const depth = inner.length / ".base_layer".length;
    if (wrapped) wrappers.set(module, (wrappers.get(module) ?? new Set()).add(depth));
    return { key, tensor, module: wrapped ? module : undefined, depth, side };
  });
  for (const { key, tensor, module, depth, side } of found) {
    if (module === undefined) {
      named.set(key, tensor);
      continue;
    }
    const parameters = wrappedParameters(module, settings.targetParameters, where);
    const count = wrappers.get(module)!.size;
    if (parameters.length !== count || depth >= count) {
      throw new InputError(
        `${module} has ${count} adapted ${
          count === 1 ? "parameter" : "parameters"
        }, and target_parameters names ${parameters.length === 0 ? "none of them" : parameters.join(", ")}`,
        { where },
      );
    }
    const path = `${module}.${parameters[count - 1 - depth]}`;
    const rank = loraRank(settings, path);
    // A has a row and B a column for each rank of each expert.
    const all = tensor.shape[side === "A" ? 0 : 1];
    if (
      tensor.shape.length !== 2 || all! % rank !== 0 || (experts.get(path) ?? all! / rank) !== all! / rank
    ) {
      throw new InputError(
        `tensor ${key} has shape [${
          tensor.shape.join(", ")
        }], which is of no number of experts of rank ${rank}`,
        { where },
      );
    }
    experts.set(path, all! / rank);
    named.set(`${path}.lora_${side}.weight`, side === "A" ? tensor : byExpert(tensor, rank));
  }
  return { tensors: named, experts };
}

/** The parameters of a module that are adapted, in the order of their wrappers, the innermost first. */
function wrappedParameters(module: string, targets: readonly string[], where: string): string[] {
  const names = new Set(targets.map((target) => target.split(".").at(-1)!));
  const found = [...names].filter((name) => isTargeted(`${module}.${name}`, targets));
  const unknown = found.find((name) => !PARAMETERS.includes(name));
  if (found.length > 1 && unknown !== undefined) {
    throw new InputError(
      `target_parameters names ${unknown} of ${module} beside others, and the order in which PEFT wraps it is not known`,
      {
        where,
        hint: `Known are ${PARAMETERS.join(" and ")}. Merge the adapter into its base model with PEFT.`,
      },
    );
  }
  return found.length === 1 ? found : PARAMETERS.filter((name) => found.includes(name));
}

/** The keys that PEFT has for tensors, and the tensors as it lays them out. */
export function wrappedExperts({ tensors, experts }: NamedTensors): Map<string, TensorData> {
  const keys = new Map<string, string>();
  for (const path of experts.keys()) {
    const [module, name] = [path.slice(0, path.lastIndexOf(".")), path.slice(path.lastIndexOf(".") + 1)];
    const around = PARAMETERS.slice(PARAMETERS.indexOf(name) + 1).filter((p) =>
      experts.has(`${module}.${p}`)
    );
    keys.set(path, `${module}${".base_layer".repeat(around.length)}`);
  }
  return new Map([...tensors].map(([name, tensor]) => {
    const [, path, side] = /^(.+)\.lora_(A|B)\.weight$/.exec(name) ?? [];
    const key = path === undefined ? undefined : keys.get(path);
    if (key === undefined) return [name, tensor];
    return [`${key}.lora_${side}.weight`, side === "A" ? tensor : byRank(tensor, experts.get(path!)!)];
  }));
}

/** [out, rank * experts] to [experts * out, rank]. */
function byExpert(tensor: TensorData, rank: number): TensorData {
  const [out, all] = tensor.shape as [number, number];
  const experts = all / rank;
  const data = tensor.data.slice();
  for (let e = 0; e < experts; e++) {
    for (let o = 0; o < out; o++) {
      for (let r = 0; r < rank; r++) data[(e * out + o) * rank + r] = tensor.data[o * all + r * experts + e]!;
    }
  }
  return { ...tensor, shape: [experts * out, rank], data };
}

/** [experts * out, rank] to [out, rank * experts]. */
function byRank(tensor: TensorData, experts: number): TensorData {
  const [rows, rank] = tensor.shape as [number, number];
  const [out, all] = [rows / experts, rank * experts];
  const data = tensor.data.slice();
  for (let e = 0; e < experts; e++) {
    for (let o = 0; o < out; o++) {
      for (let r = 0; r < rank; r++) data[o * all + r * experts + e] = tensor.data[(e * out + o) * rank + r]!;
    }
  }
  return { ...tensor, shape: [out, all], data };
}
