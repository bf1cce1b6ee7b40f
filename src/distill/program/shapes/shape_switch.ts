/**
 * Giving a compiled program another shape of its student.
 *
 * @module
 */
import { layerGate, layerName } from "../../../models/context.ts";
import type { Executable } from "../../../tensor/executable.ts";
import type { ShapeSpace, StudentShape } from "../../inputs/shape_space.ts";
import type { ModelAdapter } from "../../trained/model_adapter.ts";
import { FLAT } from "../../trained/parameters.ts";
import type { TrainingSetup } from "../plan_training.ts";
import type { WidthInputs } from "./width_inputs.ts";

/** The student's name in the blocks of a training program. */
const STUDENT = "student";

/** Switches layers and widths, and what the student's adapter knows of the shape. */
export class ShapeSwitch {
  readonly #executable: Executable;
  readonly #setup: TrainingSetup;
  readonly #space: ShapeSpace;
  readonly #widths: WidthInputs | undefined;
  readonly #adapter: ModelAdapter | undefined;
  /** Fixed parameters in the flat layout. */
  readonly #fixed: Float32Array;
  #width: number | undefined;
  #shape = "";

  /** @param fixed Fixed parameters as the run begins */
  constructor(executable: Executable, setup: TrainingSetup, fixed: Float32Array) {
    const { space, widths } = setup.oneForAll!;
    [this.#executable, this.#setup, this.#space] = [executable, setup, space];
    [this.#widths, this.#adapter, this.#fixed] = [widths, setup.adapter, fixed.slice()];
  }

  /** Sets the shape that blocks run from now on. @returns Layers to leave out; see `Executable.run` */
  set(shape: StudentShape): ReadonlySet<string> {
    const without = new Set<string>();
    const { layers } = this.#setup.student.config;
    for (let layer = 0; layer < layers; layer++) {
      const isKept = shape.layers.includes(layer);
      this.#executable.setScalar(layerGate(STUDENT, layer), Number(isKept));
      if (!isKept) without.add(layerName(STUDENT, layer));
    }
    const key = `${shape.layers} ${shape.width}`;
    if (key !== this.#shape) this.#tellAdapter(shape);
    if (this.#widths && shape.width !== this.#width) {
      const { name, data } = this.#widths.values(this.#space.widths[shape.width]!);
      this.#executable.write(name, data);
    }
    [this.#shape, this.#width] = [key, shape.width];
    return without;
  }

  #tellAdapter({ layers, width }: StudentShape): void {
    const values = this.#adapter?.shapeValues({ keptLayers: layers, width });
    if (!values || values.size === 0) return;
    this.#setup.trainables.fixed.scatter(this.#fixed, values);
    this.#executable.write(FLAT.fixed, this.#fixed);
  }
}
