/**
 * A model made smaller: what was asked for, and what came of it.
 *
 * @module
 */
import type { DataWarning } from "../distill/inputs/data_warnings.ts";
import type { CalibrationOptions } from "./depth/calibration.ts";
import type { DepthFindings, DepthGoal } from "./depth/depth_search.ts";
import type { MeasuredSearch } from "./depth/measured_search.ts";
import type { WidthFindings, WidthGoal } from "./width/measured_width.ts";

/** What is asked for. */
export interface ShrinkOptions extends Omit<MeasuredSearch, "goal"> {
  /** Layers that stay; all when absent. */
  readonly goal?: DepthGoal;
  /** How much of the width of those stays; all when absent. */
  readonly width?: WidthGoal;
  /** Told what is being done now, besides the search. */
  readonly onStage?: (message: string) => void;
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
  /** Of what is left, with everything that is not a layer, as a folder holds it. */
  readonly parameters: number;
  readonly data: {
    readonly files: readonly string[];
    readonly samples: number;
    /** Supervised tokens; of questions those of all choices. */
    readonly tokens: number;
    readonly questions?: number;
  };
  /** Where layers were searched for. */
  readonly findings?: DepthFindings;
  readonly cache?: { readonly path: string; readonly reused: number };
  /** Where the width was cut. */
  readonly width?: WidthFindings;
  readonly warnings: readonly DataWarning[];
}
