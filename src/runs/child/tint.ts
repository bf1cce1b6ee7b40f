/**
 * Compiles kernels with Tint in a process of its own, which runs none of the code that made them.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { fromFileUrl } from "@std/path";
import { LimbeckError } from "../../base/errors.ts";
import type { KernelText } from "../../gpu/description.ts";
import { GPU_PROVIDERS } from "../../gpu/provider.ts";
import { Child, howItEnded } from "./host.ts";

/** Dawn, the WebGPU of Chrome, as a package for programs outside of a browser; `provider/dawn.lock` holds its integrity. */
export const DAWN = GPU_PROVIDERS.dawn.package!;

/** Longest time of all kernels together, and of fetching Dawn. */
const PATIENCE_SECONDS = 600;

/** What is to be compiled, and with what. */
export interface TintOrder {
  readonly dawn: string;
  readonly kernels: readonly KernelText[];
}

/** What Tint says. */
export type TintReport =
  | { readonly unavailable: string }
  | {
    readonly adapter: string;
    /** The compiler's message by the kernel's label. */
    readonly refused: Readonly<Record<string, string>>;
    /** The same for kernels accepted only because the rule on uniform subgroup operations is off. */
    readonly unproven: Readonly<Record<string, string>>;
  };

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
  const here = (name: string) => fromFileUrl(new URL(name, import.meta.url));
  const args = [
    "run",
    "--quiet",
    "--no-prompt",
    "--no-config",
    `--lock=${here("provider/dawn.lock")}`,
    "--frozen",
    ...(options.fetch ? [] : ["--cached-only"]),
    "--allow-ffi",
    "--allow-read",
    "--allow-env",
    "--allow-sys",
    here("inside/tint_entry.ts"),
  ];
  const order: TintOrder = { dawn: DAWN, kernels };
  const child = new Child({ command: { args, env: { NO_COLOR: "1" } }, order });
  child.expect(PATIENCE_SECONDS);
  const report = await child.answer((end) => new LimbeckError(`the process with Tint ${howItEnded(end)}`));
  return report as TintReport;
}
