/**
 * `limbeck doctor`
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold, green, red, yellow } from "@std/fmt/colors";
import { PLUGIN_FLAGS } from "../setup/plugin_sources.ts";
import { selfTest } from "../../distill/run/self_test.ts";
import { DeviceError } from "../../base/errors.ts";
import { freeBytes } from "../../formats/files.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import { processProvider } from "../../gpu/provider.ts";
import type { Command, Invocation } from "../command.ts";
import { PROVIDER_FLAG } from "../provider_flag.ts";
import { DATA_FOLDER } from "../../runs/store/data_folder.ts";
import { readTuned } from "../../runs/store/tuned_files.ts";
import { choicesOf, deviceIdentity, peakRates, type TunedChoice } from "../../tune/tuned.ts";
import { DATA_FLAG } from "../data_flag.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { peakLine, refusedLines, tunedLines } from "../terminal/tuned_table.ts";
import { examineModels } from "./doctor_models.ts";
import { bytes } from "../../base/units.ts";

/** One finding. */
interface Check {
  name: string;
  status: "ok" | "warning" | "failed";
  /** What was found. */
  found: string;
  /** What to do, where something is to be done. */
  advice?: string;
}

/** Below this, checkpoints and models soon fill the disk. */
const LITTLE_DISK = 2 * 2 ** 30;
const LITTLE_MEMORY = 2 ** 30;

/** Looks at the machine. */
export const doctor: Command = {
  name: "doctor",
  usage: "",
  positional: [0, 0],
  loadsPlugins: true,
  opensGpu: true,
  details:
    "Shows the GPU adapter, its limits and features, what it chose among kernels, memory and disk, and compares a product and its gradients with exact ones. " +
    "With --models it says of each model folder, adapter and GGUF file, two folders deep, what it is, whether it loads, and what is missing where it does not.",
  flags: {
    models: {
      value: "FOLDER",
      many: true,
      help: "Look at the models in a folder instead; hf: is the cache of the hub's models",
    },
    ...DATA_FLAG,
    ...PLUGIN_FLAGS,
    ...PROVIDER_FLAG,
    "no-setup": { help: "Do not install a driver where there is none" },
  },
  examples: ["limbeck doctor", "limbeck doctor --json", "limbeck doctor --models ./models --models hf:"],
  async run(invocation: Invocation): Promise<number> {
    const { flags, out } = invocation;
    if (flags.given("models")) return await examineModels(flags.list("models"), invocation);
    const checks: Check[] = [
      { name: "Deno", status: "ok", found: `${Deno.version.deno} on ${Deno.build.os} ${Deno.build.arch}` },
      memoryCheck(),
      await diskCheck(),
    ];
    let gpu: Gpu | undefined;
    let tuned: TunedChoice[] = [];
    try {
      if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
      gpu = await openGpu();
      checks.push(...adapterChecks(gpu), await computationCheck(gpu));
      const kept = await readTuned(flags.text("data") ?? DATA_FOLDER, (message) => out.warn(message));
      tuned = choicesOf(kept, deviceIdentity(gpu));
      checks.push(kernelsCheck(tuned));
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      checks.push({ name: "GPU", status: "failed", found: error.message, advice: error.hint });
    } finally {
      gpu?.destroy();
    }
    const failed = checks.some((check) => check.status === "failed");
    out.value({ ok: !failed, checks, kernels: tuned, peak: peakRates(tuned) ?? null });
    for (const check of checks) print(check, out);
    if (tuned.length > 0) {
      out.line();
      for (const line of tunedLines(tuned)) out.line(line);
      out.line();
    }
    out.line(failed ? red("Limbeck cannot work here yet.") : green("Limbeck can work here."));
    return failed ? 4 : 0;
  },
};

function print({ name, status, found, advice }: Check, out: Invocation["out"]): void {
  const mark = { ok: green("ok"), warning: yellow("!!"), failed: red("no") }[status];
  const [first, ...rest] = found.split("\n");
  out.line(`${mark}  ${bold(name.padEnd(12))} ${first}`);
  for (const line of [...rest, ...(advice ? [`-> ${advice}`] : [])]) out.line(`${" ".repeat(17)}${line}`);
}

function memoryCheck(): Check {
  try {
    const { available, total } = Deno.systemMemoryInfo();
    const found = `${bytes(available)} free of ${bytes(total)}`;
    if (available >= LITTLE_MEMORY) return { name: "Memory", status: "ok", found };
    return { name: "Memory", status: "warning", found, advice: "Close other programs, or use small models." };
  } catch (error) {
    return { name: "Memory", status: "warning", found: `unknown: ${(error as Error).message}` };
  }
}

async function diskCheck(): Promise<Check> {
  const free = await freeBytes(Deno.cwd());
  if (free === undefined) return { name: "Disk", status: "warning", found: "free space is unknown here" };
  const found = `${bytes(free)} free in ${Deno.cwd()}`;
  if (free >= LITTLE_DISK) return { name: "Disk", status: "ok", found };
  return {
    name: "Disk",
    status: "warning",
    found,
    advice: "Free some space: a run keeps checkpoints and writes whole models.",
  };
}

function adapterChecks(gpu: Gpu): Check[] {
  const { description, adapter, features } = gpu;
  const { info } = adapter;
  const driver = [info.vendor, info.architecture, info.description].filter(Boolean).join(", ");
  const software = info.isFallbackAdapter;
  const provider = processProvider();
  const products = (description.subgroupMatrices ?? []).map((
    { m, n, k, componentType, resultComponentType },
  ) => `${m} x ${n} x ${k} ${componentType} to ${resultComponentType}`);
  const kernels = description.subgroupSize > 0
    ? `${description.family}, subgroups of ${description.subgroupSize}`
    : description.family;
  return [
    {
      name: "GPU",
      status: software ? "warning" : "ok",
      found: `${description.name}\n${driver}\nthrough ${provider.title}${
        provider.package ? ` (${provider.package})` : ""
      }\nkernels ${kernels}`,
      ...(software
        ? {
          advice:
            "This is a CPU that plays a GPU: correct but slow. Install your GPU's Vulkan driver if you have one.",
        }
        : {}),
    },
    {
      name: "Limits",
      status: description.maxStorageBuffers >= 8 ? "ok" : "failed",
      found: [
        `buffer ${bytes(description.maxBufferSize)}, binding ${bytes(description.maxBindingSize)}`,
        `${description.maxStorageBuffers} storage buffers a stage, ${description.maxInvocations} invocations a workgroup`,
      ].join("\n"),
    },
    {
      name: "Features",
      status: "ok",
      found: [
        [...features].sort().join(", ") || "none beyond the standard",
        ...(products.length > 0 ? [`matrices of a subgroup: ${products.join("; ")}`] : []),
      ].join("\n"),
    },
  ];
}

/** What the device chose among kernels. */
function kernelsCheck(tuned: readonly TunedChoice[]): Check {
  const others = tuned.filter(({ kernel, first }) => kernel !== first).length;
  return {
    name: "Kernels",
    status: "ok",
    ...(tuned.length === 0
      ? {
        found: "those that stand first; none were timed on this device",
        advice: "`limbeck tune RECIPE` times those of a recipe's runs.",
      }
      : {
        found: [
          `choices made on this device: ${tuned.length}, ${others} of them another kernel than stands first`,
          ...[peakLine(tuned) ?? [], refusedLines(tuned)].flat(),
        ].join("\n"),
      }),
  };
}

async function computationCheck(gpu: Gpu): Promise<Check> {
  try {
    const results = await selfTest(gpu);
    gpu.check();
    const found = results.map(({ name, worst }) => `${name} off by ${worst.toExponential(1)}`).join(", ");
    if (results.every((result) => result.passed)) return { name: "Self-test", status: "ok", found };
    return {
      name: "Self-test",
      status: "failed",
      found,
      advice:
        "This driver computes wrongly. Update it; if that does not help, please report the adapter's name.",
    };
  } catch (error) {
    return {
      name: "Self-test",
      status: "failed",
      found: (error as Error).message,
      advice: "Update the GPU's driver.",
    };
  }
}
