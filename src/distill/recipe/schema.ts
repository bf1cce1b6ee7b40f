/**
 * The rules and defaults of a recipe. The descriptions here become `recipe.schema.json`, the comments of `limbeck init` and the
 * "what would be right" of error messages, so each says what the field means and its unit.
 *
 * @module
 */
import { isObject } from "../../base/json.ts";
import { z } from "zod";
import { MODULE_PATTERN, MODULE_PATTERN_FORM } from "../../formats/peft/module_pattern.ts";
import { SET_NAME, SET_NAME_FORM, setName as nameOfPath, withSetNames } from "./data_sets.ts";
import type { Recipe, RecipeInput } from "./recipe.ts";

const path = z.string().min(1);
const count = z.number().int().min(1);
const countOrNone = z.number().int().min(0);
const positive = z.number().gt(0);
const share = z.number().min(0).lt(1);
const seed = z.number().int().min(0).max(0xffff_ffff);
const options = z.record(z.string(), z.unknown()).default({});

const layers = z.array(z.number().int().min(0)).min(1).refine(
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

const quantize = z.enum(["nf4", "nf4-double", "q8_0", "q4_0"]);
const QUANTIZES =
  "Keeps the weights of linear layers but the head in 4 or 8 bits on the GPU, quantised while they are loaded, or as they " +
  "are where the file has them in blocks that kernels read; embedding, norms, biases and head stay. ";

const student = z.strictObject({
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

const setPath = path.describe("JSON Lines file");
const setName = z.string().regex(SET_NAME, `must be ${SET_NAME_FORM}`).optional().describe(
  "How reports call the set; the file's name without its ending when absent",
);
const MOST_SETS = 64;

const trainingSet = z.strictObject({
  path: setPath,
  name: setName,
  weight: z.number().min(0).max(1e9).default(1).describe(
    "Share of what is drawn, against the weights of the other sets; 0: nothing is drawn of it",
  ),
});

/** Sets of a list have names of their own. */
function checkNames(
  sets: readonly { path: string; name?: string | undefined }[],
  { addIssue }: { addIssue(issue: { code: "custom"; path: PropertyKey[]; message: string }): void },
): void {
  const first = new Map<string, number>();
  for (const [i, { path, name = nameOfPath(path) }] of sets.entries()) {
    const other = first.get(name);
    if (other === undefined) first.set(name, i);
    else {
      addIssue({
        code: "custom",
        path: [i, "name"],
        message: `is ${JSON.stringify(name)}, as that of entry ${other}; give each a name of its own`,
      });
    }
  }
}

const trainingSets = z.array(trainingSet).min(1).max(MOST_SETS).superRefine(checkNames).refine(
  (sets) => sets.length === 0 || sets.some(({ weight }) => weight > 0),
  "at least one weight must be above 0",
);
const heldOutSets = z.array(z.strictObject({ path: setPath, name: setName })).min(1).max(MOST_SETS)
  .superRefine(checkNames);

const data = z.strictObject({
  train: z.union([path, trainingSets]).describe(
    "JSON Lines file of training samples: text, prompt and completion, or messages. Or a list of such files that are mixed, " +
      "such as [{path: a.jsonl, weight: 3}, {path: b.jsonl, weight: 1}]",
  ),
  mix: z.enum(["rows", "tokens"]).optional().describe(
    "What the weights of mixed files are shares of; rows when absent",
  ),
  heldOut: z.union([path, heldOutSets]).optional().describe(
    "JSON Lines file the loss is measured on, or a list such as [{path: a.jsonl, name: a}, {path: b.jsonl}] of files measured one " +
      "by one, the first of which decides what is best; 5 % of the rows of each training file, chosen by their hash, when absent",
  ),
  contextLength: z.number().int().min(2).default(512).describe("Longest sample, in tokens"),
  mask: z.enum(["auto", "completion", "all"]).default("auto").describe(
    "Which tokens are learnt: completions and assistant turns only, or all; auto: completions where rows have them, else all",
  ),
  tooLong: z.enum(["cut", "drop", "refuse", "split"]).default("cut").describe(
    "What happens to a sample longer than contextLength: its beginning is kept, it is left out, it is an error, or it becomes several",
  ),
  endToken: z.union([z.enum(["auto", "eos", "bos", "none"]), z.number().int().min(0)]).default("auto")
    .describe(
      "Token put after a text or a completion: one of the tokenizer's, an id, or none; auto: eos",
    ),
  template: z.boolean().default(false).describe(
    "Puts prompt/completion rows through the chat template as a user's and an assistant's turn; rows of messages always are",
  ),
  limit: count.optional().describe("Most rows used of each training file; all when absent"),
});

const course = z.strictObject({
  from: z.number().describe("Value up to the first of the steps"),
  to: z.number().describe("Value from the second of the steps on"),
  steps: z.tuple([countOrNone, countOrNone]).describe(
    "Steps done when it begins to change and when it has changed",
  ),
  shape: z.enum(["constant", "linear", "cosine"]).default("linear").describe(
    "How it goes from one to the other; constant: at once, at the second of the steps",
  ),
}).refine(({ steps: [first, last] }) => first <= last, {
  path: ["steps"],
  error: "must rise, such as [0, 100]",
});

function isEverPositive(weight: z.output<typeof course> | undefined): boolean {
  return weight !== undefined && Math.max(weight.from, weight.to) > 0;
}

const balance = z.strictObject({
  max: positive.default(100).describe("Largest factor that balancing may give the loss"),
});

const objectiveTerm = z.strictObject({
  loss: z.string().min(1).describe(
    "Id of a loss, such as cross-entropy, forward-kl or a plugin's; `limbeck plugin list` names them",
  ),
  learner: z.enum(["student", "teacher"]).optional().describe(
    "The model that this loss trains, the other being its target; student when absent, teacher only with teacher.train",
  ),
  tokens: z.enum(["supervised", "all", "unshifted"]).optional().describe(
    "Tokens whose mean this loss is: supervised, as data.mask says, when absent; all: prompts too; unshifted: one later than supervised, a mistake of some papers' codes",
  ),
  source: z.string().min(1).optional().describe(
    "Counts only samples whose row has this `source`, such as teacher or student; all when absent",
  ),
  weight: z.number().min(0).default(1).describe("Factor of this loss in the sum"),
  balance: balance.optional().describe(
    "Gives this loss, times its weight, the size of all losses without `balance` together, anew in each micro-batch",
  ),
  temperature: positive.default(1).describe(
    "Divides the logits of both models; no temperature^2 factor is applied unless squareTemperature says so",
  ),
  squareTemperature: z.boolean().optional().describe(
    "Multiplies the weight by temperature^2, so that gradients keep their size",
  ),
  schedule: z.record(z.string(), course).optional().describe(
    "Course of weight, temperature or an option of the loss over the steps, by its name; held-out losses are measured at its end",
  ),
  options: options.describe("Options of the loss, checked by its own schema"),
});

const objective = z.array(objectiveTerm).min(1);

/** The LLM-Neo objective (arXiv 2411.06839): half cross-entropy on the data, half forward KL to the teacher. */
export const defaultObjective: readonly { loss: string; weight: number }[] = [
  { loss: "cross-entropy", weight: 0.5 },
  { loss: "forward-kl", weight: 0.5 },
];

const modulePattern = z.string().regex(MODULE_PATTERN, `must be ${MODULE_PATTERN_FORM}`);

const adapter = z.strictObject({
  type: z.string().min(1).default("lora").describe("Id of an adapter: lora or a plugin's"),
  rank: count.default(16).describe("Rank of the update of each linear layer"),
  alpha: positive.default(32).describe("The update is scaled by alpha / rank; twice the rank when absent"),
  dropout: share.default(0).describe("Share of an adapter's inputs set to zero while training"),
  targets: z.union([z.literal("all-linear"), z.array(z.string().min(1)).min(1)]).default("all-linear")
    .describe(
      "Linear layers that get an adapter: all-linear (all but the head), or names such as [q_proj, v_proj]",
    ),
  rslora: z.boolean().default(false).describe("Scales by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)"),
  loraPlusRatio: z.number().min(1).default(1).describe(
    "Learning rate of B over that of A (LoRA+, arXiv 2402.12354)",
  ),
  rankPattern: z.record(modulePattern, count).default({}).describe(
    "Rank by layer, as PEFT's rank_pattern. A key is the layer's name or the end of its path from a dot on, such as q_proj or " +
      "layers.0.self_attn.q_proj, where (0|1) is a choice of names, \\d+ any number, \\w+ any name, and ^ in front asks for the whole " +
      "path; the first that fits counts",
  ),
  alphaPattern: z.record(modulePattern, positive).default({}).describe(
    "Alpha by layer, as PEFT's alpha_pattern; keys as in rankPattern",
  ),
  options: options.describe("Further options of the adapter, checked by its own schema"),
});

const cacheEntries = z.number().int().min(1).max(256);

const cache = z.strictObject({
  topK: cacheEntries.optional().describe("Largest logits kept of the teacher at each position"),
  samples: cacheEntries.optional().describe(
    "Instead of topK: tokens drawn from the teacher's distribution at each position (RS-KD, arXiv 2503.16870)",
  ),
  seed: seed.default(1).describe("Seed of the draws"),
  precision: z.enum(["f16", "f32"]).default("f16").describe(
    "Of the logits kept, as distances from the largest",
  ),
  folder: path.optional().describe("Folder of caches that runs share; one in the run's folder when absent"),
}).refine((c) => (c.topK === undefined) !== (c.samples === undefined), {
  error: "needs one of topK and samples, such as {topK: 64}",
});

const teacher = z.strictObject({
  model: path.describe("Hugging Face folder or GGUF file of the teacher, or hf:ORG/NAME@REVISION of the hub"),
  quantize: quantize.optional().describe(`${QUANTIZES}As it is stored when absent`),
  stream: z.boolean().optional().describe(
    "Reads its layers from disk, two at a time, each time they are needed, so that only embedding, head and two layers take memory on " +
      "the GPU; numbers stay the same, steps take longer. When absent, where the run does not fit otherwise; false: never",
  ),
  train: z.boolean().default(false).describe(
    "Trains an adapter on the teacher along with the student, by the losses whose learner is the teacher",
  ),
  adapter: adapter.optional().describe("The teacher's adapter; like the student's when absent"),
  cache: cache.optional().describe(
    "Runs the teacher once before training and keeps the top of its distribution; training then needs no teacher on the GPU",
  ),
}).refine((t) => !(t.train && t.cache), {
  path: ["cache"],
  error: "cannot keep a teacher that is trained along; leave it out, or teacher.train",
}).refine((t) => !(t.train && t.stream), {
  path: ["stream"],
  error: "cannot stream a teacher that is trained along; leave it out, or teacher.train",
});

const divergence = z.strictObject({
  maxLossFactor: z.union([z.literal(0), z.number().gt(1)]).default(3).describe(
    "Stops when the mean loss of a window is this many times the lowest so far; 0: never",
  ),
  window: count.default(20).describe("Steps in a window"),
});

const oneForAll = z.strictObject({
  random: countOrNone.default(2).describe(
    "Shapes that a step trains beside the whole model and the smallest, chosen at random",
  ),
  // Without a default, so that recipes of earlier runs keep their hash.
  target: z.enum(["whole", "teacher"]).optional().describe(
    "What the smaller shapes learn from: the whole student as it is in the step (whole, when absent), or the teacher, which stays as it is",
  ),
  loss: z.string().min(1).default("soft-cross-entropy").describe(
    "Id of the loss that compares a shape's logits with those of its target, such as soft-cross-entropy or forward-kl",
  ),
  lossWeight: z.number().min(0).max(1).default(1).describe(
    "Share of that loss; the rest is cross-entropy with the data",
  ),
  balance: z.strictObject({
    min: z.number().min(0).default(0).describe("Smallest factor"),
    max: positive.default(10).describe("Largest factor"),
  }).refine(({ min, max }) => min <= max, { path: ["max"], error: "must be at least min" })
    .prefault({}).describe(
      "Bounds of the factor that gives a shape's loss the size of the whole model's; 1 and 1: no balancing",
    ),
});

const train = z.strictObject({
  steps: count.default(200).describe("Optimiser steps"),
  tokensPerMicroBatch: z.number().int().min(2).default(1024).describe(
    "Tokens in one forward pass; samples are packed into it. When absent 1024, or contextLength where that is more",
  ),
  accumulation: count.default(1).describe("Micro-batches whose gradients make one step"),
  learningRate: positive.default(2e-4).describe("Highest learning rate"),
  schedule: z.enum(["constant", "linear", "cosine"]).default("cosine").describe(
    "Course of the learning rate after the warm-up",
  ),
  warmup: countOrNone.default(10).describe(
    "Steps in which the learning rate rises from 0; 5 % of the steps when absent",
  ),
  minimumLearningRate: z.number().min(0).default(0).describe("Where the learning rate ends"),
  weightDecay: z.number().min(0).default(0.01).describe("Decoupled weight decay of AdamW"),
  beta1: share.default(0.9).describe("AdamW's decay of the mean of gradients"),
  beta2: share.default(0.999).describe("AdamW's decay of the mean of squared gradients"),
  epsilon: positive.default(1e-8).describe("AdamW's epsilon"),
  clip: z.number().min(0).default(1).describe("Largest global gradient norm; 0: no clipping"),
  checkpointEvery: countOrNone.default(50).describe(
    "Steps between checkpoints; 0: only where the run stops or ends",
  ),
  evaluateEvery: countOrNone.default(50).describe(
    "Steps between measurements of the held-out loss; 0: only before and after",
  ),
  keepCheckpoints: count.default(2).describe("Latest checkpoints kept; the best is kept too"),
  activationCheckpointing: z.enum(["auto", "on", "off"]).default("auto").describe(
    "Computes activations twice to save memory; auto: only where they would not fit",
  ),
  headChunk: z.union([z.literal("auto"), count]).default("auto").describe(
    "Positions whose logits are in memory at once",
  ),
  seed: seed.default(1).describe("Seed of initialisation, order of samples and dropout"),
  divergence: divergence.prefault({}).describe("When a run that gets worse is stopped"),
  oneForAll: oneForAll.optional().describe(
    "How the shapes of student.shapes are trained: in each step the whole model by the objective, the others from the whole model",
  ),
}).refine((t) => t.warmup < t.steps, {
  path: ["warmup"],
  error: "must be fewer than train.steps",
  when: ({ value }) => haveNumbers(value, "warmup", "steps"),
}).refine((t) => t.learningRate <= 0 || t.minimumLearningRate <= t.learningRate, {
  path: ["minimumLearningRate"],
  error: "must not be above train.learningRate",
  when: ({ value }) => haveNumbers(value, "minimumLearningRate", "learningRate"),
});

const samples = z.strictObject({
  prompts: z.array(z.string()).max(16).default([]).describe(
    "Prompts continued by teacher and student before and after; empty: the start of a held-out sample",
  ),
  tokens: z.number().int().min(0).default(64).describe("Most tokens of a sample; 0: no samples"),
  temperature: z.number().min(0).default(0).describe("Sampling temperature; 0: always the likeliest token"),
  topK: countOrNone.default(0).describe("Choose among this many likeliest tokens; 0: all"),
  topP: z.number().gt(0).max(1).default(1).describe(
    "Choose among the likeliest tokens of this total probability",
  ),
  seed: seed.default(1).describe("Seed of sampling"),
});

const output = z.strictObject({
  folder: path.optional().describe("Folder of this run; runs/<id> when absent"),
  merged: z.boolean().default(true).describe("Whether the student with the adapter merged in is written too"),
});

const limits = z.strictObject({
  gpuBytes: count.optional().describe("Most bytes on the GPU; what the device allows when absent"),
  watchdogSeconds: positive.default(120).describe(
    "Seconds without a sign of life after which the run is ended",
  ),
});

/** Schema of a recipe. Use `parseRecipe`, which also derives defaults from other fields and explains problems. */
export const recipeSchema: z.ZodType<Recipe, RecipeInput> = z.strictObject({
  teacher: teacher.describe("The model that is imitated"),
  student: student.describe("The model that learns"),
  data: data.describe("Training and held-out samples"),
  objective: objective.default(defaultObjective.map((term) => ({ ...term, temperature: 1, options: {} })))
    .describe("Weighted sum of losses that is minimised; 0.5 cross-entropy + 0.5 forward-kl when absent"),
  adapter: z.union([adapter, z.literal("none")]).prefault({}).describe(
    "What is trained beside the student's weights; none: only what student.train names",
  ),
  train: train.prefault({}).describe("How it is trained"),
  samples: samples.prefault({}).describe("Sample texts for the before and after"),
  output: output.prefault({}).describe("What the run leaves"),
  limits: limits.prefault({}).describe("Bounds of the run"),
}).refine((recipe) => recipe.data.contextLength <= recipe.train.tokensPerMicroBatch, {
  path: ["train", "tokensPerMicroBatch"],
  error: "must be at least data.contextLength, so that the longest sample fits",
  when: ({ value }) =>
    isObject(value) && haveNumbers(value.data, "contextLength") &&
    haveNumbers(value.train, "tokensPerMicroBatch"),
}).refine(
  // A whole model that only teaches its shapes may have nothing to learn.
  ({ objective, train }) =>
    train.oneForAll?.target === "teacher" ||
    objective.some(({ weight, schedule }) => weight !== 0 || isEverPositive(schedule?.weight)),
  {
    path: ["objective"],
    error: "at least one loss must have a weight above 0",
    when: ({ value }) =>
      isObject(value) && isObject(value.train) && Array.isArray(value.objective) &&
      value.objective.every((term) => isObject(term) && typeof term.weight === "number"),
  },
).superRefine(({ teacher, student, objective, adapter, train }, context) => {
  checkOneForAll({ teacher, student, objective, adapter, train }, (path, message) => {
    context.addIssue({ code: "custom", path, message });
  });
  const trains = objective.findIndex(({ learner }) => learner === "teacher");
  if (trains >= 0 && !teacher.train) {
    context.addIssue({
      code: "custom",
      path: ["objective", trains, "learner"],
      message: "is the teacher, which only learns with teacher.train: true",
    });
  } else if (trains < 0 && teacher.train) {
    context.addIssue({
      code: "custom",
      path: ["teacher", "train"],
      message: "is true, but no loss has the teacher for its learner; add one, such as " +
        "{loss: cross-entropy, learner: teacher}",
    });
  }
  if (objective.every(({ learner }) => learner === "teacher")) {
    context.addIssue({
      code: "custom",
      path: ["objective"],
      message: "needs a loss whose learner is the student",
    });
  }
  const unequal = objective.findIndex((t) =>
    t.balance && (t.source || (t.tokens ?? "supervised") !== "supervised")
  );
  if (unequal >= 0) {
    context.addIssue({
      code: "custom",
      path: ["objective", unequal, "balance"],
      message: "only works over the supervised tokens of all samples: leave out tokens and source",
    });
  }
  if (student.shape !== undefined && student.layers) {
    context.addIssue({
      code: "custom",
      path: ["student", "shape"],
      message: "says which layers are kept, and so does student.layers; leave out one of the two",
    });
  }
  if (adapter === "none" && !student.train?.length) {
    context.addIssue({
      code: "custom",
      path: ["adapter"],
      message: "is none, and student.train names nothing, so nothing would be trained; " +
        "name tensors, such as student.train: [linear, norms]",
    });
  }
  if (adapter === "none" && teacher.train && !teacher.adapter) {
    context.addIssue({
      code: "custom",
      path: ["teacher", "adapter"],
      message:
        "is absent, and there is no adapter of the student that it could be like; give the teacher its own",
    });
  }
  for (const learner of ["student", "teacher"]) {
    const own = objective.filter((term) => (term.learner ?? "student") === learner);
    if (own.length > 0 && own.every((term) => term.balance)) {
      context.addIssue({
        code: "custom",
        path: ["objective", objective.indexOf(own[0]!), "balance"],
        message: `has nothing to be balanced with: at least one loss of the ${learner} must be without it`,
      });
    }
  }
});

/** What a run of several shapes cannot have. */
function checkOneForAll(
  { teacher, student, objective, adapter, train }: Pick<
    Recipe,
    "teacher" | "student" | "objective" | "adapter" | "train"
  >,
  wrong: (path: PropertyKey[], message: string) => void,
): void {
  if (!student.shapes) {
    if (train.oneForAll) {
      wrong(["train", "oneForAll"], "says how several shapes are trained, but student.shapes names none");
    }
    return;
  }
  const [first, ...others] = objective;
  const isPlain = others.length === 0 && !first?.tokens && !first?.source && first?.temperature === 1;
  const byTeacher = train.oneForAll?.target === "teacher";
  if (!isPlain || !(byTeacher || first.loss === "cross-entropy")) {
    wrong(
      ["objective"],
      `must be ${
        byTeacher ? "one loss of the supervised tokens, at temperature 1" : "cross-entropy alone"
      }, ` +
        "which the whole model learns by; train.oneForAll.loss is what the other shapes learn by",
    );
  }
  const beside: [unknown, string[], string][] = [
    [
      student.layers ?? student.shape,
      ["student", "shapes"],
      "are shapes of a whole model: leave out layers and shape",
    ],
    [
      student.train?.length,
      ["student", "train"],
      "cannot be combined with student.shapes: only an adapter can",
    ],
    [adapter === "none", ["adapter"], "is none, but the shapes of student.shapes share an adapter"],
    [teacher.train, ["teacher", "train"], "cannot be combined with student.shapes"],
    [
      teacher.cache,
      ["teacher", "cache"],
      "has no use with student.shapes: their target is the whole student, or a teacher that is there",
    ],
  ];
  for (const [given, path, message] of beside) if (given) wrong(path, message);
}

const OPTIONAL_SECTIONS = ["objective", "adapter", "train", "samples", "output", "limits"];

/** Fills in what depends on another field and was left out, before the rules are checked. */
export function deriveDefaults(value: unknown): unknown {
  if (!isObject(value)) return value;
  const derived: Record<string, unknown> = { ...value };
  // A section all of whose lines are commented out reads as null in YAML.
  for (const name of OPTIONAL_SECTIONS) if (derived[name] === null) delete derived[name];
  if (isObject(value.data)) derived.data = withSetNames(value.data);
  const adapter = section(value, "adapter");
  if (adapter) derived.adapter = twiceTheRank(adapter);
  const teacher = section(value, "teacher");
  if (teacher && isObject(teacher.adapter)) {
    derived.teacher = { ...teacher, adapter: twiceTheRank(teacher.adapter) };
  }
  const train = section(value, "train");
  if (train) {
    const filled = { ...train };
    if (filled.divergence === null) delete filled.divergence;
    const context = section(value, "data")?.contextLength;
    if (train.tokensPerMicroBatch === undefined && typeof context === "number" && context > 1024) {
      filled.tokensPerMicroBatch = context;
    }
    const { steps = 200 } = train;
    if (train.warmup === undefined && typeof steps === "number") filled.warmup = Math.floor(0.05 * steps);
    const shaped = section(value, "student")?.shapes !== undefined;
    if (shaped && filled.oneForAll === undefined) filled.oneForAll = {};
    if (shaped && derived.objective === undefined) {
      derived.objective = [{ loss: lossOfWhole(filled.oneForAll) }];
    }
    derived.train = filled;
  }
  return derived;
}

/** What the whole model learns by where the objective is absent: the data, or what the other shapes learn from too. */
function lossOfWhole(oneForAll: unknown): unknown {
  if (!isObject(oneForAll) || oneForAll.target !== "teacher") return "cross-entropy";
  return oneForAll.loss ?? "soft-cross-entropy";
}

/** An adapter whose alpha, where it is absent, follows from its rank. */
function twiceTheRank(adapter: Record<string, unknown>): Record<string, unknown> {
  const { rank, alpha } = adapter;
  return typeof rank === "number" && rank > 0 && alpha === undefined
    ? { ...adapter, alpha: 2 * rank }
    : adapter;
}

/** A section that may be left out; undefined where something else stands in its place. */
function section(value: Record<string, unknown>, name: string): Record<string, unknown> | undefined {
  const found = value[name] ?? {};
  return isObject(found) ? found : undefined;
}

/** Rules between fields are checked where those fields are numbers, whatever else is wrong, so that one reading finds all. */
function haveNumbers(value: unknown, ...names: string[]): boolean {
  return isObject(value) && names.every((name) => Number.isFinite(value[name]));
}
