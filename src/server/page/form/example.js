/** What the form begins with. */

/** The example that comes with Limbeck. */
const EXAMPLE = {
  teacher: { model: "stories15M-q8_0.gguf" },
  student: { model: "teacher", layers: [0, 1, 3, 5] },
  data: { train: "stories-train", heldOut: "stories-heldout", contextLength: 256, endToken: "bos" },
  objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
  adapter: { type: "lora", rank: 16 },
  train: {
    steps: 60,
    tokensPerMicroBatch: 256,
    learningRate: 0.0015,
    schedule: "linear",
    warmup: 5,
    evaluateEvery: 20,
    checkpointEvery: 20,
    seed: 1,
  },
  samples: { prompts: ["Once upon a time, there was a little"], tokens: 60 },
};

/** The recipe of a run that the new one is to be like; else the example where the service has it, or with whatever it has. */
export function firstRecipe({ models, datasets, like }) {
  if (like) {
    return { adapter: {}, train: {}, samples: {}, objective: EXAMPLE.objective, ...structuredClone(like) };
  }
  const recipe = structuredClone(EXAMPLE);
  const has = (list, name) => list.some(({ id }) => id === name);
  if (has(models, EXAMPLE.teacher.model) && has(datasets, EXAMPLE.data.train)) return recipe;
  recipe.teacher.model = models[0]?.id ?? "";
  recipe.student = { model: "teacher" };
  recipe.data = { train: datasets[0]?.id ?? "", contextLength: EXAMPLE.data.contextLength };
  recipe.samples = {};
  return recipe;
}
