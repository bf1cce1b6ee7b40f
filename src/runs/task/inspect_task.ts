/**
 * What can be told of a task without doing it: whether the models fit each other and the task, what it will leave, and what it needs.
 *
 * @module
 */
import { familiesOf } from "../../registry/families.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../gpu/description.ts";
import type { FloatDtype } from "../../formats/dtype.ts";
import { tensorBytes } from "../../formats/safetensors/write.ts";
import type { DataWarning } from "../../distill/inputs/data_warnings.ts";
import { mergeAdapters } from "../../merge/adapters/adapters.ts";
import { Parents } from "../../merge/parents/parents.ts";
import { previewMerge } from "../../merge/engine/merge_models.ts";
import { storageOf } from "../../merge/written/output.ts";
import { Residual } from "../../merge/residual/residual.ts";
import type { Registry } from "../../registry/registry.ts";
import { previewShrink, type ShrinkPreview } from "../../shape/preview.ts";
import { previewCache } from "./cache_task.ts";
import { previewEvaluation } from "./evaluate_task.ts";
import { checkShape } from "./export_task.ts";
import { shrinkSettings } from "./shrink_task.ts";
import { TASK_STEPS } from "./run_recipe.ts";
import {
  type ExportTask,
  type ExtractTask,
  type MergeAdaptersTask,
  mergeRecipeOf,
  type MergeTask,
  type ResidualTask,
  type ShrinkTask,
  type Task,
} from "./task.ts";

/** What a task will leave. */
export interface TaskOutput {
  readonly kind: "model" | "adapter";
  readonly dtype: FloatDtype;
  readonly parameters: number;
  /** Of its weights on the disk. */
  readonly bytes: number;
}

/** A valid task. */
export interface TaskValidation extends Partial<Omit<ShrinkPreview, "warnings" | "parameters">> {
  readonly valid: true;
  readonly task: Task["task"];
  /** Absent where that is known once something is measured. */
  readonly output?: TaskOutput;
  readonly warnings: readonly DataWarning[];
}

/** What a task needs. */
export interface TaskEstimate extends Omit<TaskValidation, "valid"> {
  /** Name of the GPU adapter that was planned for; null where the processor works alone. */
  readonly adapter: string | null;
  readonly totalBytes: number;
  /** Bytes on the GPU by category. */
  readonly bytes: Readonly<Record<string, number>>;
  readonly steps: number;
}

/**
 * Opens all that a task names and checks it as it will be checked when it begins.
 *
 * @throws {InputError} models that do not fit each other or the task
 */
export async function validateTask(task: Task, registry: Registry): Promise<TaskValidation> {
  const { plan: _, ...found } = await inspect(task, registry);
  return { valid: true, task: task.task, ...found };
}

/**
 * The same, and what it needs on a device.
 *
 * @param device the one that is here; WebGPU's default limits where there is none
 * @throws {InputError} as {@linkcode validateTask}
 */
export async function estimateTask(
  task: Task,
  registry: Registry,
  device: DeviceDescription = DEFAULT_DEVICE,
): Promise<TaskEstimate> {
  const { plan, ...found } = await inspect(task, registry, device);
  return {
    task: task.task,
    ...found,
    adapter: plan ? device.name : null,
    totalBytes: plan?.totalBytes ?? 0,
    bytes: Object.fromEntries(plan?.bytesByCategory ?? []),
    steps: TASK_STEPS,
  };
}

type Found = Omit<TaskValidation, "valid" | "task"> & Pick<Awaited<ReturnType<typeof previewShrink>>, "plan">;

async function inspect(task: Task, registry: Registry, device?: DeviceDescription): Promise<Found> {
  return await INSPECT[task.task](task as never, registry, device);
}

const INSPECT: {
  readonly [name in Task["task"]]: (
    task: never,
    registry: Registry,
    device?: DeviceDescription,
  ) => Promise<Found>;
} = {
  async merge(task: MergeTask, registry) {
    const { tensors, dtype, notes } = await previewMerge(mergeRecipeOf(task), {
      method: (id) => registry.get("merge", id),
      families: familiesOf(registry),
    });
    return { output: modelOf(tensors.map(({ shape }) => shape), dtype), warnings: notesOf(notes) };
  },

  async residual({ task: _, base, instruct, newBase, rank, dtype, ...options }: ResidualTask, registry) {
    const how = { ...options, families: familiesOf(registry) };
    return await Residual.open({ base, instruct, newBase }, how, (residual) => {
      const output = rank === undefined
        ? modelOf([...residual.tensors.values()], dtype ?? storageOf(residual.newBase))
        : adapterOf(residual.newBase.architecture.linearLayers, rank);
      return Promise.resolve({ output, warnings: notesOf(residual.notes) });
    });
  },

  async extract({ base, tuned, rank }: ExtractTask, registry) {
    const models = { base, instruct: tuned, newBase: base };
    const how = { commonRows: true, families: familiesOf(registry) };
    return await Residual.open(models, how, (residual) => {
      const output = adapterOf(residual.newBase.architecture.linearLayers, rank);
      return Promise.resolve({ output, warnings: notesOf(residual.notes) });
    });
  },

  async "merge-adapters"(
    { adapters, method, rank = Infinity, into, dtype }: MergeAdaptersTask,
    registry,
  ) {
    const { modules, notes } = await mergeAdapters({
      // That alone is quick, and reads and checks the same.
      method: method === "svd" ? "cat" : method,
      adapters: adapters.map(({ adapter: path, weight }) => ({ path, weight })),
    });
    if (into !== undefined) {
      const parents = await Parents.open([into], familiesOf(registry));
      try {
        const base = parents.get(into);
        const shapes = [...base.architecture.tensors.values()];
        return { output: modelOf(shapes, dtype ?? storageOf(base)), warnings: notesOf(notes) };
      } finally {
        parents.close();
      }
    }
    const parameters = modules.reduce(
      (sum, { rank: own, out, in: from }) => sum + Math.min(rank, own) * (out + from),
      0,
    );
    return {
      output: { kind: "adapter", dtype: "f32", parameters, bytes: 4 * parameters },
      warnings: notesOf(notes),
    };
  },

  async export(task: ExportTask, registry) {
    await checkShape(task, registry);
    return { warnings: [] };
  },

  evaluate: previewEvaluation,

  cache: previewCache,

  async shrink(task: ShrinkTask, registry, device) {
    const found = await previewShrink({ ...shrinkSettings(task), model: task.model, registry }, device);
    const { parameters: _, ...told } = found;
    return told;
  },
};

function modelOf(shapes: readonly (readonly number[])[], dtype: FloatDtype): TaskOutput {
  const stored = ({ f32: "F32", f16: "F16", bf16: "BF16" } as const)[dtype];
  const sum = (of: (shape: readonly number[]) => number) => shapes.reduce((all, shape) => all + of(shape), 0);
  return {
    ...{ kind: "model", dtype },
    parameters: sum((shape) => shape.reduce((product, size) => product * size, 1)),
    bytes: sum((shape) => tensorBytes(stored, shape)),
  };
}

function adapterOf(
  layers: readonly { readonly out: number; readonly in: number }[],
  rank: number,
): TaskOutput {
  const parameters = layers.reduce(
    (sum, { out, in: from }) => sum + Math.min(rank, out, from) * (out + from),
    0,
  );
  return { kind: "adapter", dtype: "f32", parameters, bytes: 4 * parameters };
}

function notesOf(notes: readonly string[]): DataWarning[] {
  return notes.map((message) => ({ code: "note", message }));
}
