/**
 * What every kernel of a training step moves and computes, by the plan alone: `deno run -A bench/roofline.ts [CASE...]`, where a case is
 * `stories260K`, `stories15M` or `1.5B-0.5B`, a teacher and a student of those sizes with 2,048 tokens in a micro-batch.
 *
 * For each kernel the table has the bytes that it must move (each operand once), those that its tiling moves with all caches left out, and
 * operations for each byte of the latter; then the variants that there were for each choice. No device is needed: a hardware GPU is planned
 * for, or with `--software` a software driver. `--limits 16` plans for 16 KiB of workgroup memory, the least that WebGPU guarantees.
 *
 * `--count` opens the device at hand and runs the step with counters at every access, to compare what the plan says with what is moved.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { builtins } from "../plugins/mod.ts";
import { Model } from "../src/distill/inputs/models.ts";
import { planTraining } from "../src/distill/program/plan_training.ts";
import { parseRecipe } from "../src/distill/recipe/parse.ts";
import { setUp } from "../src/distill/run/set_up.ts";
import { DEFAULT_DEVICE, type DeviceDescription } from "../src/gpu/description.ts";
import { openGpu } from "../src/gpu/device.ts";
import { Registry } from "../src/registry/registry.ts";
import type { Executable } from "../src/tensor/executable.ts";
import { type Plan, plan, type PlannedDispatch, Program } from "../src/tensor/plan.ts";
import type { ChosenKernel } from "../src/tensor/variants.ts";
import { countAccesses, type Counted } from "./counted.ts";
import { SHAPES, writeShape } from "./planned_models.ts";

interface Case {
  readonly teacher: keyof typeof SHAPES;
  readonly student: keyof typeof SHAPES;
  /** Layers of the teacher that make the student, where it is made of it. */
  readonly layers?: readonly number[];
  readonly tokens: number;
  readonly contextLength: number;
  readonly dtype: "F32" | "BF16";
}

const CASES: Readonly<Record<string, Case>> = {
  "stories260K": {
    ...{ teacher: "stories260K", student: "stories260K", layers: [0, 1, 2, 4] },
    ...{ tokens: 1024, contextLength: 256, dtype: "F32" },
  },
  "stories15M": {
    ...{ teacher: "stories15M", student: "stories15M", layers: [0, 1, 3, 5] },
    ...{ tokens: 256, contextLength: 256, dtype: "F32" },
  },
  "1.5B-0.5B": {
    ...{ teacher: "1.5B", student: "0.5B", tokens: 2048, contextLength: 2048, dtype: "BF16" },
  },
};

/** Plans the training step of a case: cross-entropy and forward KL, LoRA of rank 8 on all linear layers. */
export async function planCase(name: string, device: DeviceDescription): Promise<Plan> {
  const { teacher, student, layers, tokens, contextLength, dtype } = CASES[name]!;
  const folder = await Deno.makeTempDir();
  const open: Model[] = [];
  try {
    const paths = [join(folder, "teacher"), join(folder, "student")] as const;
    await writeShape(paths[0], SHAPES[teacher], dtype);
    await writeShape(paths[1], SHAPES[student], dtype);
    const recipe = parseRecipe({
      teacher: { model: paths[0] },
      student: layers ? { model: "teacher", layers: [...layers] } : { model: paths[1] },
      data: { train: "none.jsonl", contextLength },
      objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
      adapter: { rank: 8, alpha: 16 },
      train: { steps: 10, tokensPerMicroBatch: tokens, clip: 1 },
    });
    const model = async (path: string, category: string, kept?: readonly number[]) => {
      const opened = await Model.open(path, { category, ...(kept ? { layers: kept } : {}) });
      open.push(opened);
      return opened;
    };
    const models = {
      teacher: await model(paths[0], "teacher weights"),
      student: await model(paths[layers ? 0 : 1], "student weights", layers),
    };
    return planTraining(setUp({ recipe, ...models }, new Registry().addAll(builtins)), device).plan;
  } finally {
    open.forEach((m) => m.close());
    await Deno.remove(folder, { recursive: true });
  }
}

/** One kernel of a plan: all its dispatches together. */
export interface KernelBytes {
  readonly kernel: string;
  readonly dispatches: number;
  readonly flops: number;
  /** Bytes of all bindings, each once. */
  readonly needed: number;
  /** Bytes that the tiling moves. */
  readonly moved: number;
  /** Workgroups of a dispatch: the fewest and the most. */
  readonly groups: readonly [number, number];
}

/** The kernels among some dispatches; those that move most first. */
export function byKernel(dispatches: readonly PlannedDispatch[]): KernelBytes[] {
  const kernels = Map.groupBy(dispatches, (d) => d.kernel);
  const sum = (of: readonly PlannedDispatch[], get: (d: PlannedDispatch) => number) =>
    of.reduce((total, d) => total + get(d), 0);
  return [...kernels].map(([kernel, of]) => {
    const groups = of.map((d) => d.groups.reduce((a, b) => a * b));
    return {
      kernel,
      dispatches: of.length,
      flops: sum(of, (d) => d.flops),
      needed: sum(of, (d) => d.bytes),
      moved: sum(of, (d) => d.traffic),
      groups: [Math.min(...groups), Math.max(...groups)] as const,
    };
  }).sort((a, b) => b.moved - a.moved);
}

/** One variant of a choice, as its trial is planned. */
export interface VariantBytes extends KernelBytes {
  readonly name: string;
  readonly cost: number;
}

/** The variants of a choice, in the order in which they would be tried. */
export function variantsOf(choice: ChosenKernel, device: DeviceDescription): VariantBytes[] {
  return choice.candidates.map(({ name, cost }) => {
    const program = new Program();
    choice.trial(program.block("trial"));
    const planned = plan(program, { ...device, kernels: { ...device.kernels, [choice.key]: name } });
    const { dispatches } = planned.blocks.get("trial")!;
    // What comes before the kernel in its trial is not the variant's; what sums its results is.
    const most = Math.max(...dispatches.map((d) => d.flops));
    const own = dispatches.slice(dispatches.findIndex((d) => d.flops === most));
    const [main, ...rest] = byKernel(own).sort((a, b) => b.flops - a.flops);
    return {
      ...main!,
      moved: rest.reduce((sum, k) => sum + k.moved, main!.moved),
      ...{ name, cost },
    };
  });
}

const cells = (...values: readonly (string | number)[]) => console.log(`| ${values.join(" | ")} |`);
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e6 ? 3 : 1);
const times = (a: number, b: number) => (b === 0 ? "" : (a / b).toFixed(2));
const range = ([least, most]: readonly [number, number]) =>
  least === most ? `${least}` : `${least} to ${most}`;

function printKernels(kernels: readonly KernelBytes[], counted?: ReadonlyMap<string, number>): void {
  const more = counted ? ["counted / moved"] : [];
  cells(
    "kernel",
    "dispatches",
    "MFLOP",
    "MB needed",
    "MB moved",
    "moved / needed",
    "FLOP/byte",
    "workgroups",
    ...more,
  );
  cells(...Array.from({ length: 8 + more.length }, () => "---"));
  for (const k of kernels) {
    cells(
      k.kernel,
      k.dispatches,
      (k.flops / 1e6).toFixed(2),
      megabytes(k.needed),
      megabytes(k.moved),
      times(k.moved, k.needed),
      times(k.flops, k.moved),
      range(k.groups),
      ...(counted ? [times(counted.get(k.kernel) ?? 0, k.moved)] : []),
    );
  }
}

function printVariants(planned: Plan): void {
  cells(
    "choice",
    "variant",
    "MB moved",
    "moved / needed",
    "FLOP/byte",
    "workgroups",
    "model's time, relative",
  );
  cells(...Array.from({ length: 7 }, () => "---"));
  for (const choice of planned.kernels.values()) {
    const variants = variantsOf(choice, planned.device);
    const best = Math.min(...variants.map((v) => v.cost));
    variants.forEach((v, i) =>
      cells(
        i === 0 ? choice.key : "",
        v.name === choice.chosen ? `**${v.name}**` : v.name,
        megabytes(v.moved),
        times(v.moved, v.needed),
        times(v.flops, v.moved),
        range(v.groups),
        times(v.cost, best),
      )
    );
  }
}

/** Integers that let every row count: one causal sample, labels that are tokens. */
function fill(executable: Executable): void {
  for (const { name, kind, shape, dtype } of executable.plan.storages.values()) {
    if (kind !== "input" || dtype !== "i32") continue;
    const end = /\bend$/.test(name);
    const counting = /positions?$/.test(name);
    const label = /label|tokenMasks/.test(name);
    const value = (i: number) => end ? i + 1 : counting ? i : label ? 1 : 0;
    executable.write(name, Int32Array.from({ length: shape[0]! }, (_, i) => value(i)));
  }
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { boolean: ["count", "software", "tiled"], string: ["limits"] });
  const names = flags._.length > 0 ? flags._.map(String) : Object.keys(CASES);
  const unknown = names.find((name: string) => !(name in CASES));
  if (unknown) throw new Error(`there is no case ${unknown}; there are ${Object.keys(CASES).join(", ")}`);
  const hardware: DeviceDescription = {
    ...DEFAULT_DEVICE,
    name: "a hardware GPU",
    maxBufferSize: 2 ** 32,
    maxBindingSize: 2 ** 31 - 4,
    maxInvocations: 1024,
    maxWorkgroupMemory: 1024 * Number(flags.limits ?? 32),
  };
  const gpu = flags.count ? await openGpu(flags.tiled ? { describe: { family: "tiled" } } : {}) : undefined;
  const software = { ...hardware, name: "a software driver", family: "subgroup8", subgroupSize: 8 } as const;
  const device = gpu?.description ?? (flags.software ? software : hardware);
  for (const name of names) {
    const planned = await planCase(name, device);
    for (const [block, { dispatches }] of planned.blocks) {
      console.log(
        `\n## ${name}, ${block}, ${dispatches.length} dispatches, planned for ${device.name}, ${device.family} kernels\n`,
      );
      const counted: Counted[] | undefined = gpu && await countAccesses(gpu, planned, block, fill);
      const bytes = counted && new Map<string, number>();
      counted?.forEach((c) => bytes!.set(c.dispatch.kernel, (bytes!.get(c.dispatch.kernel) ?? 0) + c.bytes));
      printKernels(byKernel(dispatches), bytes);
    }
    console.log(`\n## ${name}, variants; what is taken where nothing was measured stands first\n`);
    printVariants(planned);
  }
  gpu?.destroy();
}

if (import.meta.main) await main();
