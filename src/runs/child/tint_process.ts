/**
 * Compiles kernels with Tint in a process of its own, which runs none of the code that made them.
 *
 * @module
 */
import { LimbeckError } from "../../base/errors.ts";
import type { KernelText } from "../../gpu/description.ts";
import type { TintReport } from "./tint.ts";

/**
 * What Tint says of kernels.
 *
 * @param options.fetch Whether Dawn may be fetched where it is not installed
 * @throws {LimbeckError} if the process fails
 */
export async function compileWithTint(
  kernels: readonly KernelText[],
  options: { readonly fetch: boolean },
): Promise<TintReport> {
  const here = (name: string) => decodeURIComponent(new URL(name, import.meta.url).pathname);
  const process = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-config",
      `--lock=${here("tint.lock")}`,
      "--frozen",
      ...(options.fetch ? [] : ["--cached-only"]),
      "--allow-ffi",
      "--allow-read",
      "--allow-env",
      "--allow-sys",
      here("tint.ts"),
    ],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  // Where Dawn is not there, the process ends before it reads; what it says tells why.
  await new Response(JSON.stringify(kernels)).body!.pipeTo(process.stdin).catch(() => {});
  const { success, stdout, stderr } = await process.output();
  if (!success) {
    throw new LimbeckError(`the process with Tint failed:\n${new TextDecoder().decode(stderr).trim()}`);
  }
  return JSON.parse(new TextDecoder().decode(stdout));
}
