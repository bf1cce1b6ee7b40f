/**
 * An adapter plugin applied to a student: which layers, which parameters, how they begin, how the forward pass uses them.
 *
 * @module
 */
import { InputError } from "../errors.ts";
import { toFloat32 } from "../formats/dtype.ts";
import type { LinearHook } from "../models/context.ts";
import { linearLayers } from "../models/llama.ts";
import type {
  AdaptedLayer,
  Adapter,
  AdapterInputs,
  AdapterSettings,
  AdapterValues,
  ParameterDefinition,
} from "../registry/contract.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import { dropout } from "../tensor/ops/dropout.ts";
import { philox4x32, splitSeed } from "../text/random.ts";
import { didYouMean } from "./did_you_mean.ts";
import type { Model } from "./models.ts";
import { ParameterLayout, type ParameterSpec } from "./parameters.ts";
import type { AdapterRecipe } from "./recipe.ts";

/** A layer that is adapted, with its parameters. */
interface Attached {
  readonly layer: AdaptedLayer;
  readonly parameters: readonly ParameterDefinition[];
  /** Tells dropout sites apart. */
  readonly site: number;
}

/** Name of the step scalar with the key of dropout's random numbers. */
export const DROPOUT_KEY = "dropoutKey";

/** An adapter on a student. */
export class StudentAdapter {
  readonly plugin: Adapter;
  readonly settings: AdapterSettings;
  readonly options: Record<string, unknown>;
  readonly layout: ParameterLayout;
  readonly layers: readonly AdaptedLayer[];
  /** Layers of the student, adapted or not. */
  readonly studentLayers: number;
  readonly #attached: ReadonlyMap<string, Attached>;

  /**
   * @param options The plugin's options, parsed by its schema
   * @throws {InputError} if a target names no linear layer, or the plugin needs what is not supported yet
   */
  constructor(plugin: Adapter, recipe: AdapterRecipe, options: Record<string, unknown>, student: Model) {
    this.plugin = plugin;
    this.options = options;
    const { rank, alpha, dropout, rslora, loraPlusRatio } = recipe;
    this.settings = { rank, alpha, dropout, rslora, loraPlusRatio };
    this.layers = targetLayers(recipe, student);
    this.studentLayers = student.config.layers;
    const attached = new Map<string, Attached>();
    const specs: ParameterSpec[] = [];
    this.layers.forEach((layer, site) => {
      const parameters = plugin.parameters(layer, this.settings, options);
      for (const p of parameters) {
        if (p.trainable === false) {
          throw new InputError(
            `adapter "${plugin.id}" has the frozen parameter ${p.suffix}; these are not supported yet`,
          );
        }
        specs.push({ name: `${layer.path}.${p.suffix}`, shape: p.shape, group: p.group ?? "default" });
      }
      attached.set(layer.path, { layer, parameters, site });
    });
    if (plugin.shared && plugin.shared(this.layers, this.settings, options).length > 0) {
      throw new InputError(
        `adapter "${plugin.id}" has parameters shared by all layers; these are not supported yet`,
      );
    }
    this.#attached = attached;
    this.layout = new ParameterLayout(specs);
  }

  /** The hook for the student's linear layers in one block. */
  attach(graph: Graph, parameter: (name: string) => Tensor, training: boolean): LinearHook {
    return (path, x, weight, base) => {
      const attached = this.#attached.get(path);
      if (!attached) return base();
      const { layer, parameters, site } = attached;
      const inputs: AdapterInputs = {
        x,
        base,
        weight,
        layer,
        settings: this.settings,
        options: this.options,
        parameter: (name) => parameter(`${path}.${this.#suffix(parameters, name)}`),
        shared: (name) => this.#noShared(name),
        dropout: (t) =>
          training ? dropout(t, { rate: this.settings.dropout, site, key: graph.scalar(DROPOUT_KEY) }) : t,
      };
      return this.plugin.forward(inputs);
    };
  }

  /** Learning-rate ratio of an optimiser group. */
  groupRatio(group: string): number {
    return this.plugin.groups?.(this.settings, this.options)[group]?.learningRateRatio ?? 1;
  }

  /** Whether weight decay applies to an optimiser group. */
  groupDecays(group: string): boolean {
    return this.plugin.groups?.(this.settings, this.options)[group]?.weightDecay ?? true;
  }

  /** The values training begins with, drawn from (seed, parameter name), in the flat layout. */
  async initialValues(seed: number, student: Model): Promise<Float32Array> {
    const flat = new Float32Array(this.layout.total);
    for (const { layer, parameters } of this.#attached.values()) {
      for (const definition of parameters) {
        const { offset, count, name } = this.layout.get(`${layer.path}.${definition.suffix}`);
        const target = flat.subarray(offset, offset + count);
        const init = definition.initialisation;
        if (init.kind === "constant") target.fill(init.value);
        else if (init.kind === "uniform") fillUniform(target, seed, name, init.bound);
        else if (init.kind === "normal") fillNormal(target, seed, name, init.deviation);
        else {
          throw new InputError(
            `adapter "${this.plugin.id}" initialises ${definition.suffix} from the weights of ${student.path}; this is not supported yet`,
          );
        }
      }
    }
    return await Promise.resolve(flat);
  }

  /** The merged weight [out, in] of an adapted layer, f32, or undefined for a layer without adapter. */
  async merged(
    path: string,
    student: Model,
    values: ReadonlyMap<string, Float32Array>,
  ): Promise<Float32Array | undefined> {
    const attached = this.#attached.get(path);
    if (!attached) return undefined;
    const weight = await student.read(`${path}.weight`);
    return this.plugin.merge(toFloat32(weight.dtype, weight.data), this.values(path, values));
  }

  /** Host values of a layer's parameters, as plugins read them. */
  values(path: string, values: ReadonlyMap<string, Float32Array>): AdapterValues {
    const { layer, parameters } = this.#attached.get(path)!;
    return {
      layer,
      settings: this.settings,
      options: this.options,
      parameter: (name) => values.get(`${path}.${this.#suffix(parameters, name)}`)!,
      shared: (name) => this.#noShared(name),
    };
  }

  #suffix(parameters: readonly ParameterDefinition[], name: string): string {
    const found = parameters.find((p) => p.name === name);
    if (!found) throw new InputError(`adapter "${this.plugin.id}" has no parameter "${name}"`);
    return found.suffix;
  }

  #noShared(name: string): never {
    throw new InputError(`adapter "${this.plugin.id}" has no shared parameter "${name}"`);
  }
}

/** The linear layers a recipe's targets mean, in the order of the forward pass. */
function targetLayers(recipe: AdapterRecipe, student: Model): AdaptedLayer[] {
  const all = linearLayers(student.config);
  const matches = (target: string, path: string) => path === target || path.endsWith(`.${target}`);
  if (recipe.targets !== "all-linear") {
    for (const target of recipe.targets) {
      if (all.some(({ name }) => matches(target, name))) continue;
      const known = [...new Set(all.map(({ name }) => name.split(".").at(-1)!))];
      const guess = didYouMean(target, known);
      throw new InputError(
        `"${target}" names no linear layer of the student${guess ? `; did you mean "${guess}"?` : ""}`,
        {
          where: "recipe adapter.targets",
          hint: `targets are all-linear, or names among ${
            known.join(", ")
          }, or full module paths. The head cannot be adapted yet`,
        },
      );
    }
  }
  return all
    .filter(({ name }) => recipe.targets === "all-linear" || recipe.targets.some((t) => matches(t, name)))
    .map(({ name, out, in: inFeatures }) => ({
      path: name,
      inFeatures,
      outFeatures: out,
      rank: patternValue(recipe.rankPattern, name) ?? recipe.rank,
      alpha: patternValue(recipe.alphaPattern, name) ?? recipe.alpha,
    }));
}

/** The value of the first pattern that is the end of a module path, dots included, as PEFT matches its patterns. */
function patternValue(patterns: Readonly<Record<string, number>>, path: string): number | undefined {
  for (const [pattern, value] of Object.entries(patterns)) {
    if (new RegExp(`(^|.*\\.)(${pattern})$`).test(path)) return value;
  }
  return undefined;
}

/** Distinguishes initial values from other users of a seed. */
const SITE = 0x696e6974;

/** Four random words for position `i` of a parameter. */
function draw(i: number, key: number, seed: number): [number, number, number, number] {
  return philox4x32([i, key, 0, SITE], splitSeed(seed));
}

function fillUniform(target: Float32Array, seed: number, name: string, bound: number): void {
  const key = hashName(name);
  for (let i = 0; i < target.length; i += 4) {
    draw(i / 4, key, seed).forEach((word, j) => {
      if (i + j < target.length) target[i + j] = ((word + 0.5) / 2 ** 32 * 2 - 1) * bound;
    });
  }
}

function fillNormal(target: Float32Array, seed: number, name: string, deviation: number): void {
  const key = hashName(name);
  for (let i = 0; i < target.length; i += 2) {
    const [a, b] = draw(i / 2, key, seed);
    // Box-Muller.
    const radius = deviation * Math.sqrt(-2 * Math.log((a + 0.5) / 2 ** 32));
    const angle = 2 * Math.PI * ((b + 0.5) / 2 ** 32);
    target[i] = radius * Math.cos(angle);
    if (i + 1 < target.length) target[i + 1] = radius * Math.sin(angle);
  }
}

/** FNV-1a over UTF-16 code units. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
