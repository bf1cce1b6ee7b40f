/**
 * The models of a block of the training program, and where the gradients of what is trained on them go.
 *
 * @module
 */
import type { Compute, Graph, StepScalar, Tensor } from "../../tensor/graph.ts";
import { accumulate } from "../../tensor/ops/accumulate.ts";
import type { Attach } from "../trained/attach.ts";
import { type DenseTarget, headTarget, type Target } from "../objective/chunked_loss.ts";
import { chosenTarget, mixedTarget, multipliedTarget } from "../objective/several_targets.ts";
import type { ModelFeatureLoss } from "../objective/feature_losses.ts";
import type { LossSet } from "../objective/loss_sets.ts";
import type { Model } from "../inputs/models.ts";
import type { ShapeSpace } from "../inputs/shape_space.ts";
import type { Objective } from "../objective/objective.ts";
import type { ParameterLayout } from "../trained/parameters.ts";
import type { Combine, HiddenPrecision, Learner } from "../recipe/recipe.ts";
import { checkSeparable } from "./shapes/gated_layers.ts";
import { headInput, type Side, traceModel } from "./traced_model.ts";
import { ALIGNED, type AlignedProgram } from "./aligned_groups.ts";
import { besideStudent, PRIVILEGED, type PrivilegedProgram } from "./privileged.ts";
import { streamedSide, type StreamedTeacher } from "./streamed/streamed_teacher.ts";
import { hiddenTarget } from "./fed/hidden_target.ts";
import { cachedInputs } from "./fed/teacher_rows.ts";
import type { Trainables } from "../trained/trainables.ts";
import type { OptimiserSettings } from "./update_block.ts";
import type { WidthInputs } from "./shapes/width_inputs.ts";

/** A model of the program, and how what is trained on it takes part. */
export interface TracedModel {
  readonly model: Model;
  /** Absent where the model stays as it is. */
  readonly attach?: Attach;
  /** Whether an adapter changes what the head computes. */
  readonly adaptsHead: boolean;
  /** The trained parameters of the head: its weight, or those of its adapter. */
  readonly headParameters: readonly string[];
  /** Whether what is trained on it is the copy that follows it, which no loss reaches. */
  readonly copied?: boolean;
}

/** How several shapes are trained at once. */
export interface OneForAll {
  readonly space: ShapeSpace;
  /** Shapes that a step trains, the whole model among them. */
  readonly shapes: number;
  /** Losses of the shapes below the whole model. */
  readonly objective: Objective;
  /** Whose distribution they learn: that of the whole student as it is in the step, or of the frozen teacher. */
  readonly target: Learner;
  /** Bounds of the factors. */
  readonly balance: { readonly min: number; readonly max: number };
  /** Absent where all shapes have one width. */
  readonly widths?: WidthInputs;
}

/** One of several teachers. */
export interface TeacherMember extends TracedModel {
  readonly name: string;
  /**
   * How its hidden states are stored, or that a part of its distribution is; absent where its layers run. Of those that keep a part, the
   * model is not looked at.
   */
  readonly stored?: HiddenPrecision | "part";
}

/** Several teachers as one target. */
export interface SeveralTeachers {
  readonly combine: Combine;
  /** In the recipe's order. */
  readonly members: readonly TeacherMember[];
}

/** Whether of some of several teachers a part of the distribution is stored: then their samples and those of the others have passes apart. */
export function areParted(several: SeveralTeachers | undefined): boolean {
  return several?.members.some(({ stored }) => stored === "part") ?? false;
}

/** What the program is made for: all of it follows from the recipe and the choices of the plan. */
export interface TrainingProgramOptions {
  readonly models: Readonly<Record<Learner, TracedModel>>;
  /** Tokens in a micro-batch, T; a multiple of `chunkRows`. */
  readonly tokens: number;
  /** Rows of the head at a time. */
  readonly chunkRows: number;
  /** Rows of the rotary table: one more than the largest position. */
  readonly positions: number;
  readonly objective: Objective;
  /** The objective's losses over inner values, on the models. */
  readonly features: readonly ModelFeatureLoss[];
  readonly trainables: Trainables;
  readonly recompute: boolean;
  /** What the operands of frozen linear layers are rounded to; f32 where absent. */
  readonly compute?: Compute | undefined;
  /** Micro-batches a step. */
  readonly accumulation: number;
  /** Where several shapes of the student are trained at once. */
  readonly oneForAll?: OneForAll | undefined;
  /** Where the teacher's layers come from disk. */
  readonly streamed?: StreamedTeacher | undefined;
  /** Where there is more than one teacher; that of `models` is the first then, and no part of the program as such. */
  readonly several?: SeveralTeachers | undefined;
  /** Teachers that have samples of their own; 0 where samples have none. */
  readonly taught?: number;
  /** Where the teacher has a tokenizer, and so a stream, of its own. */
  readonly aligned?: AlignedProgram | undefined;
  /** Where the teacher is told more than the student, and so has a stream of its own. */
  readonly privileged?: PrivilegedProgram | undefined;
  readonly optimiser: OptimiserSettings;
  /** Where tokens that an earlier student has written are weighed by what the student makes of them now. */
  readonly importance?: { readonly max: number } | undefined;
}

/** What the model of one of several teachers is called in a block. */
export function memberName(name: string): string {
  return `teacher ${name}`;
}

/** Where {@linkcode GradientSums} adds up. */
export interface GradientPlace {
  readonly state: "gradients" | "shapeGradients";
  /** What the first of a micro-batch leaves of the one before; 1 is all. */
  readonly keep: StepScalar | 1;
}

/** Adds gradients up in a flat buffer: the first of a micro-batch onto what is left of the one before. */
export class GradientSums {
  readonly #graph: Graph;
  readonly #layout: ParameterLayout;
  readonly #place: GradientPlace;
  /** The parameters that got one. */
  readonly written = new Set<string>();

  constructor(
    graph: Graph,
    layout: ParameterLayout,
    place: GradientPlace = { state: "gradients", keep: graph.scalar("accumulate") },
  ) {
    this.#graph = graph;
    this.#layout = layout;
    this.#place = place;
  }

  add(name: string, gradient: Tensor): void {
    const { state, keep } = this.#place;
    const into = this.#layout.view(this.#graph, state, name);
    const { layer } = gradient.producer ?? {};
    const addUp = () => accumulate(into, gradient, this.written.has(name) ? 1 : keep);
    // What a layer that is left out makes of its parameters is left out with it.
    if (layer?.gate) this.#graph.partOf(layer, addUp);
    else addUp();
    this.written.add(name);
  }
}

/** How the student takes part in a block of a run that trains several shapes of it. */
export interface ShapedStudent {
  readonly widths?: WidthInputs | undefined;
}

/** The models of one block, each traced when it is first asked for. */
export class BlockModels {
  /** The trained parameters that were used, by name. */
  readonly parameters = new Map<string, Tensor>();
  readonly #graph: Graph;
  readonly #options: TrainingProgramOptions;
  /** Where gradients go; undefined in evaluation. */
  readonly #sums: GradientSums | undefined;
  readonly #shaped: ShapedStudent | undefined;
  readonly #sides = new Map<string, Side>();

  /**
   * @param sums Where gradients go
   * @param shaped Where the block runs any shape of the student: its layers can be left out, its width is an input
   */
  constructor(graph: Graph, options: TrainingProgramOptions, sums?: GradientSums, shaped?: ShapedStudent) {
    this.#graph = graph;
    this.#options = options;
    this.#sums = sums;
    this.#shaped = shaped;
  }

  side(name: Learner): Side {
    return this.#once(name, () => {
      const { models, tokens, positions, streamed } = this.#options;
      if (name === "teacher" && streamed) return streamedSide(this.#graph, streamed, { tokens, positions });
      return this.#trace(name, models[name]);
    });
  }

  /** What the rows of a learner are compared with by a set of losses. */
  target(learner: Learner, { needsCache, needsTarget, temperature }: LossSet): Target | undefined {
    const { objective, tokens, positions, models, several } = this.#options;
    if (needsCache) return cachedInputs(this.#graph, tokens, objective.target!);
    if (!needsTarget) return undefined;
    if (learner === "student" && several) return this.together(several, temperature);
    if (objective.hidden) {
      return hiddenTarget(this.#graph, models.teacher.model, { tokens, positions }, objective.hidden);
    }
    return headTarget(this.side(learner === "student" ? "teacher" : "student"));
  }

  /** Several teachers as one target. @param temperature See {@linkcode LossSet.temperature} */
  together({ combine, members }: SeveralTeachers, temperature?: string): DenseTarget {
    const isChosen = combine === "best" || combine === "tag";
    const whole = members.flatMap((member, i) => (member.stored === "part" ? [] : [{ member, i }]));
    const targets = whole.map(({ member }): DenseTarget => {
      const name = memberName(member.name);
      // A batch without samples of this teacher is run without it.
      const within = <T>(trace: () => T) =>
        isChosen ? this.#graph.partOf({ name, recompute: false }, trace) : trace();
      const target = within(() => this.#memberTarget(name, member));
      return { logits: (first, count) => within(() => target.logits(first, count)) };
    });
    switch (combine) {
      case "mixture":
        return mixedTarget(targets, temperature);
      case "product":
        return multipliedTarget(targets);
      default:
        return chosenTarget(this.#graph, this.#options.tokens, targets, whole.map(({ i }) => i));
    }
  }

  /** One of several teachers: live, or from its stored hidden states. */
  #memberTarget(name: string, member: TeacherMember): DenseTarget {
    const { tokens, positions } = this.#options;
    const { stored } = member;
    return stored && stored !== "part"
      ? hiddenTarget(this.#graph, member.model, { tokens, positions }, stored, name)
      : headTarget(this.#once(name, () => this.#trace(name, member)));
  }

  #once(name: string, trace: () => Side): Side {
    let side = this.#sides.get(name);
    if (!side) this.#sides.set(name, side = trace());
    return side;
  }

  #trace(name: string, { model, attach, adaptsHead, headParameters, copied = false }: TracedModel): Side {
    const graph = this.#graph;
    const { recompute, aligned } = this.#options;
    const isTeacher = name === "teacher";
    const privileged = isTeacher ? this.#options.privileged : undefined;
    const own = isTeacher ? aligned ?? privileged : undefined;
    const prefix = privileged ? PRIVILEGED.prefix : ALIGNED.prefix;
    const { tokens, positions } = own ?? this.#options;
    const sums = copied ? undefined : this.#sums;
    const training = sums !== undefined;
    const parameter = (p: string) => (copied ? this.#copied(p) : this.parameter(p));
    const taps = new Map<string, Tensor>();
    const shaped = name === "student" ? this.#shaped : undefined;
    const stream = { length: positions, ...(own ? { prefix } : {}) };
    const traced = traceModel(graph, name, model, tokens, stream, {
      attach: attach && ((prompt) => attach(graph, parameter, training, prompt)),
      onTap: (tap, x) => taps.set(tap, x),
      recompute: training && recompute && attach !== undefined,
      gated: shaped !== undefined,
      ...(shaped?.widths ? { narrowed: shaped.widths.in(graph) } : {}),
    });
    if (shaped) checkSeparable(graph);
    const side = headInput(traced, adaptsHead);
    return {
      ...side,
      ...(privileged ? { hidden: besideStudent(graph, side.hidden, this.#options.tokens) } : {}),
      ...(training
        ? {
          trained: headParameters.map((p) => ({
            tensor: this.parameter(p),
            addGradient: (gradient) => sums.add(p, gradient),
          })),
        }
        : {}),
      taps,
    };
  }

  #copied(name: string): Tensor {
    return this.#graph.ungated(() => this.#options.trainables.copied(this.#graph, name));
  }

  /** The tensor of a parameter, trained or fixed. */
  parameter(name: string): Tensor {
    const { trainables } = this.#options;
    let view = this.parameters.get(name);
    if (view) return view;
    view = this.#graph.ungated(() => trainables.view(this.#graph, name));
    if (trainables.layout.has(name)) this.parameters.set(name, view);
    return view;
  }
}
