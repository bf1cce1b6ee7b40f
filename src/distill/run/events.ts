/**
 * What a run says while it works, and what the trainer needs of the process it runs in. The terminal, the report and the service
 * all read this one stream.
 *
 * @module
 */
import type { ProviderId } from "../../gpu/provider.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { Registry } from "../../registry/registry.ts";
import type { DrawnShare } from "../../text/batch_stream.ts";
import type { PackingReport } from "../inputs/packing_report.ts";
import type { RunResult } from "../export/exports.ts";
import type { DeviceIdentity, TunedChoice, TunedDevice } from "../../tune/tuned.ts";

/** Where a run stands. */
export type RunState =
  | "queued"
  | "running"
  | "paused"
  | "interrupted"
  | "succeeded"
  | "failed"
  | "cancelled";

/** The run's state changed. */
export interface StateEvent {
  type: "state";
  state: RunState;
  /** Why, where that is not plain. */
  message?: string;
  /**
   * Why it is queued once more: someone asked for it, so that restarts and time count anew, or the service that worked on it ended in good
   * order. Without it, it continues by itself because its process died.
   */
  by?: "request" | "service-end";
}

/** What the run is about to do; sent once before training. */
export interface PlanEvent {
  type: "plan";
  adapterName: string;
  /** Where WebGPU comes from, unless it is the runtime's own. */
  provider?: ProviderId;
  /** Whether the adapter is a CPU in disguise. */
  software: boolean;
  /** Bytes on the GPU by category (weights, adapter and optimiser, activations, head chunk, inputs, ...). */
  bytes: Record<string, number>;
  totalBytes: number;
  parameters: { teacher: number; student: number; trainable: number };
  data: {
    trainSamples: number;
    heldOutSamples: number;
    trainTokens: number;
    supervisedTokens: number;
    /** How the training samples are packed; absent in logs from before it was told. */
    packing?: PackingReport;
    /** Training sets that are mixed; absent where there is one. */
    sets?: { name: string; weight: number; samples: number; tokens: number; supervisedTokens: number }[];
    /** Held-out sets, the one first that decides; absent where there is one. */
    heldOutSets?: { name: string; samples: number; tokens: number; supervisedTokens: number }[];
  };
  /** Optimiser steps of the run. */
  steps: number;
  /** Kernels of training that are others than stand first, by what they are for: the device chose them. Absent where there are none. */
  kernels?: Record<string, string>;
}

/** A part of the work began, such as `load-teacher`; `message` is for people. */
export interface StageEvent {
  type: "stage";
  stage: string;
  message: string;
}

/**
 * One optimiser step. Losses are means over the tokens that they count, in nats; null where not finite, absent where a step had none
 * of their tokens.
 */
export interface MetricsEvent {
  type: "metrics";
  /** Steps done, from 1. */
  step: number;
  /** The weighted objective. */
  loss: number | null;
  /** Each loss of the objective by its id, unweighted. */
  losses: Record<string, number | null>;
  /** What controllers had set for the step, such as `taid.t`; absent without controllers. */
  controlled?: Record<string, number>;
  /** The shapes that the step trained, the whole model first; absent where the student has one. */
  shapes?: { layers: number[]; width: number; loss: number | null; factor: number | null }[];
  /**
   * What each of several teachers taught in the step, where each sample has one of them: supervised tokens of its samples, and the mean of the
   * weighted losses over them.
   */
  teachers?: { name: string; tokens: number; loss: number | null }[];
  learningRate: number;
  /** Global gradient norm before clipping. */
  gradientNorm: number | null;
  supervisedTokens: number;
  /** Tokens through the student a second, filler left out. */
  tokensPerSecond: number;
  secondsPerStep: number;
}

/** How far a task is that trains nothing. */
export interface ProgressEvent {
  type: "progress";
  /** Hundredths of the work that are done. */
  step: number;
  /** What is worked on, for people. */
  message: string;
  /** Bytes of values gone through a second, four for each value; absent where the work is no such. */
  bytesPerSecond?: number;
  /** Tokens through a model a second; absent where none go through one. */
  tokensPerSecond?: number;
  /** A forecast for all that is left; absent while nothing is known. */
  secondsLeft?: number;
}

/** A measurement on the held-out samples; of several sets, on the first, and in `sets` on all. */
export interface EvaluationEvent extends SetEvaluation {
  type: "evaluation";
  /** Steps done; 0 is before training. */
  step: number;
  model: "teacher" | "student";
  /** Each of several held-out sets by its name; absent where there is one. */
  sets?: Record<string, SetEvaluation>;
}

/** What is measured on one set. */
export interface SetEvaluation {
  /** Cross-entropy in nats a token. */
  loss: number | null;
  /** Further losses by id, such as the KL to the teacher. */
  losses: Record<string, number | null>;
  /** Supervised tokens measured. */
  tokens: number;
}

/** A text written by a model. */
export interface SampleEvent {
  type: "sample";
  step: number;
  model: "teacher" | "student";
  prompt: string;
  /** The continuation, without the prompt. */
  text: string;
}

/** The student has answered prompts of the training data, to learn from the teacher on its answers. */
export interface RolloutEvent {
  type: "rollout";
  /** Steps done. */
  step: number;
  answers: number;
  /** Of all answers, their stop tokens with them. */
  tokens: number;
  /** Tokens of an answer. */
  meanLength: number;
  /** Share of answers that were cut off by their limit. */
  atLimit: number;
  /** Mean entropy of the student where it wrote, in nats, at the sampling temperature; null where it is not finite. */
  entropy: number | null;
  /** Share of n-grams that their answer has had before. */
  repetition: number;
  seconds: number;
}

/** A checkpoint lies on the disk. */
export interface CheckpointEvent {
  type: "checkpoint";
  step: number;
  /** Relative to the run's folder. */
  path: string;
  /** Whether its held-out loss is the lowest so far. */
  best: boolean;
  /** What has been drawn of each training set so far; absent where there is no list of them. */
  drawn?: DrawnShare[];
}

/** A further attempt continues after `step`: what was said of later steps no longer holds. Its first event, before any metrics. */
export interface RewindEvent {
  type: "rewind";
  /** The step of the checkpoint; -1 where there is none, so that not even the evaluation before training holds. */
  step: number;
}

/** Something the user should know that does not stop the run. */
export interface WarningEvent {
  type: "warning";
  code: string;
  message: string;
}

/** Why the attempt ends. */
export interface ErrorEvent {
  type: "error";
  code: string;
  message: string;
  hint?: string;
  exitCode: number;
  /** Only when asked for with LIMBECK_DEBUG. */
  stack?: string;
}

/** Where the time of training went, by kernel, longest first; only of a run that was to be profiled. */
export interface ProfileEvent {
  type: "profile";
  kernels: {
    kernel: string;
    launches: number;
    milliseconds: number;
    flops: number;
    /** Bytes of all that is bound. */
    bytes: number;
  }[];
}

/** What every shape of the student loses on the held-out samples, where several are trained at once: before the first step and at the end. */
export interface ShapesEvent {
  type: "shapes";
  /** Steps done; 0 is before training. */
  step: number;
  /** The whole model first. */
  shapes: {
    /** As `limbeck export --shape` takes it. */
    name: string;
    /** Layers that are kept. */
    layers: number[];
    /** Part of the width that stays. */
    width: number;
    /** Without the adapter. */
    parameters: number;
    /** Cross-entropy in nats a token; null where it is not finite. */
    loss: number | null;
    /** Tokens through it a second while it was measured; null where heads or channels are masked, which saves no time as cutting does. */
    tokensPerSecond: number | null;
  }[];
}

/** Which of several teachers teaches which samples, where each has one: once, before training. */
export interface TeachersEvent {
  type: "teachers";
  /** How it was chosen: by the least cross-entropy on the sample, or by a tag of its row. */
  combine: "best" | "tag";
  /** Of the training samples, in the recipe's order. */
  teachers: {
    name: string;
    samples: number;
    /** Supervised tokens. */
    tokens: number;
    /** Its cross-entropy on them in nats a token; null where it was not measured, or there are none. */
    loss: number | null;
    /** Its cross-entropy on all training samples; null where it was not measured. */
    lossOfAll: number | null;
  }[];
}

/** The device has chosen among kernels of the run, which were timed on it: once, before training, and only of those that were not known. */
export interface TunedEvent {
  type: "tuned";
  device: DeviceIdentity;
  choices: TunedChoice[];
  /** Choices that were not made, as there was no time or no memory. */
  left: number;
  seconds: number;
}

/** A sign of life. Never stored. */
export interface HeartbeatEvent {
  type: "heartbeat";
}

/** The run is done. */
export interface ResultEvent {
  type: "result";
  result: RunResult;
}

/** An event as the trainer emits it. */
export type RunEventBody =
  | StateEvent
  | PlanEvent
  | StageEvent
  | MetricsEvent
  | ProgressEvent
  | EvaluationEvent
  | SampleEvent
  | RolloutEvent
  | CheckpointEvent
  | RewindEvent
  | WarningEvent
  | ErrorEvent
  | ProfileEvent
  | ShapesEvent
  | TeachersEvent
  | TunedEvent
  | HeartbeatEvent
  | ResultEvent;

/** What the log adds to an event. */
export interface EventStamp {
  /** Place in the run's log: 1, 2, 3, ... without gaps, across attempts. */
  seq: number;
  /** ISO 8601, UTC. */
  time: string;
  /** Attempt of the run, from 1. */
  attempt: number;
}

/** An event as it is stored and read. */
export type RunEvent = RunEventBody & EventStamp;

/** What a run wants of the trainer: go on, save and go on, or save and end. */
export type RunControl = "run" | "checkpoint" | "stop";

/** What a run knows of its device's kernels, and whether it may find out more. */
export interface RunTuning {
  /** What was measured before, on this device and others. */
  readonly kept: readonly TunedDevice[];
  /** Whether kernels that are not known are timed: by default where a GPU does the work, and not where a CPU plays one. */
  readonly measure: "auto" | "always" | "never";
  /** Seconds that it may spend on that; a few by default. */
  readonly seconds?: number;
}

/** The surroundings of one attempt at a run, as the trainer sees them. `Plugins` is what it gets its plugins as. */
export interface RunHost<Plugins = Registry> {
  /** Absolute path of the run's folder. */
  readonly folder: string;
  /** Whether to continue from a checkpoint in `folder`; then the first event is a rewind. */
  readonly resume: boolean;
  /**
   * The newest checkpoint that may be continued from, by its step; -1 for none. What was said before a later one was lost with the
   * process that listened, and would be missing from the metrics.
   */
  readonly resumeLimit: number;
  /** Whether each kernel is measured. */
  readonly profile?: boolean;
  /** Absolute path of the folder of what was measured of shapes, which runs share; absent where there is none. */
  readonly evaluations?: string;
  /** Absolute path of a folder of teachers' caches that runs share; absent where there is none. */
  readonly caches?: string;
  /** What is known of the device's kernels; without it, the run takes those that stand first. */
  readonly tuning?: RunTuning;
  /** Losses and adapters by id. */
  readonly registry: Plugins;
  /** The device to work on, which stays the caller's to close; without it one is opened for this attempt. */
  readonly gpu?: Gpu;
  /** Reports. Order is kept; nothing is lost before the process ends. */
  emit(event: RunEventBody): void;
  /**
   * What is asked at this moment, read once a step. `checkpoint` is answered once: asking takes it back to `run`. `stop` stays; the
   * trainer saves a checkpoint and returns a result of status `paused`.
   */
  control(): RunControl;
}

/** The share of the gap between student and teacher that training closed; null where there is none to close. */
export function gapClosed(
  teacher: number | null,
  before: number | null,
  after: number | null,
): number | null {
  if (teacher === null || before === null || after === null || !(before > teacher)) return null;
  return (before - after) / (before - teacher);
}
