/**
 * What the page and the worker of a tab say to each other.
 *
 * @module
 */
import type { RunEventBody } from "../distill/run/events.ts";

/** Files by name: what was picked, or the addresses of what lies on a server. */
export type Files = Readonly<Record<string, Blob | string>>;

/** What a run is to do. */
export interface TabOrder {
  /** Letters, digits and dashes. */
  readonly id: string;
  /** As it is written, with names of {@linkcode models} and {@linkcode datasets} in the place of paths. */
  readonly recipe: unknown;
  /** Changes to it, such as `train.steps=100`. */
  readonly sets?: readonly string[];
  /** A folder's files each, or one GGUF file. */
  readonly models: Readonly<Record<string, Files>>;
  /** One file each. */
  readonly datasets: Readonly<Record<string, Files>>;
  /** For about so many seconds, kernels are timed first that this device has not timed; none where it is absent. */
  readonly tuneSeconds?: number;
}

/** A run that the tab keeps. */
export interface KeptRun {
  readonly id: string;
  readonly state: "unfinished" | "succeeded";
  /** Steps that a checkpoint holds, and all of them. */
  readonly step: number;
  readonly steps: number;
  readonly recipe: unknown;
  readonly sets: readonly string[];
  /** Files that have to be picked again to go on, by the name of their model or dataset. */
  readonly wanted: Readonly<Record<string, readonly string[]>>;
}

/** A file that a run left. */
export interface LeftFile {
  /** Such as `adapter/adapter_config.json`. */
  readonly name: string;
  readonly content: Blob;
}

/** From the page. Each has a number, under which it is answered. */
export type Request =
  /** What it is, as `DeviceIdentity` has it. */
  | { readonly type: "device" }
  | { readonly type: "runs" }
  | { readonly type: "start"; readonly order: TabOrder }
  /** What was picked again, by the name of its model or dataset. */
  | { readonly type: "resume"; readonly id: string; readonly picked: Readonly<Record<string, Files>> }
  /** Save, then stop. */
  | { readonly type: "stop" }
  | { readonly type: "events"; readonly id: string }
  | { readonly type: "files"; readonly id: string }
  | { readonly type: "zip"; readonly id: string }
  | { readonly type: "remove"; readonly id: string };

/** An error in words. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
}

/** From the worker. */
export type Reply =
  | { readonly type: "event"; readonly id: string; readonly event: RunEventBody & { readonly time: string } }
  | { readonly type: "answer"; readonly to: number; readonly value?: unknown; readonly failure?: Failure };
