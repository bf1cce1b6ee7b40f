/**
 * Several LoRA adapters as one.
 *
 * With D_i = s_i B_i A_i and weights w_i, `cat` keeps sum w_i D_i exactly, by putting the factors side by side; `svd` is the best
 * approximation of that sum of some rank; `linear` is what PEFT's add_weighted_adapter calls linear (peft/tuners/lora/model.py): A and B are
 * summed by themselves, so products B_i A_j of different adapters appear.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { InputError } from "../../base/errors.ts";
import { openFile } from "../../formats/files.ts";
import { fingerprint } from "../../formats/huggingface/huggingface.ts";
import type { TensorData } from "../../formats/model_source.ts";
import { type LoraAdapter, loraScaling, readPeftAdapter, writePeftAdapter } from "../../formats/peft/peft.ts";
import { addLeftOut, type LeftOut, lowRankOfProduct, relativeError } from "../../linalg/low_rank.ts";
import type { Architecture } from "../../models/architecture.ts";
import { differentModels } from "./adapter_bases.ts";
import {
  type ModuleFactors,
  moduleLabel,
  type ModuleName,
  modulesOf,
  type StackedModule,
  stackedModules,
} from "./expert_modules.ts";
import { type DerivedCard, derivedCard } from "../written/derived_card.ts";
import { checkOutput } from "../written/output.ts";

/** How adapters become one; see the module's description. */
export type AdapterMethod = typeof ADAPTER_METHODS[number];

/** All of them. */
export const ADAPTER_METHODS = ["cat", "svd", "linear"] as const;

/** What is merged, and how. */
export interface AdapterMerge {
  readonly adapters: readonly { readonly path: string; readonly weight: number }[];
  readonly method: AdapterMethod;
  /** Of `svd`. */
  readonly rank?: number | undefined;
}

/** scale b a of one linear layer, or of one expert. */
export interface MergedModule extends ModuleFactors {
  readonly scale: number;
}

/** One adapter of several. */
export interface MergedAdapter {
  readonly modules: readonly MergedModule[];
  /** Relative Frobenius error of what is left out, by module path and in total; 0 where nothing is. */
  readonly errors: Readonly<Record<string, number>>;
  readonly total: number;
  /** For PEFT's `target_modules`. */
  readonly targets: readonly string[];
  /** For its `target_parameters`; none when empty. */
  readonly targetParameters: readonly string[];
  /** Where the first adapter finds its base model. */
  readonly baseModel: string | null;
  /** Whether the base model's files store weights [in, out]. */
  readonly fanInFanOut: boolean;
  readonly parents: DerivedCard["parents"];
  readonly notes: readonly string[];
}

/** One adapter's part of a module. */
interface Part {
  /** w s */
  readonly factor: number;
  readonly rank: number;
  readonly a: Float32Array;
  readonly b: Float32Array;
}

/** A module with the parts that adapters have of it. */
interface Parts extends ModuleName {
  readonly out: number;
  readonly in: number;
  readonly parts: Part[];
}

/**
 * Reads adapters and makes one of them.
 *
 * @param base The base model, when known
 * @throws {InputError} an adapter that is no plain LoRA, modules of different shapes, ranks that differ where `linear` sums them
 */
export async function mergeAdapters(
  { adapters, method, rank }: AdapterMerge,
  base?: Architecture,
): Promise<MergedAdapter> {
  const read: { path: string; weight: number; adapter: LoraAdapter }[] = [];
  for (const { path, weight } of adapters) {
    read.push({ path, weight, adapter: await readPlain(path, base) });
  }
  const left = new Map<string, LeftOut>();
  const modules = partsOf(read).map((module): MergedModule => {
    if (method === "linear") return linear(module);
    if (method === "cat") return sideBySide(module);
    const all = sideBySide(module);
    const a = all.a.map((x) => x * all.scale);
    const found = lowRankOfProduct({ a, b: all.b }, all.out, all.in, rank!);
    left.set(moduleLabel(module), found.left);
    return { ...all, scale: 1, rank: found.rank, a: found.a, b: found.b };
  });
  const [{ adapter: first }] = read as [typeof read[number]];
  const parents: (DerivedCard["parents"][number])[] = [];
  for (const { path, weight } of adapters) {
    const source = await openFile(join(path, "adapter_model.safetensors"));
    try {
      parents.push({ role: "adapter", model: path, weight, sha256: await fingerprint([source]) });
    } finally {
      source.close?.();
    }
  }
  const bases = await differentModels(
    read.flatMap(({ adapter: { settings: { baseModel } } }) => baseModel === null ? [] : [baseModel]),
  );
  return {
    modules,
    errors: Object.fromEntries(
      modules.map(moduleLabel).map((label) => [label, relativeError(left.get(label) ?? NOTHING)]),
    ),
    total: relativeError(addLeftOut(left.values())),
    ...targetsOf(read.filter(({ weight }) => weight !== 0).map(({ adapter }) => adapter), modules),
    baseModel: first.settings.baseModel,
    fanInFanOut: read.some(({ adapter }) => adapter.settings.fanInFanOut),
    parents,
    notes: bases.length > 1
      ? [
        `the adapters name different base models: ${
          bases.join(", ")
        }; the sum belongs on one that all were trained on`,
      ]
      : [],
  };
}

const NOTHING: LeftOut = { squares: 0, of: 0 };

/**
 * Writes one adapter of several, in PEFT's layout, whole or not at all.
 *
 * @throws {InputError} see {@linkcode mergeAdapters}; `output` is there already
 *
 * @example
 * ```ts
 * const adapters = [{ path: "./maths", weight: 1 }, { path: "./chat", weight: 0.5 }];
 * await writeMergedAdapter({ adapters, method: "cat" }, "./both");
 * ```
 */
export async function writeMergedAdapter(merge: AdapterMerge, output: string): Promise<MergedAdapter> {
  await checkOutput(output);
  const merged = await mergeAdapters(merge);
  const { baseModel, fanInFanOut, targetParameters } = merged;
  const modules = stackedModules(merged.modules);
  const rank = Math.max(...modules.map((m) => m.rank));
  const alpha = modules[0]!.first.scale * rank;
  const unusual = (usual: number, valueOf: (module: StackedModule<MergedModule>) => number) =>
    Object.fromEntries(modules.filter((m) => valueOf(m) !== usual).map((m) => [m.path, valueOf(m)]));
  await writePeftAdapter(output, {
    settings: {
      rank,
      alpha,
      targetModules: merged.targets,
      ...(targetParameters.length > 0 ? { targetParameters } : {}),
      baseModel,
      fanInFanOut,
      rankPattern: unusual(rank, (m) => m.rank),
      alphaPattern: unusual(alpha, (m) => m.first.scale * m.rank),
    },
    tensors: new Map(modules.flatMap(({ path, shapes, a, b }): [string, TensorData][] => [
      [`${path}.lora_A.weight`, stored(shapes.a, a, path)],
      [`${path}.lora_B.weight`, stored(shapes.b, b, path)],
    ])),
    experts: new Map(
      modules.flatMap(({ path, experts }) => experts === undefined ? [] : [[path, experts]]),
    ),
  }, { readme: derivedCard(adapterCard(merge, merged, "peft")) });
  return merged;
}

/** What a card says of adapters that were merged. */
export function adapterCard(
  { method }: AdapterMerge,
  { parents, notes, total }: MergedAdapter,
  library: DerivedCard["library"],
): DerivedCard {
  const words = {
    cat: "The sum of the weighted updates of several adapters, exactly.",
    svd: "The sum of the weighted updates of several adapters, by its largest singular values.",
    linear: "Adapters summed factor by factor, as PEFT's linear combination does.",
  };
  const error = method === "svd" ? [`relative error ${total.toFixed(4)} (Frobenius norm)`] : [];
  return { title: "Merged adapters", method: words[method], library, parents, notes: [...notes, ...error] };
}

/** Reads an adapter and refuses what is no plain LoRA. */
async function readPlain(
  path: string,
  base: Architecture | undefined,
): Promise<LoraAdapter> {
  const own = await ownAdapter(path);
  if (own !== undefined) {
    throw new InputError(`the adapter "${own}" in Limbeck's own layout is no plain LoRA`, {
      where: path,
      hint:
        "Write it as one, if it is a low-rank update, with `limbeck export --run RUN --target peft-plain`; else merge it into its base " +
        "with --target merged.",
    });
  }
  const adapter = await readPeftAdapter(path, base?.tensors, base?.expertLayers);
  if (adapter.settings.dora) {
    throw new InputError("is a DoRA adapter (use_dora): rows are rescaled, so there is no update to add up", {
      where: path,
      hint:
        "Merge it into its base model, with PEFT's merge_and_unload() or `limbeck export --target merged`.",
    });
  }
  return adapter;
}

/** The id of the adapter in a folder of Limbeck's own layout; undefined for any other folder. */
async function ownAdapter(path: string): Promise<string | undefined> {
  try {
    const config = JSON.parse(await Deno.readTextFile(join(path, "adapter_config.json")));
    return config?.format === "limbeck-adapter" ? String(config.adapter?.id) : undefined;
  } catch {
    // Whatever is wrong with it is said by the reader of PEFT's layout.
    return undefined;
  }
}

/** Every module that an adapter of nonzero weight has, in order of appearance. */
function partsOf(
  read: readonly { path: string; weight: number; adapter: LoraAdapter }[],
): Parts[] {
  const found = new Map<string, Parts>();
  for (const { path: from, weight, adapter } of read) {
    if (weight === 0) continue;
    for (const { rank, out, in: inSize, a, b, ...name } of modulesOf(adapter)) {
      const label = moduleLabel(name);
      let module = found.get(label);
      if (!module) found.set(label, module = { ...name, out, in: inSize, parts: [] });
      if (module.out !== out || module.in !== inSize || module.expert?.of !== name.expert?.of) {
        const size = (out: number, width: number, { expert }: ModuleName) =>
          `[${out}, ${width}]${expert ? ` of ${expert.of} experts` : ""}`;
        throw new InputError(
          `${name.path} is ${size(out, inSize, name)}, not ${size(module.out, module.in, module)} as in ${
            read[0]!.path
          }`,
          {
            where: from,
            hint: "Adapters can be merged where they belong on the same base model.",
          },
        );
      }
      module.parts.push({
        factor: weight * loraScaling(adapter.settings, name.path),
        ...{ rank, a, b },
      });
    }
  }
  if (found.size > 0) return [...found.values()];
  throw new InputError("every weight is 0, so nothing would be left", { hint: "Give one adapter a weight." });
}

/**
 * The factors of all parts side by side. Where all parts have the same size of factor it becomes the scale and A stays as it is; else it is
 * multiplied into A. Signs go into B.
 */
function sideBySide({ parts, ...module }: Parts): MergedModule {
  const rank = parts.reduce((sum, part) => sum + part.rank, 0);
  const [a, b] = [new Float64Array(rank * module.in), new Float64Array(module.out * rank)];
  const size = Math.abs(parts[0]!.factor);
  const shared = parts.every(({ factor }) => Math.abs(factor) === size);
  let before = 0;
  for (const part of parts) {
    const [stretch, sign] = [shared ? 1 : Math.abs(part.factor), Math.sign(part.factor)];
    for (let i = 0; i < part.a.length; i++) a[before * module.in + i] = stretch * part.a[i]!;
    for (let o = 0; o < module.out; o++) {
      for (let r = 0; r < part.rank; r++) b[o * rank + before + r] = sign * part.b[o * part.rank + r]!;
    }
    before += part.rank;
  }
  return { ...module, rank, scale: shared ? size : 1, a, b };
}

/** sum of sign(f) sqrt |f| A and of sqrt |f| B, f = w s. */
function linear({ parts, ...module }: Parts): MergedModule {
  const { rank } = parts[0]!;
  const other = parts.find((part) => part.rank !== rank);
  if (other) {
    throw new InputError(
      `${moduleLabel(module)} has rank ${rank} in one adapter and ${other.rank} in another`,
      {
        hint: "The method linear adds factors up, so ranks must be equal; cat and svd take any.",
      },
    );
  }
  const [a, b] = [new Float64Array(rank * module.in), new Float64Array(module.out * rank)];
  for (const part of parts) {
    const root = Math.sqrt(Math.abs(part.factor));
    const signed = Math.sign(part.factor) * root;
    for (let i = 0; i < a.length; i++) a[i]! += signed * part.a[i]!;
    for (let i = 0; i < b.length; i++) b[i]! += root * part.b[i]!;
  }
  return { ...module, rank, scale: 1, a, b };
}

/** What the adapters target; whole paths where one of them does not mean every layer of a name. */
function targetsOf(
  adapters: readonly LoraAdapter[],
  modules: readonly MergedModule[],
): Pick<MergedAdapter, "targets" | "targetParameters"> {
  const names = [...new Set(adapters.flatMap(({ settings }) => settings.targetModules))];
  const paths = (ofExperts: boolean) => [
    ...new Set(modules.flatMap(({ path, expert }) => (expert !== undefined) === ofExperts ? [path] : [])),
  ];
  return {
    targets: names.some((name) => name.includes(".")) ? paths(false) : names,
    targetParameters: paths(true),
  };
}

function stored(shape: number[], values: Float64Array, module: string): TensorData {
  const data = Float32Array.from(values);
  if (data.every(Number.isFinite)) return { dtype: "f32", shape, data };
  throw new InputError(`the sum of ${module} is too large for f32`, { hint: "Give smaller weights." });
}
