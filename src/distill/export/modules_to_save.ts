/**
 * Trained tensors as PEFT keeps them beside an adapter: whole modules, named by `modules_to_save`.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import { toFloat32 } from "../../formats/dtype.ts";
import type { TensorData } from "../../formats/model_source.ts";
import type { SavedModules } from "../../formats/peft/peft.ts";
import type { ModelAdapter } from "../trained/model_adapter.ts";
import type { Model } from "../inputs/models.ts";
import type { TrainedTensors } from "../trained/trained_tensors.ts";

/** The error of an adapter folder that cannot hold what is trained beside the adapter; undefined where it can. */
export function unsavable(adapter: ModelAdapter, tensors: TrainedTensors): InputError | undefined {
  const paths = new Set(adapter.layers.map(({ path }) => path));
  const both = tensors.trained.find(({ name }) => paths.has(moduleOf(name)));
  return both && new InputError(
    `PEFT keeps a module whole or gives it an adapter: ${
      moduleOf(both.name)
    } has an adapter, and ${both.name} is trained too`,
    { where: "recipe student.train", hint: MERGE },
  );
}

/** What to do where no adapter folder can hold the trained tensors. */
export const MERGE = "export the merged model: `limbeck export --target merged`, or `--target gguf`";

/** The modules whose tensors are trained, with the values of those that are not. */
export async function savedModules(
  student: Model,
  { trained }: TrainedTensors,
  values: ReadonlyMap<string, Float32Array>,
): Promise<SavedModules> {
  const paths = new Set(trained.map(({ name }) => moduleOf(name)));
  const all = student.tensors();
  const tensors = new Map<string, TensorData>();
  for (const [name, { shape }] of all) {
    if (!paths.has(moduleOf(name))) continue;
    const given = values.get(name);
    const data = given ?? await readFloat32(student, name);
    tensors.set(name, { dtype: "f32", shape: [...shape], data: new Float32Array(data) });
  }
  return { modules: shortNames(paths, new Set([...all.keys()].map(moduleOf))), tensors };
}

/** The last parts of paths where every module that ends so is meant, else whole paths. */
function shortNames(paths: ReadonlySet<string>, all: ReadonlySet<string>): string[] {
  const names = [...paths].map((path) => {
    const last = path.split(".").at(-1)!;
    return [...all].every((other) => !other.endsWith(last) || paths.has(other)) ? last : path;
  });
  return [...new Set(names)].sort();
}

function moduleOf(tensor: string): string {
  return tensor.slice(0, tensor.lastIndexOf("."));
}

async function readFloat32(model: Model, name: string): Promise<Float32Array> {
  const { dtype, data } = await model.read(name);
  return toFloat32(dtype, data);
}
