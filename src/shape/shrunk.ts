/**
 * A model made smaller: what was asked for, and what came of it.
 *
 * @module
 */
import type { DataWarning } from "../distill/inputs/data_warnings.ts";
import type { CalibrationOptions } from "./depth/calibration.ts";
import type { DepthFindings } from "./depth/depth_search.ts";
import type { MeasuredSearch } from "./depth/measured_search.ts";

/** What is asked for. */
export interface ShrinkOptions extends MeasuredSearch {
  /** Folder or GGUF file. */
  readonly model: string;
  /** Calibration samples, or questions where the metric is `accuracy`. */
  readonly data: Omit<CalibrationOptions, "questions">;
  /** Where the smaller model goes. */
  readonly output?: string;
  /** Where its shape goes. */
  readonly shape?: string;
}

/** What came of it. */
export interface Shrunk {
  readonly model: {
    readonly path: string;
    readonly identity: string;
    readonly layers: number;
    readonly parameters: number;
  };
  /** Of the kept layers with everything that is not a layer. */
  readonly parameters: number;
  readonly data: {
    readonly files: readonly string[];
    readonly samples: number;
    /** Supervised tokens; of questions those of all choices. */
    readonly tokens: number;
    readonly questions?: number;
  };
  readonly findings: DepthFindings;
  readonly cache: { readonly path: string; readonly reused: number };
  readonly warnings: readonly DataWarning[];
}
