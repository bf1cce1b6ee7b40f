/**
 * The losses and adapters that come with Limbeck.
 *
 * @module
 */
import type { Plugin } from "../src/registry/contract.ts";
import { adapters } from "./adapters/mod.ts";
import crossEntropy from "./losses/cross_entropy.ts";
import forwardKl from "./losses/forward_kl.ts";
import reverseKl from "./losses/reverse_kl.ts";

/** Every built-in plugin. */
export const builtins: readonly Plugin[] = [crossEntropy, forwardKl, reverseKl, ...adapters];
