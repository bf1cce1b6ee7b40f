/**
 * A model made smaller: what was asked for, and what came of it.
 *
 * @module
 */
import type { DataWarning } from "../distill/inputs/data_warnings.ts";
import type { CalibrationOptions } from "./depth/calibration.ts";
import type { DepthFindings, DepthGoal } from "./depth/depth_search.ts";
import type { MeasuredSearch } from "./depth/measured_search.ts";
import type { MeasuredShape } from "./shapes.ts";
import type { WidthFindings, WidthGoal } from "./width/measured_width.ts";

/** What is asked for. */
export interface ShrinkOptions extends Omit<MeasuredSearch, "goal"> {
  /** Layers that stay; all when absent. Of `every-other` the number of layers is known. */
  readonly goal?: Omit<DepthGoal, "layers"> & { readonly layers?: number };
  /** How much of the width of those stays; all when absent. */
  readonly width?: WidthGoal;
  /** Whether all shapes that were measured are told of, and how fast those on the frontier or near it are. */
  readonly pictured?: "shapes" | "speeds";
  /** Told what is being done now, besides the search. */
  readonly onStage?: (message: string) => void;
  /** Told on how many tokens of how many the inputs have been looked at. */
  readonly onTokens?: (tokens: number, total: number) => void;
  /** Told how many turns of timing shapes are done, of how many. */
  readonly onTimed?: (done: number, total: number) => void;
  /** Folder or GGUF file. */
  readonly model: string;
  /** Calibration samples, or questions where the metric is `accuracy`. */
  readonly data: Omit<CalibrationOptions, "questions">;
  /** Where the smaller model goes. */
  readonly output?: string;
  /** Where its shape goes. */
  readonly shape?: string;
}

/** Several numbers of layers with several widths. */
export interface ShrinkGridOptions extends Omit<ShrinkOptions, "goal" | "width" | "output" | "shape"> {
  /** How many layers stay; `all` for every number below the model's; none for all layers alone. */
  readonly layers: readonly number[] | "all";
  readonly search: Omit<DepthGoal, "layers">;
  /** None for the whole width alone. */
  readonly widths: readonly WidthGoal[];
}

/** What came of them. */
export interface ShrunkGrid extends Pick<Shrunk, "model" | "data" | "timedOn" | "warnings"> {
  /** By number of layers, then by width. */
  readonly cells: readonly Shrunk[];
  readonly shapes: readonly MeasuredShape[];
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
  readonly goal?: DepthGoal;
  readonly findings?: DepthFindings;
  readonly cache?: { readonly path: string; readonly reused: number };
  /** Where the width was cut. */
  readonly width?: WidthFindings;
  /** Where they were asked for. */
  readonly shapes?: readonly MeasuredShape[];
  /** Name of the adapter that speeds were measured on. */
  readonly timedOn?: string;
  readonly warnings: readonly DataWarning[];
}
