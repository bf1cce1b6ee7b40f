/**
 * What `limbeck plugin new` writes: a plugin of each kind that works as it is, with the places to change explained.
 *
 * @module
 */

/** Kinds of plugins that can be begun. */
export const TEMPLATE_KINDS = ["loss", "row-loss", "feature-loss", "adapter"] as const;

/** One of {@linkcode TEMPLATE_KINDS}. */
export type TemplateKind = typeof TEMPLATE_KINDS[number];

/** The source of a new plugin. `name` is lower-case words joined by hyphens. */
export function pluginTemplate(kind: TemplateKind, name: string, file: string): string {
  return TEMPLATES[kind].replaceAll("NAME", name).replaceAll("SUFFIX", name.replaceAll("-", "_")).replaceAll(
    "FILE",
    file,
  );
}

const LOSS =
  `// A loss written as one expression. From it Limbeck makes the kernel, its gradient and an f64 reference.
//
//   limbeck plugin check FILE
//   limbeck distill recipe.yaml --plugin FILE      with  objective: [{loss: me/NAME}]  in the recipe

import { CONTRACT_VERSION, defineDivergence, logAddExp } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineDivergence({
  // Put a name of your own before the slash.
  id: "me/NAME",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "KL of the teacher to a mixture of teacher and student",
  source: "the paper and equation it comes from",

  // What a recipe may set: options: {share: 0.3}
  options: z.strictObject({
    share: z.number().gt(0).lt(1).default(0.1).describe("Share of the teacher in the mixture"),
  }),

  // The summand of one vocabulary entry; the loss of a position is its sum over the vocabulary.
  // p, logP: the teacher's probability of the entry and its logarithm; q, logQ: the student's.
  // For losses that are not a plain sum, write value() instead, with sum(), max(), logSumExp() and atLabel().
  term({ p, logP, logQ, options: { share } }) {
    // log(share p + (1 - share) q). Never add probabilities and take the logarithm: it underflows.
    const logMixture = logAddExp(logP.add(Math.log(share)), logQ.add(Math.log(1 - share)));
    return p.mul(logP.sub(logMixture));
  },
});
`;

const ROW_LOSS =
  `// A loss written in WGSL for one row of logits: for what needs sorting, top-k or search over the vocabulary.
// Where one expression will do, \`limbeck plugin new loss\` is less work.
//
//   limbeck plugin check FILE
//   limbeck distill recipe.yaml --plugin FILE      with  objective: [{loss: me/NAME}]  in the recipe

import { CONTRACT_VERSION, defineLoss } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineLoss({
  // Put a name of your own before the slash.
  id: "me/NAME",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "hinge between the teacher's favourite entry and the student's best other one",
  source: "the paper and equation it comes from",
  options: z.strictObject({
    margin: z.number().positive().default(1).describe("How far ahead the teacher's favourite must be"),
  }),
  needsTeacher: true,

  // \`$\` before each name of your own keeps several losses in one kernel apart.
  wgsl: ({ options: { margin } }) => /* wgsl */ \`
    var<private> $wanted: u32;
    var<private> $rival: u32;
    var<private> $active: f32;

    // The entry with the largest logit, the lowest such entry where there are several.
    fn $best(skip: u32, ofTeacher: bool) -> u32 {
      var top = -3.0e38;
      var at = 0xffffffffu;
      for (var v = lane; v < row_vocabulary; v += LANES) {
        let z = select(student(v), teacher(v), ofTeacher);
        if (v != skip && z > top) { top = z; at = v; }
      }
      let highest = row_max(top);
      return row_min_u32(select(0xffffffffu, at, top == highest));
    }

    // The loss of the row. All lanes call it together, and each must return the same number.
    fn $value() -> f32 {
      $wanted = $best(0xffffffffu, true);
      $rival = $best($wanted, false);
      let gap = \${margin} - student($wanted) + student($rival);
      $active = select(0.0, 1.0, gap > 0.0);
      return max(gap, 0.0);
    }

    // Its derivative with respect to the student's logit z of entry v; t is the teacher's logit.
    fn $gradient(v: u32, z: f32, t: f32) -> f32 {
      return $active * (select(0.0, 1.0, v == $rival) - select(0.0, 1.0, v == $wanted));
    }\`,

  // The same in plain f64, written without looking at the WGSL: \`limbeck plugin check\` compares the two.
  reference({ student, teacher, options: { margin } }) {
    const wanted = teacher.indexOf(Math.max(...teacher));
    const others = student.map((z, v) => v === wanted ? -Infinity : z);
    const rival = others.indexOf(Math.max(...others));
    const gap = margin - student[wanted]! + student[rival]!;
    const gradient = new Float64Array(student.length);
    if (gap > 0) {
      gradient[wanted] = -1;
      gradient[rival] = 1;
    }
    return { value: Math.max(gap, 0), gradient };
  },
});
`;

const FEATURE_LOSS =
  `// A loss over inner values of the models, written as a tensor program; its gradient comes from automatic differentiation.
// Where the logits will do, \`limbeck plugin new loss\` is less work, and cheaper to train with.
//
//   limbeck plugin check FILE
//   limbeck distill recipe.yaml --plugin FILE      with  objective: [{loss: me/NAME, weight: 0.1}, ...]  in the recipe

import { CONTRACT_VERSION, defineFeatureLoss, noOptions, tensor } from "@limbeck/limbeck/plugin";

export default defineFeatureLoss({
  // Put a name of your own before the slash.
  id: "me/NAME",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "squared difference of the states behind the last layers, the student's through a matrix",
  source: "the paper and equation it comes from",
  options: noOptions,

  // The inner values it looks at, f32 [T, width]: embeddings, final_norm, and of each layer I model.layers.I.output, .queries, .keys,
  // .values and .attention. Nothing flows back into the teacher.
  taps: ({ student, teacher }) => ({
    student: [\`model.layers.\${student.layers - 1}.output\`],
    teacher: [\`model.layers.\${teacher.layers - 1}.output\`],
  }),

  // Trained with the adapter and thrown away at the end. Leave it out where both models have one width.
  parameters: ({ student, teacher }) => [{
    name: "projection",
    suffix: "SUFFIX.weight",
    shape: [teacher.hiddenSize, student.hiddenSize],
    initialisation: { kind: "normal", deviation: student.hiddenSize ** -0.5 },
  }],

  // The loss of each position, f32 [T]. Samples lie side by side; masking, weight and mean are the trainer's.
  program({ models, student, teacher, parameter }) {
    const own = student(\`model.layers.\${models.student.layers - 1}.output\`); // [T, H]
    const wanted = teacher(\`model.layers.\${models.teacher.layers - 1}.output\`);
    const projected = tensor.linear(own, parameter("projection"));
    const squares = tensor.pointwise([projected, wanted], (s, t) => s!.sub(t!).square());
    const sums = tensor.sumColumns(squares); // [T, 1]
    return tensor.scale(tensor.reshape(sums, [sums.dim(0)]), 1 / models.teacher.hiddenSize);
  },
});
`;

const ADAPTER = `// An adapter: what is trained beside each frozen linear layer.
//
//   limbeck plugin check FILE
//   limbeck distill recipe.yaml --plugin FILE      with  adapter: {type: me/NAME, rank: 8}  in the recipe

import { CONTRACT_VERSION, defineAdapter, tensor } from "@limbeck/limbeck/plugin";
import { z } from "zod";

export default defineAdapter({
  // Put a name of your own before the slash.
  id: "me/NAME",
  version: "1.0.0",
  contract: CONTRACT_VERSION,
  description: "low-rank update of each linear layer: y = W x + (alpha / rank) B A x",
  source: "the paper and equation it comes from",
  options: z.strictObject({}),

  // What it takes into account beside rank and alpha; a recipe that sets rslora or loraPlusRatio is refused.
  settings: ["dropout"],

  // What follows the layer's path in files. No other adapter may use the same.
  suffixes: ["SUFFIX_A.weight", "SUFFIX_B.weight"],

  // The tensors of one layer. It must begin where the base model is, so B begins at 0.
  parameters: ({ rank, inFeatures, outFeatures }) => [
    {
      name: "A",
      suffix: "SUFFIX_A.weight",
      shape: [rank, inFeatures],
      initialisation: { kind: "uniform", bound: 1 / Math.sqrt(inFeatures) },
    },
    { name: "B", suffix: "SUFFIX_B.weight", shape: [outFeatures, rank], initialisation: { kind: "constant", value: 0 } },
  ],

  // x [T, in] -> [T, out]; base() is the frozen layer's output. Gradients come by themselves.
  forward({ x, base, parameter, dropout, layer }) {
    const inner = tensor.linear(dropout(x), parameter("A"));
    return tensor.add(base(), tensor.scale(tensor.linear(inner, parameter("B")), layer.alpha / layer.rank));
  },

  // The weight [out, in], row by row, that alone does what forward() does.
  merge(weight, { parameter, layer: { inFeatures, outFeatures, rank, alpha } }) {
    const [a, b, merged] = [parameter("A"), parameter("B"), Float32Array.from(weight)];
    for (let o = 0; o < outFeatures; o++) {
      for (let i = 0; i < inFeatures; i++) {
        let sum = 0;
        for (let k = 0; k < rank; k++) sum += b[o * rank + k]! * a[k * inFeatures + i]!;
        merged[o * inFeatures + i] = weight[o * inFeatures + i]! + alpha / rank * sum;
      }
    }
    return merged;
  },
});
`;

const TEMPLATES: Readonly<Record<TemplateKind, string>> = {
  "loss": LOSS,
  "row-loss": ROW_LOSS,
  "feature-loss": FEATURE_LOSS,
  "adapter": ADAPTER,
};
