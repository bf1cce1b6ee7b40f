/**
 * The recipe: everything a run is told. Written as YAML, JSON or TypeScript, checked whole before anything is loaded, and saved with the run.
 *
 * The interfaces here are what the rest of the program reads; `schema.ts` has the rules and defaults, `parse.ts` checks, `file.ts` reads files.
 *
 * @module
 */
import type { QuantizeDtype } from "../../formats/quantised/quantiser.ts";
import type { ColumnNames } from "../../text/read/columns.ts";
import type { EvaluationTask } from "../../evaluation/tasks/task.ts";
import type { ServerSettings } from "../../served/server.ts";
import type { Course } from "./schedule.ts";

/** A resolved recipe: every default filled in. */
export interface Recipe {
  teacher: TeacherRecipe;
  student: StudentRecipe;
  data: DataRecipe;
  /** The weighted sum of losses that is minimised. */
  objective: ObjectiveTerm[];
  adapter: AdapterRecipe | "none";
  train: TrainRecipe;
  samples: SamplesRecipe;
  /** What teacher, student before and student after are measured on at the end; nothing when absent. */
  evaluate?: EvaluateRecipe;
  output: OutputRecipe;
  limits: LimitsRecipe;
}

/** What is measured at the end. */
export interface EvaluateRecipe {
  /** Tasks; a recipe's file may name theirs by path. */
  tasks: EvaluationTask[];
}

/** The model that is imitated. */
export interface TeacherRecipe {
  /**
   * A Hugging Face folder or a GGUF file; `student` for the student itself, as `self` says; `server` for one behind a server. Of several teachers that of the first, which has
   * the tokenizer and writes the sample texts.
   */
  model: string;
  /** Where it is served. */
  server?: ServedTeacherRecipe;
  /** What of the student teaches it, where `model` is `student`: what it began as, when absent. */
  self?: SelfRecipe;
  /** Several teachers, two at least; one when absent. */
  teachers?: TeacherMemberRecipe[];
  /** What several teachers are together; there where they are. */
  combine?: Combine;
  /** What the weights of its linear layers but the head are quantised to while they are loaded; absent is not. */
  quantize?: QuantizeDtype;
  /**
   * Whether its layers come from disk, two at a time, each time they are needed: always or never; when absent, where the run does not fit
   * otherwise.
   */
  stream?: boolean;
  /** An adapter on the teacher is trained along with the student (online distillation). */
  train: boolean;
  /** That adapter; like the student's when absent. */
  adapter?: AdapterRecipe;
  /** Runs the teacher once, before training, and trains on what is kept of it. */
  cache?: TeacherCacheRecipe;
  /** The teacher has a tokenizer of its own, and its tokens are aligned with the student's. */
  align?: AlignRecipe;
  /** The folder or GGUF file with the teacher's tokenizer, where it is not in `model`. */
  tokenizer?: string;
  /** The teacher reads the privileged text of each row, before what the student reads. */
  privileged?: boolean;
}

/**
 * The student as its own teacher: without what is trained of it (`initial`); with what was trained of it up to some steps back, copied anew
 * every so many steps (`lagged`); or with an exponential mean of what was trained of it (`mean`).
 */
export type SelfRecipe =
  | { kind: "initial" }
  | { kind: "lagged"; every: number }
  | { kind: "mean"; decay: number };

/**
 * What several teachers are together: the weighted mean of their distributions (`mixture`), the product of their distributions, each to the
 * power of its weight (`product`), for each sample the one whose cross-entropy on it is least (`best`; MinCE, FuseLLM, arXiv 2401.10491), or
 * the one that the sample's row names (`tag`).
 */
export type Combine = "mixture" | "product" | "best" | "tag";

/** One of several teachers. */
export interface TeacherMemberRecipe {
  /** A Hugging Face folder or a GGUF file, `student`, or `server` for one behind a server. */
  model: string;
  /** Where it is served. */
  server?: ServedTeacherRecipe;
  /** What is kept of it; what `teacher.cache` says when absent, and without either it is there while the student learns. */
  cache?: TeacherCacheRecipe;
  /** How rows, reports and schedules call it; the file's name without its ending when absent. */
  name?: string;
  /** Its share in a mixture or a product, against the weights of the others. */
  weight?: number;
  /** The course of `weight`. */
  schedule?: { weight: Course };
  /** The layers that are kept, counted from 0, rising; all when absent. */
  layers?: number[];
  quantize?: QuantizeDtype;
  self?: SelfRecipe;
  /** The folder or GGUF file with its tokenizer, where it is not in `model`. */
  tokenizer?: string;
}

/** How the values of a stored hidden state are kept: int8 with one scale for each. */
export type HiddenPrecision = "f32" | "bf16" | "int8";

/** A server of the OpenAI API that gives log-probabilities of a prompt. */
export type ServedTeacherRecipe = ServerSettings;

/** How tokens of a teacher with another tokenizer are aligned with the student's. */
export interface AlignRecipe {
  /** What makes tokens of both sides one group: the bytes that they stand for, or the least edit distance of their texts. */
  by: "bytes" | "edit-distance";
  /** What becomes of rows whose bytes the two tokenizers do not spell alike. */
  unlike: "refuse" | "skip";
  /** Which tokens of the two vocabularies are compared as equal: those of the same bytes, or near ones too; the same when absent. */
  vocabulary?: "same" | "nearest";
}

/** What is kept of the teacher at each position: `topK`, `samples`, or the hidden states that its head reads. */
export interface TeacherCacheRecipe {
  /** Its last hidden state, after the final norm; absent where a part of its distribution is kept. */
  payload?: "hidden";
  /** Its largest logits, this many. */
  topK?: number;
  /** Tokens drawn from its distribution, this often (RS-KD, arXiv 2503.16870). */
  samples?: number;
  /** Seed of the draws. */
  seed: number;
  /** Of the logits kept, which are stored as distances from the largest: f16 or f32. Of hidden states: bf16, int8 or f32. */
  precision: "f16" | HiddenPrecision;
  /** Folder that runs share; the run's own when absent. */
  folder?: string;
}

/** The model that learns. */
export interface StudentRecipe {
  /** A Hugging Face folder, a GGUF file, or `teacher` for the teacher's own weights. */
  model: string;
  /** The layers that are kept, counted from 0, rising; all when absent. */
  layers?: number[];
  /** A shape file that says which of the model's layers are kept; instead of `layers`. */
  shape?: string;
  /** Smaller shapes of it that are trained along with the whole model. */
  shapes?: ShapesRecipe;
  /** What its weights are rounded to; what the files hold when absent, and f16 for a GGUF file in f16 or quantised. */
  dtype?: "f32" | "f16" | "bf16";
  /** What the weights of its linear layers but the head are quantised to while they are loaded; absent is not. */
  quantize?: QuantizeDtype;
  /** Tensors whose own values are trained: norms, biases, head, linear, names of tensors or modules, or ends of such names. */
  train?: string[];
}

/** The shapes of a student below the whole model: every depth in every width. */
export interface ShapesRecipe {
  /** The layers that each depth below the whole model keeps, counted from 0, rising. */
  layers: number[][];
  /** The widths below the whole one. */
  widths?: ShapesWidthRecipe[];
}

/** A width of the student. */
export interface ShapesWidthRecipe {
  /** What it is called: the part that stays. */
  width: number;
  /** A shape file that says which heads and channels of every layer are kept. */
  shape: string;
}

/** Training and held-out text. */
export interface DataRecipe {
  /** File, or several that are mixed. */
  train: string | TrainingSet[];
  /** What the weights of several are shares of; rows when absent. */
  mix?: "rows" | "tokens";
  /**
   * File, or several that are measured one by one, the first of which decides what is best. When absent, 5 % of each training
   * set, chosen by hash.
   */
  heldOut?: string | HeldOutSet[];
  /** Longest sample in tokens. */
  contextLength: number;
  mask: "auto" | "completion" | "all";
  tooLong: "cut" | "drop" | "refuse" | "split";
  endToken: "auto" | "eos" | "bos" | "none" | number;
  /** Puts prompt/completion rows through the chat template, as a user's and an assistant's turn. */
  template: boolean;
  /** Most rows used of each training set. */
  limit?: number;
  /** From which columns the parts of a row are read; those of their own names when absent. */
  columns?: ColumnNames;
  /** Whether rows that say the same as another are left out. */
  deduplicate?: boolean;
  /** Tokens that pieces of a split sample have in common; 1 when absent. */
  overlap?: number;
  /** Which of an assistant's turns are learnt; all when absent. */
  turns?: "all" | "last" | "each";
  /** Whether training rows stay on the disk until they are drawn; where they are large when absent. */
  streaming?: boolean;
  /** Whether special tokens that are written out stay text (absent) or become those tokens. */
  specialTokens?: "text" | "parse";
}

/** One of several held-out sets. */
export interface HeldOutSet {
  path: string;
  /** How reports call it; the file's name without its ending when absent. */
  name?: string;
  /** As `data.columns`, of this file. */
  columns?: ColumnNames;
}

/** One of several training sets. */
export interface TrainingSet extends HeldOutSet {
  /** Its share of what is drawn, against the weights of the others. */
  weight: number;
}

/** One term of the objective. */
export interface ObjectiveTerm {
  /** Id of a loss plugin. */
  loss: string;
  /** The model that this loss trains; the other one is its target. Absent is the student. */
  learner?: Learner;
  /**
   * Tokens that it counts: the `supervised` ones (absent), `all` that have a next one in their sample, or `unshifted`: those that are
   * targets, one later than those that predict them.
   */
  tokens?: "supervised" | "all" | "unshifted";
  /** Counts samples alone whose row says that this wrote it; absent is all. */
  source?: string;
  weight: number;
  /** Gives the loss the size of all those without it together; absent is no. */
  balance?: Balance;
  temperature: number;
  /** Multiplies the weight by temperature^2, so that gradients keep their size (arXiv 1503.02531); absent is no. */
  squareTemperature?: boolean;
  /** The course of `weight`, `temperature` or an option that the loss lets change, by its name. */
  schedule?: Record<string, Course>;
  /** Checked by the loss's own schema. */
  options: Record<string, unknown>;
}

/** A model of a run, as a loss sees it. */
export type Learner = "student" | "teacher";

/** Loss-magnitude balancing (AmoebaLLM, arXiv 2411.10606). */
export interface Balance {
  /** Largest factor. */
  max: number;
}

/** What is trained beside frozen weights. */
export interface AdapterRecipe {
  /** Id of an adapter plugin. */
  type: string;
  rank: number;
  alpha: number;
  dropout: number;
  targets: "all-linear" | string[];
  rslora: boolean;
  loraPlusRatio: number;
  /** Rank by layer; keys as in PEFT, see `MODULE_PATTERN`. */
  rankPattern: Record<string, number>;
  /** Alpha by layer, likewise. */
  alphaPattern: Record<string, number>;
  /** Checked by the adapter's own schema. */
  options: Record<string, unknown>;
}

/** How it is trained. */
export interface TrainRecipe {
  steps: number;
  tokensPerMicroBatch: number;
  /** Micro-batches a step. */
  accumulation: number;
  learningRate: number;
  schedule: "constant" | "linear" | "cosine";
  /** Steps over which the learning rate rises from 0. */
  warmup: number;
  minimumLearningRate: number;
  weightDecay: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Largest global gradient norm; 0 is no clipping. */
  clip: number;
  /** Steps between checkpoints; 0 is only when the run stops or ends. */
  checkpointEvery: number;
  /** Steps between evaluations; 0 is only before and after. */
  evaluateEvery: number;
  /** Checkpoints kept beside the best. */
  keepCheckpoints: number;
  activationCheckpointing: "auto" | "on" | "off";
  /** What the operands of frozen linear layers are rounded to; absent is f32. */
  compute?: "f32" | "f16";
  /** Rows of the language-model head at a time. */
  headChunk: "auto" | number;
  seed: number;
  divergence: DivergenceGuard;
  /** How the shapes of `student.shapes` are trained; there where they are. */
  oneForAll?: OneForAllRecipe;
  /** Texts that the student writes to learn from the teacher on them; absent is none. */
  onPolicy?: OnPolicyRecipe;
}

/** The `source` of samples that the student has written in the run. */
export const ON_POLICY = "on-policy";

/** On-policy distillation: GKD (arXiv 2306.13649) with whatever losses the objective has. */
export interface OnPolicyRecipe {
  /** Steps between rollouts; the student as it is then writes the answers of so many steps. */
  every: number;
  /** Share of the samples of a batch that leave for answers of the student to their prompts. */
  ratio: number;
  /** Most new tokens of an answer. */
  tokens: number;
  /** Tokens of a text that are its prompt, where no part of it is one. */
  promptTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  /** Answers written at once. */
  together: number;
  /** Weighs tokens by what the student has learnt since it wrote them; absent is no. */
  importance?: { max: number };
  alarms: RolloutAlarms;
}

/** When a run warns of what the student writes. */
export interface RolloutAlarms {
  /** Mean tokens of an answer; 0 is never. */
  shortest: number;
  /** Share of answers that the limit cuts off; 0 is never. */
  atLimit: number;
  /** Mean entropy in nats; 0 is never. */
  entropy: number;
  /** Share of n-grams that an answer has had before; 1 is never. */
  repetition: number;
  /** Tokens of an n-gram. */
  ngram: number;
}

/** Training several shapes at once: the whole model by the objective, the others from it or the teacher (AmoebaLLM, arXiv 2411.10606). */
export interface OneForAllRecipe {
  /** Shapes a step trains beside the whole model and the smallest. */
  random: number;
  /** What the shapes below the whole model learn from: it, as it is in the step, when absent; or the frozen teacher. */
  target?: "whole" | "teacher";
  /** Id of the loss that compares a shape with what it learns from. */
  loss: string;
  /** Its share; the rest is cross-entropy with the data. */
  lossWeight: number;
  /** Bounds of the factor that gives a shape's loss the size of the whole model's. */
  balance: { min: number; max: number };
}

/** When a run that gets worse is stopped. A loss or gradient that is not a finite number always stops it. */
export interface DivergenceGuard {
  /** Stops when the mean loss of a window is this many times the lowest one so far; 0 switches it off. */
  maxLossFactor: number;
  /** Steps in a window. */
  window: number;
}

/** Texts written by the models before and after. */
export interface SamplesRecipe {
  prompts: string[];
  tokens: number;
  temperature: number;
  topK: number;
  topP: number;
  seed: number;
}

/** What the run leaves. */
export interface OutputRecipe {
  /** The run's folder; `runs/<id>` when absent. */
  folder?: string;
  /** Whether the merged model is written too. */
  merged: boolean;
}

/** Bounds of a run. They do not change its numbers. */
export interface LimitsRecipe {
  /** Most bytes on the GPU; the adapter's own limits when absent. */
  gpuBytes?: number;
  /** Seconds without a sign of life after which the run is ended. */
  watchdogSeconds: number;
}

/** One term of the objective as one may write it. */
export interface ObjectiveTermInput extends Partial<Omit<ObjectiveTerm, "schedule" | "balance">> {
  loss: string;
  balance?: Partial<Balance>;
  schedule?: Record<string, CourseInput>;
}

/** One of several teachers as one may write it. */
export interface TeacherMemberInput extends Omit<TeacherMemberRecipe, "schedule" | "server" | "cache"> {
  schedule?: { weight: CourseInput };
  server?: ServedTeacherInput;
  cache?: Partial<TeacherCacheRecipe>;
}

/** A server as one may write it. */
type ServedTeacherInput = Pick<ServedTeacherRecipe, "url" | "model"> & Partial<ServedTeacherRecipe>;

type CourseInput = Omit<Course, "shape"> & Partial<Pick<Course, "shape">>;

/** What one may write: all but the models and the training data has a default. */
export interface RecipeInput {
  teacher: Pick<TeacherRecipe, "quantize" | "stream" | "self" | "combine" | "privileged" | "tokenizer"> & {
    /** Absent where there are `teachers`. */
    model?: string;
    teachers?: TeacherMemberInput[];
    train?: boolean;
    adapter?: Partial<AdapterRecipe>;
    cache?: Partial<TeacherCacheRecipe>;
    align?: Partial<AlignRecipe>;
    server?: ServedTeacherInput;
  };
  student: Omit<StudentRecipe, "shapes"> & { shapes?: Partial<ShapesRecipe> };
  data: Partial<Omit<DataRecipe, "train">> & {
    train: string | (Omit<TrainingSet, "weight"> & { weight?: number })[];
  };
  objective?: ObjectiveTermInput[];
  adapter?: Partial<AdapterRecipe> | "none";
  train?: Partial<Omit<TrainRecipe, "divergence" | "oneForAll" | "onPolicy">> & {
    divergence?: Partial<DivergenceGuard>;
    oneForAll?: Partial<Omit<OneForAllRecipe, "balance">> & { balance?: Partial<OneForAllRecipe["balance"]> };
    onPolicy?: Partial<Omit<OnPolicyRecipe, "importance" | "alarms">> & {
      importance?: Partial<OnPolicyRecipe["importance"] & object>;
      alarms?: Partial<RolloutAlarms>;
    };
  };
  samples?: Partial<SamplesRecipe>;
  /** Tasks as they are written, or, in a recipe's file, paths of their files. */
  evaluate?: { tasks: (string | { [field: string]: unknown })[] };
  output?: Partial<OutputRecipe>;
  limits?: Partial<LimitsRecipe>;
}

/**
 * Types a recipe written in TypeScript; returns it unchanged.
 *
 * @example
 * ```ts
 * export default defineRecipe({
 *   teacher: { model: "./teacher" },
 *   student: { model: "./student" },
 *   data: { train: "./train.jsonl" },
 * });
 * ```
 */
export function defineRecipe(recipe: RecipeInput): RecipeInput {
  return recipe;
}
