/**
 * The entry of a process that compiles kernels with Tint, the WGSL compiler of Dawn and Chrome, on Dawn's backend that runs nothing and so
 * needs no driver.
 *
 * Dawn is a native library of 130 MB with a copy for every platform, fetched when it is first wanted, and a crash in it ends this process
 * alone.
 *
 * @module
 */
import type { KernelFamily, KernelText } from "../../../gpu/description.ts";
import { type Gpu, openGpu } from "../../../gpu/device.ts";
import { ENABLE_SUBGROUPS } from "../../../gpu/preamble.ts";
import { type DawnModule, openDawn } from "../../../gpu/provider.ts";
import { serve } from "./port.ts";
import type { TintOrder, TintReport } from "../tint.ts";

async function loadDawn(name: string): Promise<DawnModule | { unavailable: string }> {
  try {
    // Not a literal: type checking this file would fetch the library.
    return await import(name);
  } catch (error) {
    return { unavailable: `${name} cannot be loaded: ${(error as Error).message}` };
  }
}

async function refusal(gpu: Gpu, { label, wgsl }: KernelText): Promise<string | undefined> {
  try {
    await gpu.pipeline(label, wgsl);
    gpu.check();
  } catch (error) {
    return (error as Error).message;
  }
}

async function compileAll(
  dawn: DawnModule,
  kernels: readonly KernelText[],
): Promise<TintReport> {
  const open = (preamble?: string) => openGpu({ gpu: openDawn(dawn, ["backend=null"]), preamble });
  // Without the line that enables subgroups, Tint refuses their use: the tiled kernels must do without.
  const gpus: Record<KernelFamily, Gpu> = { tiled: await open(""), subgroup8: await open() };
  const strict = await open(ENABLE_SUBGROUPS);
  const refused: Record<string, string> = {};
  const unproven: Record<string, string> = {};
  for (const kernel of kernels) {
    // What is accepted with the rule on is accepted with it off.
    const doubt = kernel.family === "subgroup8" ? await refusal(strict, kernel) : undefined;
    const proven = kernel.family === "subgroup8" && doubt === undefined;
    const message = proven ? undefined : await refusal(gpus[kernel.family], kernel);
    if (message) refused[kernel.label] = message;
    else if (doubt) unproven[kernel.label] = doubt;
  }
  return { adapter: strict.description.name, refused, unproven };
}

await serve<TintOrder>(async ({ dawn: name, kernels }, port) => {
  const dawn = await loadDawn(name);
  port.say({ type: "answer", value: "unavailable" in dawn ? dawn : await compileAll(dawn, kernels) });
});
