/**
 * What each dispatch of an optimiser step costs, in processor time of this process, and what the host spends on encoding the step:
 * `deno run -A bench/dispatches.ts stories260K`.
 *
 * Of use on software devices, where kernels run in the process's own threads. `bench/step.ts --profile` gives every kernel a pass of its own,
 * which costs more than a small kernel does; here those of one kind and size run many times over in one pass. Processor time does not see who
 * else is busy, as far as caches and clocks allow.
 *
 * @module
 */
import process from "node:process";
import type { PlannedDispatch } from "../src/tensor/plan.ts";
import { isCaseName, loadCase } from "./peers/case.ts";
import { caseTrainer } from "./step.ts";

/** A launch as it was encoded. */
interface Recorded {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly groups: readonly [number, number, number];
}

/** Runs of each list, of which the fastest counts, and dispatches that a list is made of at least. */
const REPEATS = 8;
const LEAST = 20;

/** Milliseconds that encoding took, and finishing, which is where wgpu validates; of the fastest step. */
interface HostTime {
  encoding: number;
  finishing: number;
  encoders: number;
}

/** Listens to all that is encoded on a device. */
function listen(device: GPUDevice) {
  const create = device.createCommandEncoder.bind(device);
  const recorded: Recorded[] = [];
  const host: HostTime = { encoding: 0, finishing: 0, encoders: 0 };
  let recording = false;
  device.createCommandEncoder = (descriptor) => {
    const began = performance.now();
    const encoder = create(descriptor);
    const [begin, finish] = [encoder.beginComputePass.bind(encoder), encoder.finish.bind(encoder)];
    encoder.finish = () => {
      const encoded = performance.now();
      const buffer = finish();
      host.encoding += encoded - began;
      host.finishing += performance.now() - encoded;
      host.encoders++;
      return buffer;
    };
    if (recording) encoder.beginComputePass = (options) => record(begin(options), recorded);
    return encoder;
  };
  return { create, recorded, host, record: (on: boolean) => recording = on };
}

function record(pass: GPUComputePassEncoder, recorded: Recorded[]): GPUComputePassEncoder {
  const set = pass.setPipeline.bind(pass);
  const bind = pass.setBindGroup.bind(pass) as (index: number, group: GPUBindGroup) => void;
  const dispatch = pass.dispatchWorkgroups.bind(pass);
  let pipeline: GPUComputePipeline;
  let group: GPUBindGroup;
  pass.setPipeline = (p) => set(pipeline = p);
  pass.setBindGroup =
    ((index: number, g: GPUBindGroup) => bind(index, group = g)) as typeof pass.setBindGroup;
  pass.dispatchWorkgroups = (x, y = 1, z = 1) => {
    recorded.push({ pipeline, group, groups: [x, y, z] });
    dispatch(x, y, z);
  };
  return pass;
}

const name = Deno.args.find((a) => !a.startsWith("--")) ?? "stories260K";
if (!isCaseName(name)) throw new Error(`there is no case ${name}`);
const stepCase = loadCase(name);
if (!stepCase) Deno.exit(0);
const { gpu, trainer, planned } = await caseTrainer(stepCase, { tiled: Deno.args.includes("--tiled") });
const heard = listen(gpu.device);
const step = async (i: number) => {
  await trainer.step(i, [stepCase.batch]);
  await trainer.collect();
};
await step(0);
heard.record(true);
await step(1);
heard.record(false);
const launches = [...heard.recorded];
const dispatches = ["microBatch", "update"].flatMap((block) => planned.plan.blocks.get(block)!.dispatches);
if (launches.length !== dispatches.length) throw new Error("the step runs other blocks than these");

const best: HostTime = { encoding: Infinity, finishing: Infinity, encoders: 0 };
for (let i = 2; i < 12; i++) {
  Object.assign(heard.host, { encoding: 0, finishing: 0, encoders: 0 });
  await step(i);
  if (heard.host.encoding + heard.host.finishing < best.encoding + best.finishing) {
    Object.assign(best, heard.host);
  }
}

/** Milliseconds of processor time, of the fastest of some runs in one pass. */
async function cost(list: readonly Recorded[]): Promise<number> {
  let fastest = Infinity;
  for (let i = 0; i < REPEATS; i++) {
    const encoder = heard.create();
    const pass = encoder.beginComputePass();
    for (const { pipeline, group, groups } of list) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...groups);
    }
    pass.end();
    const commands = encoder.finish();
    const before = process.cpuUsage();
    gpu.device.queue.submit([commands]);
    await gpu.device.queue.onSubmittedWorkDone();
    const { user, system } = process.cpuUsage(before);
    fastest = Math.min(fastest, (user + system) / 1000);
  }
  return fastest;
}

const empty = await cost([]);
const whole = await cost(launches) - empty;
const started = await cost(launches.map((l) => ({ ...l, groups: [1, 1, 1] as const }))) - empty;
console.log(
  `${name} on ${gpu.description.name}: ${launches.length} dispatches, ${
    whole.toFixed(1)
  } ms of processor time in one pass, ` +
    `${started.toFixed(1)} ms with one workgroup each.`,
);
console.log(
  `Host: ${best.encoding.toFixed(2)} ms to encode, ${
    best.finishing.toFixed(2)
  } ms to finish ${best.encoders} command buffers.\n`,
);

const kinds = new Map<string, { dispatch: PlannedDispatch; list: Recorded[] }>();
dispatches.forEach((dispatch, i) => {
  const key = `${dispatch.kernel} ${dispatch.groups} ${dispatch.flops}`;
  const kind = kinds.get(key) ?? { dispatch, list: [] };
  kind.list.push(launches[i]!);
  kinds.set(key, kind);
});
const lines: { total: number; cells: string[] }[] = [];
for (const { dispatch, list } of kinds.values()) {
  const times = Math.ceil(LEAST / list.length);
  const each = (await cost(Array.from({ length: times }, () => list).flat()) - empty) / (times * list.length);
  const workgroups = dispatch.groups.reduce((a, b) => a * b);
  const total = each * list.length;
  lines.push({
    total,
    cells: [
      dispatch.kernel,
      String(list.length),
      String(workgroups),
      (1000 * each).toFixed(0),
      (1e6 * each / workgroups).toFixed(0),
      total.toFixed(2),
      (dispatch.flops / each / 1e6).toFixed(1),
    ],
  });
}
const sum = lines.reduce((a, l) => a + l.total, 0);
console.log("| kernel | launches | workgroups | us each | ns a workgroup | ms in all | share | GFLOP/s |");
console.log("| --- | --- | --- | --- | --- | --- | --- | --- |");
for (const { total, cells } of lines.sort((a, b) => b.total - a.total)) {
  console.log(`| ${cells.toSpliced(6, 0, `${(100 * total / sum).toFixed(1)} %`).join(" | ")} |`);
}
Deno.exit(0);
