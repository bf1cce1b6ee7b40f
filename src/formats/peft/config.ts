/**
 * adapter_config.json of a PEFT LoRA adapter.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { pythonJson } from "../python_json.ts";
import { MODULE_PATTERN, MODULE_PATTERN_FORM, patternReader } from "./module_pattern.ts";

/** What decides how a LoRA adapter is applied: y = W x + scaling * B (A x). */
export interface LoraSettings {
  /** Rank of modules that `rankPattern` does not name. */
  readonly rank: number;
  /** Numerator of the scaling of modules that `alphaPattern` does not name. */
  readonly alpha: number;
  /** Module names, matched as whole ends of module paths: `q_proj`, or a full path. */
  readonly targetModules: readonly string[];
  /** Parameters that hold all experts of a mixture, named likewise: `experts.down_proj`; none when absent. */
  readonly targetParameters?: readonly string[];
  /** Where PEFT finds the base model. */
  readonly baseModel: string | null;
  /** Probability with which an input of A is dropped in training; no part of the finished adapter's computation. */
  readonly dropout?: number;
  /** Scaling by alpha / sqrt(rank) instead of alpha / rank (rsLoRA, arXiv 2312.03732). */
  readonly rsLora?: boolean;
  /** Whether the base model's files store its weights [in, out], as those of GPT-2 do; the factors are laid out the same. */
  readonly fanInFanOut?: boolean | undefined;
  /** Weight-decomposed LoRA (DoRA, arXiv 2402.09353): rows are rescaled to a learnt magnitude. */
  readonly dora?: boolean;
  /** Ranks of single modules; keys are as `MODULE_PATTERN` says. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  /** Alphas of single modules, likewise. */
  readonly alphaPattern?: Readonly<Record<string, number>>;
}

/** Fields that PEFT 0.21 writes for LoRA, with the values that stand for "not used". */
const defaults: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_bias: false,
  lora_dropout: 0,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  modules_to_save: null,
  monteclora_config: null,
  peft_type: "LORA",
  peft_version: "0.21.2",
  qalora_group_size: 16,
  rank_pattern: {},
  revision: null,
  target_parameters: null,
  task_type: "CAUSAL_LM",
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

/**
 * Fields that change what the adapter computes and are not known here: anything but these values is refused.
 * The tensors themselves say which layers have one, so fields that only choose layers do not matter.
 */
const required: Readonly<Record<string, readonly unknown[]>> = {
  alora_invocation_tokens: [null],
  arrow_config: [null],
  bias: ["none"],
  fan_in_fan_out: [false, true],
  kasa_config: [null],
  layer_replication: [null],
  lora_bias: [false],
  modules_to_save: [null],
  monteclora_config: [null],
  trainable_token_indices: [null],
  use_bdlora: [null, false],
  use_qalora: [false],
  velora_config: [null],
};

/** Initialisations that leave the base weights as they are; the others (PiSSA, OLoRA, ...) subtract something from them. */
const harmlessInitialisations: readonly unknown[] = [true, false, "gaussian", "eva", "orthogonal", "mica"];

/**
 * The text of adapter_config.json, as PEFT writes it: sorted keys, two spaces.
 *
 * @param modulesToSave Modules that were trained whole
 */
export function peftConfigJson(settings: LoraSettings, modulesToSave?: readonly string[]): string {
  const config: Record<string, unknown> = {
    ...defaults,
    alpha_pattern: settings.alphaPattern ?? {},
    base_model_name_or_path: settings.baseModel,
    fan_in_fan_out: settings.fanInFanOut ?? false,
    lora_alpha: settings.alpha,
    lora_dropout: settings.dropout ?? 0,
    modules_to_save: modulesToSave ?? null,
    r: settings.rank,
    rank_pattern: settings.rankPattern ?? {},
    target_modules: [...settings.targetModules].sort(),
    target_parameters: settings.targetParameters ? [...settings.targetParameters].sort() : null,
    use_dora: settings.dora ?? false,
    use_rslora: settings.rsLora ?? false,
  };
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => a < b ? -1 : 1));
  return pythonJson(sorted, ["lora_dropout"]);
}

/** adapter_config.json of another method of PEFT: the fields all methods have, and its own. */
export function peftConfigOf(
  peftType: string,
  { baseModel, targetModules }: Pick<LoraSettings, "baseModel" | "targetModules">,
  own: Readonly<Record<string, unknown>>,
): string {
  const config: Record<string, unknown> = {
    // PEFT's configuration of AdaLoRA has all the fields of LoRA's.
    ...(peftType === "ADALORA" ? defaults : {}),
    auto_mapping: null,
    base_model_name_or_path: baseModel,
    inference_mode: true,
    layers_pattern: null,
    layers_to_transform: null,
    modules_to_save: null,
    peft_type: peftType,
    peft_version: defaults.peft_version,
    revision: null,
    target_modules: [...targetModules].sort(),
    task_type: "CAUSAL_LM",
    ...own,
  };
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => a < b ? -1 : 1));
  return pythonJson(sorted, Object.keys(own).filter((key) => key.endsWith("_dropout")));
}

/** Reads adapter_config.json. @throws {InputError} naming the field that is wrong or not supported. */
export function parsePeftConfig(text: string, where: string): LoraSettings {
  let config: Record<string, unknown>;
  try {
    config = JSON.parse(text);
  } catch (cause) {
    throw new InputError(`is not valid JSON: ${cause instanceof Error ? cause.message : cause}`, {
      where,
      cause,
    });
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new InputError("does not hold a JSON object", { where });
  }
  if (config.peft_type !== "LORA") {
    throw new InputError(`peft_type ${JSON.stringify(config.peft_type)} is not supported`, {
      where,
      hint: 'Supported: "LORA". Merge other adapters into their base model with PEFT.',
    });
  }
  for (const [key, values] of Object.entries(required)) {
    const value = config[key];
    if (value !== undefined && !values.includes(value)) {
      throw new InputError(`${key} is ${JSON.stringify(value)}, which is not supported`, { where });
    }
  }
  const initialisation = config.init_lora_weights ?? true;
  if (!harmlessInitialisations.includes(initialisation)) {
    throw new InputError(`init_lora_weights ${JSON.stringify(initialisation)} changes the base weights`, {
      where,
      hint: "Save the adapter as plain LoRA, with PEFT's path_initial_model_for_weight_conversion.",
    });
  }

  function positive(key: string, value: unknown, integer: boolean): number {
    if (
      typeof value === "number" && value > 0 &&
      (integer ? Number.isSafeInteger(value) : Number.isFinite(value))
    ) {
      return value;
    }
    throw new InputError(
      `${key} is ${JSON.stringify(value)}; expected a positive ${integer ? "integer" : "number"}`,
      {
        where,
      },
    );
  }

  function pattern(key: string, integer: boolean): Record<string, number> {
    const entries = Object.entries(config[key] ?? {});
    const expression = entries.find(([name]) => !MODULE_PATTERN.test(name))?.[0];
    if (expression !== undefined) {
      throw new InputError(
        `${key} has the key ${JSON.stringify(expression)}; expected ${MODULE_PATTERN_FORM}`,
        { where },
      );
    }
    return Object.fromEntries(
      entries.map(([name, value]) => [name, positive(`${key}.${name}`, value, integer)]),
    );
  }

  function names(key: string, of: string): string[] {
    const value = config[key];
    if (Array.isArray(value) && value.every((name) => typeof name === "string")) return value;
    throw new InputError(`${key} is ${JSON.stringify(value)}; expected a list of ${of} names`, { where });
  }

  const targets = names("target_modules", "module");
  const parameters = config.target_parameters == null ? [] : names("target_parameters", "parameter");
  const base = config.base_model_name_or_path;
  return {
    rank: positive("r", config.r, true),
    alpha: positive("lora_alpha", config.lora_alpha, false),
    targetModules: targets,
    ...(parameters.length > 0 ? { targetParameters: parameters } : {}),
    baseModel: typeof base === "string" ? base : null,
    dropout: typeof config.lora_dropout === "number" ? config.lora_dropout : 0,
    rsLora: config.use_rslora === true,
    ...(config.fan_in_fan_out === true ? { fanInFanOut: true } : {}),
    dora: config.use_dora === true,
    rankPattern: pattern("rank_pattern", true),
    alphaPattern: pattern("alpha_pattern", false),
  };
}

/** The rank of a module. */
export function loraRank(settings: LoraSettings, module: string): number {
  return patternReader(settings.rankPattern)(module) ?? settings.rank;
}

/** What B A is multiplied by in a module. */
export function loraScaling(settings: LoraSettings, module: string): number {
  const rank = loraRank(settings, module);
  const alpha = patternReader(settings.alphaPattern)(module) ?? settings.alpha;
  return alpha / (settings.rsLora ? Math.sqrt(rank) : rank);
}
