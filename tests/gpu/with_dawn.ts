/**
 * Loaded before a program's own modules (`--preload`), has its process work with Dawn.
 *
 * @module
 */
import { GPU_PROVIDERS, useProvider } from "../../src/gpu/provider.ts";

// Not a literal: type checking would fetch the library.
useProvider("dawn", () => import(GPU_PROVIDERS.dawn.package!));
