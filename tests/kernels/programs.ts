/**
 * Every program a run may compile, planned for both kernel families without a GPU.
 *
 * @module
 */
import { builtins } from "../../plugins/mod.ts";
import { setUp } from "../../src/distill/run/set_up.ts";
import { generationPlan } from "../../src/distill/generate/generator.ts";
import { chunkedLoss, headTarget } from "../../src/distill/objective/chunked_loss.ts";
import type { Model } from "../../src/distill/inputs/models.ts";
import { Objective } from "../../src/distill/objective/objective.ts";
import { type RecipeInput } from "../../src/distill/recipe/recipe.ts";
import { parseRecipe } from "../../src/distill/recipe/parse.ts";
import { planTraining } from "../../src/distill/program/plan_training.ts";
import type { DeviceDescription } from "../../src/gpu/description.ts";
import { kindOf } from "../../src/registry/kinds/mod.ts";
import { Registry } from "../../src/registry/registry.ts";
import { planSubsets } from "../../src/shape/depth/subset_program.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { type Plan, plan, Program } from "../../src/tensor/plan.ts";

const registry = new Registry().addAll(builtins);
/** All but those that want a teacher with another tokenizer. */
const losses = builtins.flatMap((p) => kindOf(p)?.role === "loss" && p.kind !== "group-loss" ? [p.id] : []);
const adapters = builtins.flatMap((p) => (p.kind === "adapter" ? [p] : []));

/** One recipe for each built-in adapter, and objectives that differ in losses and temperatures. */
const RECIPES: readonly Partial<RecipeInput>[] = [
  ...adapters.map(({ id, settings, merge }) => ({
    output: { merged: merge !== undefined },
    objective: losses.map((loss) => ({ loss, weight: 0.5 })),
    adapter: { type: id, rank: 8, dropout: settings?.includes("dropout") ? 0.1 : 0 },
    train: { activationCheckpointing: "on" as const },
  })),
  {
    objective: [{ loss: "cross-entropy" }, { loss: "forward-kl", temperature: 2 }],
    adapter: { rank: 5, loraPlusRatio: 4 },
    train: { activationCheckpointing: "off" as const, clip: 0 },
  },
  {
    objective: [{ loss: "reverse-kl", temperature: 2 }, { loss: "forward-kl" }],
    adapter: { rank: 16 },
    train: { tokensPerMicroBatch: 96, headChunk: 64 },
  },
  { objective: [{ loss: "cross-entropy" }], adapter: { targets: ["q_proj", "v_proj"] } },
];

/** The training programs of a model: as its own teacher, with every recipe. */
export function trainingPlans(model: Model, device: DeviceDescription): Plan[] {
  return RECIPES.map((overrides) => {
    const recipe = parseRecipe({
      teacher: { model: model.path },
      student: { model: "teacher" },
      ...overrides,
      data: { train: "none.jsonl", contextLength: 64 },
      train: { tokensPerMicroBatch: 64, steps: 40, ...overrides.train },
    });
    return planTraining(setUp({ recipe, teacher: model, student: model }, registry), device).plan;
  });
}

/** The generation programs of a model: one sequence, and several. */
export function generationPlans(model: Model, device: DeviceDescription): Plan[] {
  return [1, 3, 12, 40].map((sequences) => generationPlan(device, model, { sequences, length: 64 }));
}

/** The program that measures subsets of a model's layers. */
export function subsetPlan(model: Model, device: DeviceDescription): Plan {
  return planSubsets(model, registry, { tokens: 128, chunkRows: 64, positions: 64 }, device).planned;
}

/** The head alone, with the weighted row losses as a result: training needs only their gradient. */
export function headPlan(device: DeviceDescription): Plan {
  const program = new Program();
  for (const count of [1, 2, 3]) {
    const terms = losses.slice(0, count).map((loss) => ({ loss, weight: 1, temperature: 1, options: {} }));
    const objective = Objective.of(registry, terms, 132);
    const graph = program.block(`${count} losses`);
    const side = (name: string) => ({
      hidden: graph.state(`${name} hidden`, [128, 36], "f32"),
      weight: graph.weight(`${name} head`, [132, 36], "f16"),
    });
    const learner = side("learner");
    const labels = graph.input("labels", [128], "i32");
    const rowLosses = objective.rowLosses(objective.passes[0]!, graph);
    const { weighted } = chunkedLoss(graph, {
      learner,
      target: headTarget(side("target")),
      labels,
      losses: rowLosses,
      chunkRows: 64,
      gradient: true,
    });
    const [gradient] = gradients(graph, [[weighted!, graph.state("above", [128], "f32")]], [learner.hidden]);
    graph.output("weighted", weighted!);
    graph.output("gradient", gradient!);
  }
  return plan(program, device);
}
