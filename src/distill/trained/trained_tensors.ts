/**
 * Tensors of a model that are trained themselves, all of their values, rather than through an adapter: full fine-tuning, or a part of it.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { toFloat32 } from "../../formats/dtype.ts";
import type { WeightHook } from "../../models/context.ts";
import type { Tensor } from "../../tensor/graph.ts";
import { didYouMean } from "../../base/did_you_mean.ts";
import type { Model } from "../inputs/models.ts";
import { namesTensor } from "../inputs/tensor_names.ts";
import type { ParameterSpec } from "./parameters.ts";
import type { GroupSettings, Trainable } from "./trainables.ts";

/** Where a recipe names them. */
const WHERE = "recipe student.train";

/** Optimiser groups. Norms and biases are not decayed, as is standard practice. */
const GROUPS = { matrices: "tensors", vectors: "norms and biases" } as const;

/** The kinds of tensors that a word of a recipe means. */
const TENSOR_KINDS = ["norms", "biases", "head", "linear"] as const;

/** Tensors of a model whose trained values stand in the place of the frozen ones. */
export class TrainedTensors implements Trainable {
  /** By their Hugging Face names, in the order of the forward pass. */
  readonly trained: readonly ParameterSpec[];
  readonly fixed: readonly ParameterSpec[] = [];
  /** The tensors that each of the recipe's names means. */
  readonly selection: ReadonlyMap<string, readonly string[]>;
  readonly #model: Model;
  readonly #names: ReadonlySet<string>;

  /**
   * @param names What `student.train` says
   * @throws {InputError} if a name means no tensor, or the embedding
   */
  constructor(model: Model, names: readonly string[]) {
    this.#model = model;
    this.selection = selectTensors(model, names);
    this.#names = new Set([...this.selection.values()].flat());
    refuseBlocks(model, this.selection);
    this.trained = [...model.tensors()].filter(([name]) => this.#names.has(name)).map((
      [name, { shape }],
    ) => ({
      name,
      shape,
      group: shape.length > 1 ? GROUPS.matrices : GROUPS.vectors,
    }));
  }

  /** The trained parameters of the head: its weight, where it is trained. */
  get headParameters(): string[] {
    return [headWeight(this.#model)].filter((name) => this.has(name));
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** @param parameter The tensor of a parameter */
  attach(parameter: (name: string) => Tensor): WeightHook {
    return (name) => (this.#names.has(name) ? parameter(name) : undefined);
  }

  group(name: string): GroupSettings {
    return { weightDecay: name === GROUPS.matrices };
  }

  /** The model's own values, in f32. */
  async initialValues(): Promise<ReadonlyMap<string, Float32Array>> {
    const values = new Map<string, Float32Array>();
    for (const { name } of this.trained) {
      const { dtype, data } = await this.#model.read(name);
      values.set(name, toFloat32(dtype, data));
    }
    return values;
  }
}

/** Trained values are numbers; those of a weight in blocks would not be what the recipe asks to keep small. */
function refuseBlocks(model: Model, selection: ReadonlyMap<string, readonly string[]>): void {
  for (const [word, names] of selection) {
    const name = names.find((name) => model.isInBlocks(model.storedName(name)));
    if (!name) continue;
    throw new InputError(
      `"${word}" means ${name}, which is ${model.gpuDtype(model.storedName(name))} on the GPU and stays so`,
      {
        where: WHERE,
        hint:
          "train an adapter on it, or leave student.quantize out; of a quantised file, set student.dtype: f16",
      },
    );
  }
}

/** The weight of a head that is not the embedding. */
function headWeight(model: Model): string {
  return `${model.architecture.family.names.head}.weight`;
}

/** The tensors that each name of `student.train` means. */
function selectTensors(model: Model, names: readonly string[]): Map<string, string[]> {
  const { tensors, linearLayers, family } = model.architecture;
  const all = [...tensors.keys()];
  const linear = new Set(linearLayers.map(({ name }) => `${name}.weight`));
  const kinds: Record<(typeof TENSOR_KINDS)[number], (name: string) => boolean> = {
    norms: (name) => name.endsWith(".weight") && tensors.get(name)!.length === 1,
    biases: (name) => name.endsWith(".bias"),
    head: (name) => name === headWeight(model),
    linear: (name) => linear.has(name),
  };
  const selected = new Map<string, string[]>();
  for (const name of names) {
    const kind = TENSOR_KINDS.find((k) => k === name);
    const found = all.filter(kind ? kinds[kind] : (tensor) => namesTensor(name, tensor));
    if (found.includes(family.names.embedding)) {
      throw new InputError(`"${name}" means the embedding, which cannot be trained`, {
        where: WHERE,
        hint:
          "its gradient would be a sum over the rows of each token, which is not there; name other tensors, " +
          `such as ${TENSOR_KINDS.join(", ")}`,
      });
    }
    if (model.isRowCut && found.includes(headWeight(model))) {
      throw new InputError(
        `"${name}" means the head, which is cut to the rows that the other model has too and so cannot be trained`,
        { where: WHERE, hint: "name other tensors, or give both models heads of one size" },
      );
    }
    if (found.length === 0) {
      const known = [...TENSOR_KINDS, ...new Set(all.flatMap(endings))];
      throw new InputError(
        `"${name}" ${
          kind ? "are not in this model" : `names no tensor of the model${didYouMean(name, known)}`
        }`,
        {
          where: WHERE,
          hint: `it takes ${TENSOR_KINDS.join(", ")}, or names of tensors or their endings, such as ` +
            "model.norm.weight, layers.0.mlp.down_proj or q_proj",
        },
      );
    }
    selected.set(name, found);
  }
  return selected;
}

/** The names that a misspelt one may have meant. */
function endings(tensor: string): string[] {
  const parts = tensor.split(".");
  return [tensor, parts.at(-2)!, parts.slice(-2).join(".")];
}
