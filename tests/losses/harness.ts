/** Runs row kernels on the GPU for tests, with poisoned outputs, and compares them with the f64 reference. */
// @ts-types="../../types/std_assert.d.ts"
import { assertLess } from "@std/assert";
import type { Gpu } from "../../src/gpu/device.ts";
import type { DeviceDescription } from "../../src/gpu/description.ts";
import { initialScalars, type ResolvedLoss, type RowLossKernel } from "../../src/losses/traced.ts";
import { referenceRow } from "../../src/losses/reference.ts";
import { compileRowLoss } from "../../src/losses/compile.ts";
import type { Divergence, RowLoss } from "../../src/registry/contract.ts";
import { grid } from "../../src/tensor/op.ts";
import { StepScalars } from "../../src/tensor/graph.ts";
import { NO_TOKEN, type SparseTarget } from "../../src/losses/sparse_target.ts";
import type { SparseRow } from "../../src/losses/sparse_reference.ts";

/** A row of logits with its label. */
export interface Row {
  readonly name: string;
  readonly student: Float32Array;
  readonly teacher: Float32Array;
  readonly label: number;
  /** Bits of its token masks, where rows have them. */
  readonly masks?: number;
  /** In the place of the teacher's logits. */
  readonly cached?: SparseRow;
}

/** What a kernel wrote. `gradient` is what is in the place of the learner's logits. */
export interface Outcome {
  readonly values: Float32Array[];
  readonly gradient: Float32Array[];
}

/** A loss of an objective, with defaults. */
export function term(
  loss: Divergence | RowLoss,
  options: Record<string, unknown> = {},
  rest: Partial<ResolvedLoss> = {},
): ResolvedLoss {
  return {
    loss,
    options: loss.options.parse(options),
    name: `objective.${loss.id}`,
    weight: 1,
    temperature: 1,
    ...rest,
  };
}

/** With the temperature as a number of the step, so that all temperatures share a kernel. */
export function atAnyTemperature(one: ResolvedLoss): ResolvedLoss {
  return { ...one, temperatureVaries: true };
}

/** Dispatches a kernel over rows. `edit` may plant a mistake in the source. */
export async function runKernel(
  gpu: Gpu,
  terms: readonly ResolvedLoss[],
  rows: readonly Row[],
  options: {
    gradient?: boolean;
    teacherStride?: number;
    sparseTarget?: SparseTarget;
    edit?: (wgsl: string) => string;
    scalars?: Record<string, number>;
    /** What the values hold before, in the place of NaN. */
    valuesBefore?: number;
  } = {},
): Promise<Outcome & { kernel: RowLossKernel }> {
  const vocabulary = rows[0]!.student.length;
  const stride = options.teacherStride ?? vocabulary;
  const { sparseTarget } = options;
  const tokenMasks = rows[0]!.masks !== undefined;
  const shape = { vocabulary, paddedTeacherVocabulary: stride, tokenMasks, sparseTarget };
  const kernel = compileRowLoss(terms, shape, gpu.description, { gradient: options.gradient });
  const buffers = rowBuffers(gpu, rows, kernel, stride, sparseTarget);
  if (options.valuesBefore !== undefined) {
    const before = new Float32Array(rows.length * kernel.valueCount).fill(options.valuesBefore);
    gpu.device.queue.writeBuffer(buffers.values.raw, 0, before);
  }
  await dispatch(gpu, kernel, terms, rows.length, buffers, options);
  const read = async (name: "student" | "values", count: number) => {
    const flat = new Float32Array(await gpu.read(buffers[name]!, 0, 4 * rows.length * count));
    return flat;
  };
  const gradient = await read("student", vocabulary);
  const values = await read("values", kernel.valueCount);
  gpu.check();
  Object.values(buffers).forEach((b) => b?.destroy());
  return {
    kernel,
    gradient: rows.map((_, r) => gradient.slice(r * vocabulary, (r + 1) * vocabulary)),
    values: rows.map((_, r) =>
      Float32Array.from({ length: kernel.valueCount }, (_, k) => values[k * rows.length + r]!)
    ),
  };
}

type Buffers = ReturnType<typeof rowBuffers>;

/** Buffers with the rows in them; what the kernel must write holds NaN. */
export function rowBuffers(
  gpu: Gpu,
  rows: readonly Row[],
  kernel: RowLossKernel,
  stride: number,
  sparseTarget?: SparseTarget,
) {
  const vocabulary = rows[0]!.student.length;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const upload = (
    label: string,
    data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>,
  ) => {
    const buffer = gpu.createBuffer(data.byteLength, usage, label);
    gpu.device.queue.writeBuffer(buffer.raw, 0, data);
    return buffer;
  };
  const student = new Float32Array(rows.length * vocabulary);
  const teacher = new Float32Array(rows.length * stride).fill(NaN);
  rows.forEach((row, r) => {
    student.set(row.student, r * vocabulary);
    teacher.set(row.teacher, r * stride);
  });
  const cached = sparseTarget && kernel.needsCache ? cachedRows(rows, sparseTarget) : undefined;
  return {
    ids: cached && upload("ids", cached.ids),
    logits: cached && upload("logits", cached.logits),
    tails: cached && sparseTarget!.kind === "top-k" ? upload("tails", cached.tails) : undefined,
    labels: upload("labels", Int32Array.from(rows, (row) => row.label)),
    masks: rows[0]!.masks === undefined
      ? undefined
      : upload("token masks", Int32Array.from(rows, (row) => row.masks!)),
    teacher: kernel.needsTeacher ? upload("teacher", teacher) : undefined,
    student: upload("student", student),
    values: upload("values", new Float32Array(rows.length * kernel.valueCount).fill(NaN)),
    memory: kernel.memoryWords === 0
      ? undefined
      : upload("memory", new Float32Array(rows.length * kernel.memoryWords).fill(NaN)),
  };
}

/** Ids [R, K], logits [R, K] and tails [R, C] of rows. */
function cachedRows(rows: readonly Row[], { entries, temperatures }: SparseTarget) {
  const columns = temperatures.length;
  const ids = new Uint32Array(rows.length * entries).fill(NO_TOKEN);
  const logits = new Float32Array(rows.length * entries).fill(NaN);
  const tails = new Float32Array(rows.length * columns).fill(NaN);
  rows.forEach(({ cached }, r) => {
    ids.set(cached!.ids, r * entries);
    logits.set(cached!.logits, r * entries);
    tails.set(Array.from(cached!.tails, (x) => Math.max(x, -1e30)), r * columns);
  });
  return { ids, logits, tails };
}

/** Submits one dispatch. */
export async function dispatch(
  gpu: Gpu,
  kernel: RowLossKernel,
  terms: readonly ResolvedLoss[],
  rows: number,
  buffers: Buffers,
  options: { edit?: (wgsl: string) => string; scalars?: Record<string, number> } = {},
): Promise<void> {
  const stepScalars = new StepScalars();
  stepScalars.get("another");
  const size = kernel.size(rows, (name) => stepScalars.get(name));
  const words = new Uint32Array(size.map((w) => typeof w === "number" ? w : "index" in w ? w.index : 0));
  const step = new Float32Array(256).fill(NaN);
  const initial = initialScalars(terms);
  for (const name of kernel.scalars) {
    step[stepScalars.get(name).index] = options.scalars?.[name] ?? initial.get(name)!;
  }
  const edit = options.edit ?? ((wgsl: string) => wgsl);
  const pipeline = await gpu.pipeline(kernel.label, edit(kernel.wgsl));
  const uniform = (data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>) => {
    const buffer = gpu.createBuffer(
      Math.ceil(data.byteLength / 16) * 16,
      GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      "uniform",
    );
    gpu.device.queue.writeBuffer(buffer.raw, 0, data);
    return buffer;
  };
  const uniforms = [uniform(words), uniform(step)];
  const bind = (group: number, list: readonly { raw: GPUBuffer }[]) =>
    gpu.device.createBindGroup({
      layout: pipeline.layouts[group]!,
      entries: list.map((b, binding) => ({ binding, resource: { buffer: b.raw } })),
    });
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline.raw);
  pass.setBindGroup(
    0,
    bind(0, [
      buffers.labels,
      ...[buffers.masks, buffers.teacher, buffers.ids, buffers.logits, buffers.tails].filter((b) =>
        b !== undefined
      ),
      buffers.student,
      buffers.values,
      ...(buffers.memory ? [buffers.memory] : []),
    ]),
  );
  pass.setBindGroup(1, bind(1, uniforms));
  pass.dispatchWorkgroups(...grid(kernel.groups(rows), gpu.description));
  pass.end();
  gpu.device.queue.submit([encoder.finish()]);
  await gpu.idle();
  uniforms.forEach((b) => b.destroy());
}

/** The f64 reference of a row. */
export function reference(terms: readonly ResolvedLoss[], row: Row) {
  const { values, gradient } = referenceRow(
    terms,
    Float64Array.from(row.student),
    Float64Array.from(row.teacher),
    row.label,
    row.masks,
  );
  return { values: [...values], gradient: [...gradient] };
}

/** Fails unless every number is within `tolerance` (absolute) of what is expected. */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
): void {
  let worst = 0;
  let at = 0;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    if (!(error <= worst)) [worst, at] = [error, i];
    if (Number.isNaN(error)) break;
  }
  assertLess(
    worst,
    Math.max(tolerance, 1e-37),
    `${what}: entry ${at} is ${actual[at]}, expected ${expected[at]} (off by ${worst}, allowed ${tolerance})`,
  );
}

/** The description that selects a family of kernels. */
export const FAMILIES: readonly Partial<DeviceDescription>[] = [{ family: "subgroup8" }, {
  family: "tiled",
}];
