/**
 * Runs the kernel of a loss over groups, every output poisoned.
 *
 * @module
 */
import { FIRST_UNIFORM, inOneGroup } from "../../gpu/bindings.ts";
import { BUFFER_USAGE } from "../../gpu/buffer_usage.ts";
import type { Gpu, GpuBuffer } from "../../gpu/device.ts";
import { compileGroupLoss, type ResolvedGroupLoss } from "../../losses/compile_group.ts";
import { APART, type ReferenceGroup } from "../../losses/group_contract.ts";
import { StepScalars } from "../../tensor/graph.ts";
import { grid } from "../../tensor/op.ts";

/** A group of one row of either vocabulary. */
export type TestGroup =
  & Pick<
    ReferenceGroup,
    "student" | "teacher" | "studentScale" | "teacherScale" | "label" | "isApart"
  >
  & {
    readonly name: string;
  };

/** What a kernel wrote of each group. */
export interface GroupOutcome {
  readonly values: Float32Array;
  readonly slopes: Float32Array;
  readonly gradients: readonly Float32Array[];
}

/** The tokens of two vocabularies that stand for the same, both ways, -1 where there is none. */
function matchBothWays(
  teacherOf: ArrayLike<number>,
  teacherVocabulary: number,
): Int32Array<ArrayBuffer> {
  const match = new Int32Array(teacherOf.length + teacherVocabulary).fill(-1);
  for (let v = 0; v < teacherOf.length; v++) {
    match[v] = teacherOf[v]!;
    if (teacherOf[v]! >= 0) match[teacherOf.length + teacherOf[v]!] = v;
  }
  return match;
}

/**
 * Dispatches a loss over groups; the last row is masked and must come out as zeros.
 *
 * @param edit May plant a mistake in the source
 */
export async function runGroupKernel(
  gpu: Gpu,
  term: ResolvedGroupLoss,
  groups: readonly TestGroup[],
  teacherOf: Int32Array,
  edit: (wgsl: string) => string = (wgsl) => wgsl,
): Promise<GroupOutcome> {
  const [vocabulary, teacherVocabulary] = [groups[0]!.student.length, groups[0]!.teacher.length];
  const count = groups.length + 1;
  const shape = { vocabulary, teacherVocabulary, matched: teacherOf.filter((w) => w >= 0).length };
  const kernel = compileGroupLoss(term, shape, gpu.description);
  const flat = (width: number, row: (g: TestGroup) => Float64Array) => {
    const all = new Float32Array(count * width).fill(NaN);
    groups.forEach((g, r) => all.set(row(g), r * width));
    return all;
  };
  const scalars = new StepScalars();
  const words = Uint32Array.from(
    kernel.size(count, (name) => scalars.get(name)),
    (w) => typeof w === "number" ? w : "index" in w ? w.index : 0,
  );
  const step = new Float32Array(StepScalars.capacity);
  step[scalars.get(`${term.name}.weight`).index] = term.weight;
  step[scalars.get(`${term.name}.temperature`).index] = term.temperature;
  const buffers: GpuBuffer[] = [];
  const make = (label: string, data: Float32Array | Int32Array | Uint32Array, uniform = false) => {
    const usage = uniform ? BUFFER_USAGE.uniform : BUFFER_USAGE.storage;
    const buffer = gpu.createBuffer(Math.ceil(data.byteLength / 16) * 16, usage, label);
    gpu.device.queue.writeBuffer(buffer.raw, 0, data as Float32Array<ArrayBuffer>);
    buffers.push(buffer);
    return buffer;
  };
  try {
    const labels = new Int32Array(count);
    groups.forEach(({ label = 0, isApart }, r) => labels[r] = label | (isApart ? APART : 0));
    labels[groups.length] = -100;
    const student = make("student", flat(vocabulary, (g) => g.student));
    const values = make("values", new Float32Array(2 * count).fill(NaN));
    const storage = [
      make("labels", labels),
      make("student scales", Float32Array.of(...groups.map((g) => g.studentScale), NaN)),
      make("teacher scales", Float32Array.of(...groups.map((g) => g.teacherScale), NaN)),
      ...(term.loss.needsMatch ? [make("match", matchBothWays(teacherOf, teacherVocabulary))] : []),
      make("teacher", flat(teacherVocabulary, (g) => g.teacher)),
      ...[student, values],
      ...(kernel.memoryWords > 0
        ? [make("memory", new Float32Array(count * kernel.memoryWords).fill(NaN))]
        : []),
    ];
    const uniforms = [make("size", words, true), make("step", step, true)];
    // As programs have it, so that a device has one text for both: uniforms in the same group, rows of floats writable where that may be.
    const integers = new Set(term.loss.needsMatch ? [0, 3] : [0]);
    const floats = storage.keys().filter((i) => !integers.has(i));
    const pipeline = await gpu.pipeline(
      kernel.label,
      inOneGroup(edit(kernel.wgsl)),
      new Set(gpu.software ? floats : []),
    );
    const entries = (list: readonly GpuBuffer[], first: number) =>
      list.map((b, i) => ({ binding: first + i, resource: { buffer: b.raw } }));
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline.raw);
    pass.setBindGroup(
      0,
      gpu.device.createBindGroup({
        layout: pipeline.layouts[0]!,
        entries: [...entries(storage, 0), ...entries(uniforms, FIRST_UNIFORM)],
      }),
    );
    pass.dispatchWorkgroups(...grid(kernel.groups(count), gpu.description));
    pass.end();
    gpu.device.queue.submit([encoder.finish()]);
    await gpu.idle();
    const gradient = new Float32Array(await gpu.read(student, 0, 4 * count * vocabulary));
    const found = new Float32Array(await gpu.read(values, 0, 8 * count));
    gpu.check();
    return {
      values: found.slice(0, count),
      slopes: found.slice(count),
      gradients: Array.from(
        { length: count },
        (_, r) => gradient.slice(r * vocabulary, (r + 1) * vocabulary),
      ),
    };
  } finally {
    buffers.forEach((b) => b.destroy());
  }
}
