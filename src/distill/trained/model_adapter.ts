/**
 * An adapter plugin applied to a student: which layers, which parameters, how they begin, how the forward pass uses them.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { toFloat32 } from "../../formats/dtype.ts";
import type { ExpertsHook, LinearHook, ModelHooks } from "../../models/context.ts";
import type {
  AdaptedLayer,
  AdaptedModel,
  Adapter,
  AdapterInputs,
  AdapterSettings,
  AdapterValues,
  Initialisation,
  ParameterDefinition,
} from "../../registry/contract.ts";
import { PluginError } from "../../registry/contract.ts";
import { elementCount, type Graph, type Tensor } from "../../tensor/graph.ts";
import { dropout } from "../../tensor/ops/dropout.ts";
import { normal } from "../../tensor/ops/normal.ts";
import { pointwise } from "../../tensor/ops/pointwise.ts";
import { fillNormal, fillUniform } from "./initialisation.ts";
import { hostLinearAlgebra, memoised } from "../../linalg/host.ts";
import type { Model } from "../inputs/models.ts";
import { allShapes, shapeIndex } from "../inputs/shape_space.ts";
import type { ParameterSpec } from "./parameters.ts";
import { cannotMerge } from "../recipe/plugins.ts";
import type { AdapterRecipe } from "../recipe/recipe.ts";
import { AdapterWork, SHARED } from "./adapter_work.ts";
import { expertPart, expertsOf, expertValues } from "./expert_values.ts";
import { checkSettings, targetLayers } from "./target_layers.ts";
import type { GroupSettings, StepWork, Trainable } from "./trainables.ts";

/** A layer that is adapted, with its parameters; those of a layer of experts are of all experts. */
interface Attached {
  readonly layer: AdaptedLayer;
  readonly parameters: readonly ParameterDefinition[];
  /** Tells dropout sites apart. */
  readonly site: number;
}

/** Name of the step scalar with the key of the random numbers of dropout and noise. */
export const RANDOM_KEY = "randomKey";

/** Which model an adapter sits on, where it is not the student. */
export interface AdapterPlace {
  /** Stands before the names of its parameters and groups, so that two adapters of a run do not meet. */
  readonly prefix: string;
  /** Path in the recipe, for errors. */
  readonly where: string;
}

/** A shape of the model, as adapters are told of it. */
export type AdaptedShape = Pick<AdaptedModel, "keptLayers" | "width">;

/** Where the student's adapter is. */
const STUDENT: AdapterPlace = { prefix: "", where: "adapter" };

/** Where the adapter of a teacher that trains along is. */
export const TEACHER: AdapterPlace = { prefix: "teacher.", where: "teacher.adapter" };

/** An adapter on a model. */
export class ModelAdapter implements Trainable {
  readonly plugin: Adapter;
  readonly recipe: AdapterRecipe;
  readonly settings: AdapterSettings;
  readonly options: Record<string, unknown>;
  readonly trained: readonly ParameterSpec[];
  readonly fixed: readonly ParameterSpec[];
  readonly work: StepWork;
  readonly layers: readonly AdaptedLayer[];
  /** The model it sits on. */
  readonly model: Model;
  readonly #prefix: string;
  readonly #attached: ReadonlyMap<string, Attached>;
  readonly #shared: readonly ParameterDefinition[];
  #begun: { readonly seed: number; readonly values: Promise<ReadonlyMap<string, Float32Array>> } | undefined;

  /**
   * @param options The plugin's options, parsed by its schema
   * @param steps Optimiser steps of the run
   * @throws {InputError} if a target names no linear layer, or the recipe sets what the plugin has no meaning for
   */
  constructor(
    plugin: Adapter,
    recipe: AdapterRecipe,
    options: Record<string, unknown>,
    model: Model,
    steps: number,
    { prefix, where }: AdapterPlace = STUDENT,
  ) {
    this.plugin = plugin;
    this.recipe = recipe;
    this.options = options;
    this.model = model;
    this.#prefix = prefix;
    const { rank, alpha, dropout, rslora, loraPlusRatio } = recipe;
    this.settings = { rank, alpha, dropout, rslora, loraPlusRatio, steps };
    checkSettings(plugin, recipe, where);
    this.layers = targetLayers(plugin, recipe, model, where);
    const attached = new Map<string, Attached>();
    const [trained, fixed]: [ParameterSpec[], ParameterSpec[]] = [[], []];
    const place = (owner: string, p: ParameterDefinition) =>
      (p.trainable === false ? fixed : trained).push({
        name: this.#name(owner, p),
        shape: p.shape,
        group: `${prefix}${p.group ?? "default"}`,
      });
    const whole = { keptLayers: model.keptLayers };
    this.#shared = this.#sharedOf(whole);
    for (const p of this.#shared) place(SHARED, p);
    this.layers.forEach((layer, site) => {
      const parameters = expertsOf(
        layer,
        plugin.parameters(layer, this.settings, options, this.#modelOf(whole)),
        plugin,
      );
      for (const p of parameters) place(layer.path, p);
      attached.set(layer.path, { layer, parameters, site: site + (prefix === "" ? 0 : SITES) });
    });
    this.#attached = attached;
    [this.trained, this.fixed] = [trained, fixed];
    this.work = new AdapterWork({
      plugin,
      settings: this.settings,
      options,
      layers: this.layers,
      prefix,
      layerParameter: (path, name) => this.#layerParameter(path, name),
      sharedParameter: (name) => this.#sharedParameter(name),
    });
  }

  #sharedOf(shape: AdaptedShape): readonly ParameterDefinition[] {
    return this.plugin.shared?.(this.layers, this.settings, this.options, this.#modelOf(shape)) ?? [];
  }

  #modelOf(shape: AdaptedShape): AdaptedModel {
    const { config, sourceLayers, shapes: space } = this.model;
    return {
      ...{ hiddenSize: config.hiddenSize, sourceLayers },
      ...(space
        ? {
          widths: space.widths.length,
          shapes: allShapes(space).length,
          shape: shapeIndex({ layers: shape.keptLayers, width: shape.width }, space),
        }
        : {}),
      ...shape,
    };
  }

  /** What its fixed parameters are, by name, in another shape of the model; only those that all layers share and that are given as such. */
  shapeValues(shape: AdaptedShape): Map<string, Float32Array> {
    return new Map(
      this.#sharedOf(shape).flatMap((p) =>
        p.trainable === false && p.initialisation.kind === "given"
          ? [[this.#name(SHARED, p), p.initialisation.values()] as const]
          : []
      ),
    );
  }

  /** Module path of the model's head. */
  get head(): string {
    return this.model.architecture.family.names.head;
  }

  /** Whether experts have an adapter. */
  get adaptsExperts(): boolean {
    return this.layers.some(({ experts }) => experts !== undefined);
  }

  /** Whether the head has an adapter. */
  get adaptsHead(): boolean {
    return this.#attached.has(this.head);
  }

  /** The trained parameters that the head's adapter reads. */
  get headParameters(): string[] {
    const head = this.#attached.get(this.head);
    if (!head) return [];
    const named = (owner: string, all: readonly ParameterDefinition[]) =>
      all.filter((p) => p.trainable !== false).map((p) => this.#name(owner, p));
    return [...named(this.head, head.parameters), ...named(SHARED, this.#shared)];
  }

  /**
   * The hooks for the model's layers in one block.
   *
   * @param parameter The tensor of a parameter, trained or fixed
   * @param prompt The prompt of each position, f32 [T, H]
   */
  attach(
    graph: Graph,
    parameter: (name: string) => Tensor,
    training: boolean,
    prompt: () => Tensor,
  ): ModelHooks {
    return {
      onLinear: this.#onLinear(graph, parameter, training, prompt),
      ...(this.adaptsExperts ? { onExperts: this.#onExperts(parameter) } : {}),
    };
  }

  #onExperts(parameter: (name: string) => Tensor): ExpertsHook {
    return ({ name: path, experts }, x, base, linear) => {
      const attached = this.#attached.get(path);
      if (!attached) return undefined;
      return this.plugin.experts!({
        ...{ x, base, linear },
        layer: { ...attached.layer, experts },
        settings: this.settings,
        options: this.options,
        parameter: (name) => parameter(this.#layerParameter(path, name)),
      });
    };
  }

  #onLinear(
    graph: Graph,
    parameter: (name: string) => Tensor,
    training: boolean,
    prompt: () => Tensor,
  ): LinearHook {
    const key = () => graph.scalar(RANDOM_KEY);
    let asked: Tensor | undefined;
    const made = new Map<string, Tensor>();
    const once = (name: string, trace: () => Tensor) => {
      if (!made.has(name)) made.set(name, graph.ungated(trace));
      return made.get(name)!;
    };
    let noises = this.#prefix === "" ? 0 : SITES;
    return (path, x, weight, base) => {
      const attached = this.#attached.get(path);
      if (!attached) return base();
      const { layer, site } = attached;
      let traced: Tensor | undefined;
      const inputs: AdapterInputs = {
        x,
        base: () => traced ??= base(),
        weight,
        layer,
        settings: this.settings,
        options: this.options,
        parameter: (name) => parameter(this.#layerParameter(path, name)),
        shared: (name) => parameter(this.#sharedParameter(name)),
        dropout: (t) => training ? dropout(t, { rate: this.settings.dropout, site, key: key() }) : t,
        noise: (t, deviation) => {
          if (!training) return t;
          if (path === this.head) throw this.#notOnHead("draws noise");
          const e = normal(graph, t.shape, { site: noises++, key: key() });
          return pointwise([t, deviation, e], (t, d, e) => t!.add(d!.mul(e!)));
        },
        prompt: () => {
          if (path === this.head) throw this.#notOnHead("looks at prompts");
          if (this.plugin.readsPrompt) return asked ??= graph.ungated(prompt);
          throw new PluginError(this.plugin.id, "it calls prompt() without readsPrompt: true");
        },
        once,
      };
      return this.plugin.forward(inputs);
    };
  }

  /** The head is traced by chunks of rows, some of them twice: each must give the same again. */
  #notOnHead(what: string): InputError {
    return new InputError(`the adapter "${this.plugin.id}" ${what}, so the head cannot have it`, {
      where: "recipe adapter.targets",
      hint: `leave ${this.head} out of the targets`,
    });
  }

  group(name: string): GroupSettings {
    return this.plugin.groups?.(this.settings, this.options)[name.slice(this.#prefix.length)] ?? {};
  }

  /** Trained and fixed values, drawn from (seed, parameter name) or made from the model's weights. */
  initialValues(seed: number): Promise<ReadonlyMap<string, Float32Array>> {
    if (this.#begun?.seed !== seed) this.#begun = { seed, values: this.#compute(seed) };
    return this.#begun.values;
  }

  /** All values by name: the trained ones as given, the fixed ones made again. */
  async namedValues(
    trained: ReadonlyMap<string, Float32Array>,
    seed: number,
  ): Promise<Map<string, Float32Array>> {
    const begun = this.fixed.length > 0 ? await this.initialValues(seed) : undefined;
    return new Map([
      ...this.trained.map(({ name }) => [name, trained.get(name)!] as const),
      ...this.fixed.map(({ name }) => [name, begun!.get(name)!] as const),
    ]);
  }

  async #compute(seed: number): Promise<ReadonlyMap<string, Float32Array>> {
    const values = new Map<string, Float32Array>();
    const begin = (owner: string, p: ParameterDefinition, fromWeight: (p: FromWeight) => Float32Array) => {
      const name = this.#name(owner, p);
      const count = elementCount(p.shape);
      const init = p.initialisation;
      const target = new Float32Array(count);
      values.set(name, target);
      if (init.kind === "constant") target.fill(init.value);
      else if (init.kind === "uniform") fillUniform(target, seed, name, init.bound);
      else if (init.kind === "normal") fillNormal(target, seed, name, init.deviation);
      else {
        const computed = init.kind === "given" ? init.values() : fromWeight(init);
        if (computed.length !== count || !computed.every(Number.isFinite)) {
          throw new PluginError(
            this.plugin.id,
            `the initial value of ${name} must be ${count} finite numbers`,
          );
        }
        target.set(computed);
      }
    };
    for (const p of this.#shared) {
      begin(SHARED, p, () => {
        throw new PluginError(this.plugin.id, `the shared parameter ${p.name} cannot begin from a weight`);
      });
    }
    for (const { layer, parameters } of this.#attached.values()) {
      const reads = parameters.some((p) => p.initialisation.kind === "fromWeight");
      const weight = reads ? await readWeight(this.model, layer.path) : undefined;
      const linalg = memoised(hostLinearAlgebra);
      for (const p of parameters) begin(layer.path, p, (init) => init.compute(weight!, layer, linalg));
    }
    return values;
  }

  /**
   * The merged weight [out, in] of an adapted layer or of an expert's part of one, f32, or undefined for a layer without adapter.
   *
   * @param path Module path
   * @throws {InputError} if the adapter cannot be merged
   */
  async merged(
    path: string,
    values: ReadonlyMap<string, Float32Array>,
  ): Promise<Float32Array | undefined> {
    const { merge } = this.plugin;
    if (this.#attached.has(path)) {
      if (!merge) throw unmergeable(this.plugin);
      return merge(await readWeight(this.model, path), this.values(path, values));
    }
    const part = expertPart(this.model.architecture, path);
    if (!part || !this.#attached.has(part.layer.name)) return undefined;
    if (!merge) throw unmergeable(this.plugin);
    const weights = await Promise.all(part.modules.map((module) => readWeight(this.model, module)));
    const weight = new Float32Array(weights.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    const begins = weights.map((own) => (weight.set(own, at), at += own.length) - own.length);
    const of = expertValues(this.values(part.layer.name, values), part.expert, part.layer.experts);
    const own = part.modules.indexOf(path);
    return merge(weight, of).slice(begins[own]!, begins[own]! + weights[own]!.length);
  }

  /** Host values of a layer's parameters, as plugins read them. */
  values(path: string, values: ReadonlyMap<string, Float32Array>): AdapterValues {
    return {
      layer: this.#attached.get(path)!.layer,
      settings: this.settings,
      options: this.options,
      parameter: (name) => values.get(this.#layerParameter(path, name))!,
      shared: (name) => values.get(this.#sharedParameter(name))!,
    };
  }

  /** The definitions of a layer's parameters. */
  definitions(path: string): readonly ParameterDefinition[] {
    return this.#attached.get(path)!.parameters;
  }

  /** Host values of the parameters shared by all layers. */
  sharedValues(values: ReadonlyMap<string, Float32Array>): (name: string) => Float32Array {
    return (name) => values.get(this.#sharedParameter(name))!;
  }

  #layerParameter(path: string, name: string): string {
    const found = this.definitions(path).find((p) => p.name === name);
    if (!found) throw new PluginError(this.plugin.id, `it has no parameter "${name}"`);
    return this.#name(path, found);
  }

  #sharedParameter(name: string): string {
    const found = this.#shared.find((p) => p.name === name);
    if (!found) throw new PluginError(this.plugin.id, `it has no shared parameter "${name}"`);
    return this.#name(SHARED, found);
  }

  #name(owner: string, { suffix }: ParameterDefinition): string {
    return `${this.#prefix}${owner}.${suffix}`;
  }
}

/** The refusal of an adapter without `merge`. */
export function unmergeable({ id }: Adapter): InputError {
  return new InputError(cannotMerge(id), {
    where: "recipe adapter.type",
    hint: "`limbeck generate --run` and `limbeck eval --run` use it as it is; " +
      "`limbeck export --target limbeck` writes its values",
  });
}

type FromWeight = Initialisation & { kind: "fromWeight" };

/** Sites of dropout, and of noise, of one adapter. */
const SITES = 1 << 16;

async function readWeight(model: Model, path: string): Promise<Float32Array> {
  const { dtype, data } = await model.read(`${path}.weight`);
  return toFloat32(dtype, data);
}
