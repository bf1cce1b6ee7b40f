/**
 * The model that learns.
 *
 * @module
 */
import { z } from "zod";
import { path, quantize, QUANTIZES } from "./fields.ts";

/** Layers that are kept. */
export const layers = z.array(z.number().int().min(0)).min(1).refine(
  (kept) => kept.every((layer, i) => i === 0 || layer > kept[i - 1]),
  "layers must rise, each named once, such as [0, 1, 3, 5]",
);

const shapes = z.strictObject({
  layers: z.array(layers).default([]).describe(
    "Layers that each depth below the whole model keeps, such as [[0, 1, 2, 4, 5], [0, 1, 2, 5]]; `limbeck shrink` finds them",
  ),
  widths: z.array(z.strictObject({
    width: z.number().gt(0).lt(1).describe("What the width is called: the part that stays, such as 0.75"),
    shape: path.describe(
      "Shape file of the whole model's layers, as `limbeck shrink MODEL --width` writes one",
    ),
  })).optional().describe(
    "Widths below the whole one; every depth is trained in every width; none when absent",
  ),
}).superRefine(({ layers, widths = [] }, context) => {
  if (layers.length + widths.length === 0) {
    context.addIssue({
      code: "custom",
      message: "has no shape beside the whole model: name layers to keep, or widths",
    });
  }
  const twice = (names: readonly unknown[]) => names.findIndex((name, i) => names.indexOf(name) !== i);
  const depth = twice(layers.map((kept) => kept.length));
  if (depth >= 0) {
    context.addIssue({
      code: "custom",
      path: ["layers", depth],
      message: "has as many layers as another: a depth stands for one choice of layers",
    });
  }
  const width = twice(widths.map((w) => w.width));
  if (width >= 0) {
    context.addIssue({ code: "custom", path: ["widths", width, "width"], message: "is there already" });
  }
});

export const student = z.strictObject({
  model: path.describe(
    "Hugging Face folder or GGUF file of the student, hf:ORG/NAME of the hub, or `teacher` for the teacher's own weights",
  ),
  layers: layers.optional().describe("Layers kept, counted from 0 and rising; all when absent"),
  shape: path.optional().describe(
    "Shape file that says which layers, heads and channels are kept, instead of layers; `limbeck shrink` writes one",
  ),
  shapes: shapes.optional().describe(
    "Smaller shapes of the student that are trained along with the whole one, so that each can be exported; see train.oneForAll",
  ),
  dtype: z.enum(["f32", "f16", "bf16"]).optional().describe(
    "What its weights are rounded to before training, and what base/ and merged/ hold. " +
      "When absent, what the files hold; f16 for a GGUF file in f16 or quantised",
  ),
  quantize: quantize.optional().describe(
    `${QUANTIZES}What is trained, measured and written to base/ and merged/ is made of the quantised values; not quantised when absent`,
  ),
  train: z.array(z.string().min(1)).optional().describe(
    "Tensors whose own values are trained, beside the adapter or, with adapter: none, instead of it: norms, biases, head, linear, " +
      "names of tensors or modules, or ends of such names; none when absent",
  ),
});
