/**
 * The program that scores tokens: a decoder for each model, and the heads of all over some of their rows.
 *
 * @module
 */
import { InputError } from "../../base/errors.ts";
import type { DeviceDescription } from "../../gpu/description.ts";
import { compileRowLoss } from "../../losses/compile.ts";
import type { ResolvedLoss } from "../../losses/traced.ts";
import type { Divergence, RowLoss } from "../../registry/contract.ts";
import type { Registry } from "../../registry/registry.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { assign } from "../../tensor/ops/assign.ts";
import { gatherRows } from "../../tensor/ops/cache.ts";
import { type Plan, plan, Program } from "../../tensor/plan.ts";
import { vocabularyDifference } from "../../text/tokenizer.ts";
import type { Model } from "../inputs/models.ts";
import { chunkedLoss, type HeadInput, headTarget } from "../objective/chunked_loss.ts";
import {
  accuracy,
  agreement,
  confidence,
  reverseKl,
  teacherFirstAmong,
  topOverlap,
} from "../objective/monitors.ts";
import type { RowLosses } from "../objective/row_loss.ts";
import { headChunks } from "../program/plan_training.ts";
import { streamPrompts } from "../program/fed/prompt_features.ts";
import { headInput, traceHead, traceModel } from "../program/traced_model.ts";
import type { OpenedModel } from "./measured_model.ts";

/** The measures of a model alone. */
export const ALONE = {
  /** -log p of the token, nats. */
  loss: "cross-entropy",
  /** Probability of the likeliest token. */
  confidence: confidence.id,
  /** 1 where that is the token. */
  correct: accuracy.id,
} as const;

/** Those of a model beside its teacher; p is the teacher's distribution, q the model's. */
export const BESIDE = {
  /** KL(p || q), nats. */
  forwardKl: "forward-kl",
  /** KL(q || p), nats. */
  reverseKl: reverseKl.id,
  /** Half of KL(p || m) + KL(q || m), m the mean of both; nats. */
  jensenShannon: "jensen-shannon",
  /** Whether both find the same token the likeliest. */
  agreement: agreement.id,
} as const;

/** What is scored, beside what. */
export interface ScoredModels {
  readonly learner: OpenedModel;
  readonly teacher?: OpenedModel | undefined;
  /** How many of the likeliest tokens of both are compared. */
  readonly topK?: readonly number[];
}

/** How much is to be scored. */
export interface ScoringWork {
  /** Tokens of the longest stretch. */
  readonly longest: number;
  /** Of all of them. */
  readonly tokens: number;
  /** Those that are predicted. */
  readonly predicted: number;
}

/** Tokens in one pass, or the longest stretch where that is more. */
const TOKENS = 1024;
/** Most rows that go through the head at once: of a batch of questions few predict anything. */
const HEAD_ROWS = 256;

/** Names of the program's blocks, inputs and output. */
export const SCORING = {
  /** Behind the name of a model. */
  decoder: "decoder",
  head: "head",
  /** Which rows of the hidden states go through the head, i32; -1 for none. */
  rows: "head.rows",
  /** What each of them predicts, i32. */
  labels: "head.labels",
  /** Each measure of each row. */
  values: "values",
} as const;

/** Sizes of the program. */
export interface ScoringSizes {
  readonly tokens: number;
  readonly rows: number;
  readonly positions: number;
}

/** One of the models as it is traced. */
export interface ScoringRole {
  readonly name: string;
  readonly model: Model;
  readonly run: OpenedModel["run"];
}

/**
 * The models as they are traced: the learner first.
 *
 * @throws {InputError} the two mean other tokens by their ids, or the teacher is a run with an adapter that no model can hold
 */
export function scoringRoles(learner: OpenedModel, teacher: OpenedModel | undefined): ScoringRole[] {
  const role = (name: string, { model, run }: OpenedModel): ScoringRole => ({ name, model, run });
  if (!teacher) return [role("model", learner)];
  if (teacher.run) {
    throw new InputError("the teacher is a run with an adapter that cannot be merged", {
      where: teacher.model.path,
      hint: "Name a model: a folder, a GGUF file or hf:ORG/NAME.",
    });
  }
  const difference = vocabularyDifference(teacher.tokenizer, learner.tokenizer);
  if (difference) {
    throw new InputError(`has another vocabulary than the teacher: ${difference}`, {
      where: learner.model.path,
      hint: "Agreement is measured token by token, so both must mean the same by their ids.",
    });
  }
  const roles = [role("model", learner), role("teacher", teacher)];
  const rows = roles.map(({ model }) => model.config.vocabularySize);
  // Embeddings are padded to different sizes: what stands behind the shorter one has no meaning.
  return rows[0] === rows[1]
    ? roles
    : roles.map((role) => ({ ...role, model: role.model.withRows(Math.min(...rows)) }));
}

/** What is measured of each row, in order. */
export function scoringTerms(
  registry: Registry,
  hasTeacher: boolean,
  topK: readonly number[],
): ResolvedLoss[] {
  const term = (loss: Divergence | RowLoss, options: Record<string, unknown> = {}): ResolvedLoss => ({
    ...{ loss, options, name: loss.id, weight: 0, temperature: 1, monitor: true },
  });
  const builtin = (id: string) => {
    const loss = registry.get("loss", id) as Divergence | RowLoss;
    return term(loss, registry.options(loss, {}, id) as Record<string, unknown>);
  };
  return [
    ...[builtin(ALONE.loss), term(confidence), term(accuracy)],
    ...(hasTeacher
      ? [
        ...[builtin(BESIDE.forwardKl), term(reverseKl), builtin(BESIDE.jensenShannon), term(agreement)],
        ...topK.flatMap((k) => [term(topOverlap(k)), term(teacherFirstAmong(k))]),
      ]
      : []),
  ];
}

/** Sizes that suffice for some work. */
export function scoringSizes(
  { longest, tokens, predicted }: ScoringWork,
  vocabulary: number,
  device: DeviceDescription,
): ScoringSizes {
  const head = { tokensPerMicroBatch: Math.min(HEAD_ROWS, predicted), headChunk: "auto" as const };
  const stream = Math.max(longest, Math.min(TOKENS, tokens));
  return {
    tokens: Math.ceil(stream / 64) * 64,
    rows: headChunks(head, vocabulary, device).chunkRows,
    positions: longest,
  };
}

/** Plans the program: a decoder for each model, and the head of all over some rows. */
export function planScoring(
  roles: readonly ScoringRole[],
  terms: readonly ResolvedLoss[],
  sizes: ScoringSizes,
  device: DeviceDescription,
): Plan {
  const program = new Program();
  const stream = { length: sizes.positions };
  const hiddenOf = (graph: Graph, { name, model }: ScoringRole) =>
    graph.state(`${name}.hidden`, [sizes.tokens, model.config.hiddenSize], "f32", "program");
  for (const role of roles) {
    const graph = program.block(`${role.name} ${SCORING.decoder}`);
    const { run } = role;
    const { hidden } = traceModel(graph, role.name, role.model, sizes.tokens, stream, {
      attach: run && ((prompt) => run.attach(graph, prompt)),
    });
    assign(hiddenOf(graph, role), [hidden], (_, h) => h!);
  }
  const graph = program.block(SCORING.head);
  const index = graph.input(SCORING.rows, [sizes.rows], "i32");
  const side = (role: ScoringRole): HeadInput => {
    const { run, model, name } = role;
    const prompt = () =>
      gatherRows(streamPrompts(graph, model, graph.input("tokens", [sizes.tokens], "i32")), index);
    const hooks = run?.attach(graph, prompt);
    const head = traceHead(graph, name, model, sizes.tokens, stream, hooks);
    return headInput({ ...head, hidden: gatherRows(hiddenOf(graph, role), index) }, run !== undefined);
  };
  const [learner, target] = roles.map(side) as [HeadInput, HeadInput?];
  const { values } = chunkedLoss(graph, {
    learner,
    ...(target ? { target: headTarget(target) } : {}),
    labels: graph.input(SCORING.labels, [sizes.rows], "i32") as Tensor,
    ...{ losses: rowLosses(terms, roles[0]!.model.config.vocabularySize, graph) },
    ...{ chunkRows: sizes.rows, gradient: false },
  });
  graph.output(SCORING.values, values);
  return plan(program, device);
}

function rowLosses(terms: readonly ResolvedLoss[], vocabulary: number, graph: Graph): RowLosses {
  const needsTarget = terms.some(({ name }) => name === BESIDE.forwardKl);
  return {
    ...{ valueCount: terms.length, needsTarget, needsCache: false, tokenMasks: false },
    weights: terms.map(() => undefined),
    compile: (device, gradient) => {
      const { label, wgsl, memoryWords, size, groups } = compileRowLoss(terms, { vocabulary }, device, {
        gradient,
      });
      return {
        ...{ name: label, wgsl, memoryWords, groups },
        size: (rows, part) => size(rows, (name) => graph.scalar(name), part),
      };
    },
  };
}
