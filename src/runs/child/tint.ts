/**
 * Compiles kernels with Tint, the WGSL compiler of Dawn and Chrome, on Dawn's backend that runs nothing and so needs no driver.
 *
 * A program of its own: Dawn is a native library of 130 MB with a copy for every platform, fetched when this is first run, and a
 * crash in it ends this process alone. Reads `{label, family, wgsl}[]` as JSON from standard input; prints the reason where Dawn
 * cannot be loaded, else the message of each kernel that is refused.
 *
 * @module
 */
import type { KernelFamily, KernelText } from "../../gpu/description.ts";
import { DAWN } from "./dawn.ts";
import { type Gpu, openGpu } from "../../gpu/device.ts";
import { ENABLE_SUBGROUPS } from "../../gpu/preamble.ts";

/** What is printed, as JSON. */
export type TintReport =
  | { readonly unavailable: string }
  | {
    readonly adapter: string;
    /** The compiler's message by the kernel's label. */
    readonly refused: Readonly<Record<string, string>>;
    /** The same for kernels accepted only because the rule on uniform subgroup operations is off. */
    readonly unproven: Readonly<Record<string, string>>;
  };

async function loadDawn(): Promise<{ create(options: string[]): GPU } | { unavailable: string }> {
  try {
    // Not a literal: type checking this file would fetch the library.
    return await import(DAWN);
  } catch (error) {
    return { unavailable: `${DAWN} cannot be loaded: ${(error as Error).message}` };
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

async function compileAll(dawn: { create(options: string[]): GPU }): Promise<TintReport> {
  const kernels: KernelText[] = JSON.parse(await new Response(Deno.stdin.readable).text());
  const open = (preamble?: string) => openGpu({ gpu: dawn.create(["backend=null"]), preamble });
  // Without the line that enables subgroups, Tint refuses their use: the tiled kernels must do without.
  const gpus: Record<KernelFamily, Gpu> = { tiled: await open(""), subgroup8: await open() };
  const strict = await open(ENABLE_SUBGROUPS);
  const refused: Record<string, string> = {};
  const unproven: Record<string, string> = {};
  for (const kernel of kernels) {
    const message = await refusal(gpus[kernel.family], kernel);
    const doubt = kernel.family === "subgroup8" ? await refusal(strict, kernel) : undefined;
    if (message) refused[kernel.label] = message;
    else if (doubt) unproven[kernel.label] = doubt;
  }
  return { adapter: strict.description.name, refused, unproven };
}

if (import.meta.main) {
  const dawn = await loadDawn();
  const report = "unavailable" in dawn ? dawn : await compileAll(dawn);
  await new Response(JSON.stringify(report)).body!.pipeTo(Deno.stdout.writable);
  // Dawn keeps the process alive otherwise.
  Deno.exit(0);
}
