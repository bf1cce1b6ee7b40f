/**
 * Runs a row kernel with rows around it that it must not touch, every output poisoned.
 *
 * @module
 */
import type { KernelText } from "../../gpu/description.ts";
import { BUFFER_USAGE } from "../../gpu/buffer_usage.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { StepScalars } from "../../tensor/graph.ts";
import { grid } from "../../tensor/op.ts";
import { initialScalars, type ResolvedLoss } from "../../losses/traced.ts";
import { compileRowLoss } from "../../losses/compile.ts";
import { CheckFailure } from "./checklist.ts";
import type { TestRow } from "./rows.ts";

/** Guard rows before, and as many after, those the kernel is given. */
const GUARDS = 2;
/** A NaN that no arithmetic makes. */
const POISON = 0x7fc0beef;

/** What a kernel wrote for each row. */
export interface RowOutcome {
  readonly values: readonly number[];
  /** What lies in the place of the learner's logits. */
  readonly gradients: readonly Float32Array[];
  /** The shortest of the timed dispatches, in milliseconds; 0 when none was asked for. */
  readonly milliseconds: number;
}

/** Compiles a loss's kernel with and without gradient. @throws {DeviceError} with the compiler's message and line */
export async function compileKernels(
  gpu: Gpu,
  term: ResolvedLoss,
  vocabulary: number,
): Promise<KernelText[]> {
  const { family } = gpu.description;
  const texts: KernelText[] = [];
  for (const gradient of [true, false]) {
    const { label, wgsl } = compileRowLoss([term], { vocabulary }, gpu.description, { gradient });
    await gpu.pipeline(label, wgsl);
    texts.push({ label: `${label} (${family}, V = ${vocabulary})`, family, wgsl });
  }
  return texts;
}

/**
 * Dispatches a loss over rows.
 *
 * @param timed Dispatches to take the time of
 * @throws {CheckFailure} if it writes outside of the rows it was given
 */
export async function runRows(
  gpu: Gpu,
  term: ResolvedLoss,
  rows: readonly TestRow[],
  timed = 0,
): Promise<RowOutcome> {
  const vocabulary = rows[0]!.student.length;
  const all = rows.length + 2 * GUARDS;
  const kernel = compileRowLoss([term], { vocabulary }, gpu.description);
  const student = new Float32Array(all * vocabulary);
  const teacher = new Float32Array(all * vocabulary);
  const labels = new Int32Array(all);
  const poison = (words: Float32Array) => new Uint32Array(words.buffer).fill(POISON);
  poison(student);
  const values = new Float32Array(all);
  poison(values);
  rows.forEach((row, r) => {
    student.set(row.student, (r + GUARDS) * vocabulary);
    teacher.set(row.teacher, (r + GUARDS) * vocabulary);
    labels[r + GUARDS] = row.label;
  });

  const buffers: GpuBuffer[] = [];
  const make = (label: string, data: Float32Array | Int32Array | Uint32Array, uniform = false) => {
    const usage = uniform ? BUFFER_USAGE.uniform : BUFFER_USAGE.storage;
    const buffer = gpu.createBuffer(Math.ceil(data.byteLength / 16) * 16, usage, label);
    gpu.device.queue.writeBuffer(buffer.raw, 0, data as Float32Array<ArrayBuffer>);
    buffers.push(buffer);
    return buffer;
  };
  try {
    const scalars = new StepScalars();
    const part = { first: GUARDS, end: GUARDS + rows.length };
    const size = kernel.size(all, (name) => scalars.get(name), part);
    const words = Uint32Array.from(size, (w) => typeof w === "number" ? w : "index" in w ? w.index : 0);
    const step = new Float32Array(StepScalars.capacity);
    const initial = initialScalars([term]);
    for (const name of kernel.scalars) step[scalars.get(name).index] = initial.get(name)!;

    const studentBuffer = make("student", student);
    const valuesBuffer = make("values", values);
    const memory = new Float32Array((rows.length + GUARDS) * kernel.memoryWords);
    poison(memory);
    const memoryBuffer = kernel.memoryWords > 0 ? make("memory", memory) : undefined;
    const storage = [
      make("labels", labels),
      ...(kernel.needsTeacher ? [make("teacher", teacher)] : []),
      studentBuffer,
      valuesBuffer,
      ...(memoryBuffer ? [memoryBuffer] : []),
    ];
    const uniforms = [make("size", words, true), make("step", step, true)];
    const pipeline = await gpu.pipeline(kernel.label, kernel.wgsl);
    const bind = (group: number, list: readonly GpuBuffer[]) =>
      gpu.device.createBindGroup({
        layout: pipeline.layouts[group]!,
        entries: list.map((b, binding) => ({ binding, resource: { buffer: b.raw } })),
      });
    const groups = [bind(0, storage), bind(1, uniforms)];
    const dispatch = async () => {
      const encoder = gpu.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline.raw);
      groups.forEach((group, i) => pass.setBindGroup(i, group));
      pass.dispatchWorkgroups(...grid(kernel.groups(rows.length), gpu.description));
      pass.end();
      const begin = performance.now();
      gpu.device.queue.submit([encoder.finish()]);
      await gpu.idle();
      return performance.now() - begin;
    };
    await dispatch();
    const gradient = new Float32Array(await gpu.read(studentBuffer, 0, student.byteLength));
    const found = new Float32Array(await gpu.read(valuesBuffer, 0, values.byteLength));
    let milliseconds = 0;
    for (let i = 0; i < timed; i++) {
      gpu.device.queue.writeBuffer(studentBuffer.raw, 0, student);
      await gpu.idle();
      const time = await dispatch();
      milliseconds = i === 0 ? time : Math.min(milliseconds, time);
    }
    guard(gradient, vocabulary, rows.length, "gradient");
    guard(found, 1, rows.length, "value");
    if (memoryBuffer) {
      const written = await gpu.read(memoryBuffer, 0, memory.byteLength);
      const beyond = new Uint32Array(written).subarray(rows.length * kernel.memoryWords);
      if (beyond.some((word) => word !== POISON)) {
        throw new CheckFailure("it stores beyond the memory of its row", {
          hint: "$store(i, x) wants i below perEntry * row_vocabulary.",
        });
      }
    }
    return {
      values: [...found.slice(GUARDS, GUARDS + rows.length)],
      gradients: rows.map((_, r) => gradient.slice((r + GUARDS) * vocabulary, (r + GUARDS + 1) * vocabulary)),
      milliseconds,
    };
  } finally {
    buffers.forEach((b) => b.destroy());
  }
}

/** @throws {CheckFailure} if a guard row is not as it was */
function guard(data: Float32Array, width: number, rows: number, what: string): void {
  const words = new Uint32Array(data.buffer);
  for (let i = 0; i < words.length; i++) {
    const row = Math.floor(i / width) - GUARDS;
    if ((row >= 0 && row < rows) || words[i] === POISON) continue;
    throw new CheckFailure(
      `it writes outside of its row: entry ${
        i % width
      } of the ${what} of a row it was not given was overwritten with ${data[i]}`,
      {
        hint:
          "$value() and $gradient() return numbers; never write to student_logits or row_values yourself.",
      },
    );
  }
}
