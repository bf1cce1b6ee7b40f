/**
 * The steps of one attempt: batches in, numbers out, measurements and checkpoints where they are due.
 *
 * @module
 */
import type { Batches } from "../../text/batch_stream.ts";
import type { CheckpointState } from "../checkpoint/checkpoint.ts";
import type { RunCheckpoints } from "../checkpoint/run_checkpoints.ts";
import type { Rollouts } from "../generate/rollouts.ts";
import type { PackedBatch } from "../../text/packing.ts";
import type { ShapeMetrics } from "../program/metrics/step_metrics.ts";
import type { Trainer } from "../program/trainer.ts";
import { type Attempt, finite, finiteAll } from "./attempt.ts";
import { checkDivergence } from "./divergence_guard.ts";
import type { MetricsEvent } from "./events.ts";
import { evaluate } from "./measurements.ts";

/** Seconds that steps may wait before their numbers are fetched and shown. */
const REPORT_SECONDS = 1;

/** Trains, from a step on. */
export class TrainingLoop {
  readonly #attempt: Attempt;
  readonly #trainer: Trainer;
  readonly #stream: Batches;
  readonly #checkpoints: RunCheckpoints;
  readonly #identity: CheckpointState["identity"];
  readonly #rollouts: Rollouts | undefined;
  /** Since the numbers of steps were last fetched, or something else took its time. */
  #lastReport = performance.now();
  #stepsSinceReport = 0;

  /**
   * @param identity What the run is made of, for its checkpoints
   * @param rollouts The student's own texts, where it learns from them
   */
  constructor(
    attempt: Attempt,
    trainer: Trainer,
    stream: Batches,
    checkpoints: RunCheckpoints,
    identity: CheckpointState["identity"],
    rollouts?: Rollouts,
  ) {
    [this.#attempt, this.#trainer, this.#stream] = [attempt, trainer, stream];
    [this.#checkpoints, this.#identity, this.#rollouts] = [checkpoints, identity, rollouts];
  }

  /**
   * @param from Steps done before
   * @returns the steps done, and whether it was asked to stop before the last
   * @throws {DivergedError} if the loss becomes NaN or runs away
   */
  async run(from: number): Promise<{ done: number; stopped: boolean }> {
    const { host, progress, recipe: { train } } = this.#attempt;
    const { steps, evaluateEvery, checkpointEvery } = train;
    this.#attempt.stage("train", `training ${steps} steps`);
    this.#lastReport = performance.now();
    for (let step = from; step < steps;) {
      await this.#trainer.step(step, await this.#window(step));
      step++;
      this.#stepsSinceReport++;
      const control = host.control();
      const evaluates = evaluateEvery > 0 && step % evaluateEvery === 0 && step < steps;
      const saves = control !== "run" || (checkpointEvery > 0 && step % checkpointEvery === 0) ||
        step === steps;
      const waited = (performance.now() - this.#lastReport) / 1000;
      if (evaluates || saves || this.#trainer.mustCollect || waited > REPORT_SECONDS) await this.#report();
      if (evaluates || step === steps) {
        await evaluate(this.#attempt, this.#trainer, step);
        this.#lastReport = performance.now();
      }
      // A new best is kept even where no checkpoint was due.
      if (saves || progress.best?.step === step) await this.#save(step);
      if (control === "stop") return { done: step, stopped: step < steps };
    }
    return { done: steps, stopped: false };
  }

  /** The micro-batches of a step; where the student's own texts are due, they are written first. */
  async #window(step: number): Promise<PackedBatch[]> {
    const { host, recipe: { train: { accumulation } } } = this.#attempt;
    const rollouts = this.#rollouts;
    if (rollouts?.isDue(step)) {
      const onSlice = () => host.emit({ type: "heartbeat" });
      const { statistics, alarms, seconds } = await rollouts.write(step, this.#stream, onSlice);
      host.emit({ type: "rollout", step, ...statistics, entropy: finite(statistics.entropy), seconds });
      for (const alarm of alarms) host.emit({ type: "warning", ...alarm });
    }
    const next = () => rollouts ? rollouts.next(this.#stream.next()) : this.#stream.next();
    return Array.from({ length: accumulation }, next);
  }

  #told(shapes: readonly ShapeMetrics[]): MetricsEvent["shapes"] & object {
    const { widths } = this.#attempt.setup.oneForAll!.space;
    return shapes.map(({ layers, width, loss, factor }) => ({
      ...{ layers: [...layers], width: widths[width]!.share },
      ...{ loss: finite(loss), factor: finite(factor) },
    }));
  }

  /** Fetches the numbers of queued steps and emits them. @throws {DivergedError} */
  async #report(): Promise<void> {
    const { host, progress, recipe } = this.#attempt;
    const { controllers } = this.#trainer;
    const all = await this.#trainer.collect();
    await this.#trainer.profile();
    const now = performance.now();
    const seconds = (now - this.#lastReport) / 1000 / Math.max(1, this.#stepsSinceReport);
    this.#lastReport = now;
    this.#stepsSinceReport = 0;
    for (const m of all) {
      host.emit({
        type: "metrics",
        step: m.step,
        loss: finite(m.loss),
        losses: finiteAll(m.losses),
        ...(controllers.active ? { controlled: { ...m.controlled } } : {}),
        ...(m.shapes ? { shapes: this.#told(m.shapes) } : {}),
        ...(m.teachers ? { teachers: m.teachers.map((t) => ({ ...t, loss: finite(t.loss) })) } : {}),
        learningRate: m.learningRate,
        gradientNorm: finite(m.gradientNorm),
        supervisedTokens: m.supervisedTokens,
        tokensPerSecond: m.tokens / seconds,
        secondsPerStep: seconds,
      });
      progress.window = checkDivergence(m, progress.window, recipe.train.divergence);
    }
  }

  async #save(step: number): Promise<void> {
    const { host, progress } = this.#attempt;
    const { controllers, planned, setup } = this.#trainer;
    const flat = await this.#trainer.readState();
    progress.seconds = this.#attempt.seconds;
    const drawn = this.#attempt.drawn = this.#stream.drawn();
    const path = await this.#checkpoints.write(flat, {
      step,
      cursor: this.#stream.state(),
      ...(controllers.active ? { controllers: controllers.state() } : {}),
      ...(this.#rollouts ? { rollouts: this.#rollouts.state() } : {}),
      identity: this.#identity,
      storage: setup.student.storage,
      frozen: planned.choices,
      progress,
    });
    host.emit({
      type: "checkpoint",
      step,
      path: path.slice(host.folder.length + 1),
      best: progress.best?.step === step,
      ...(drawn.length > 0 ? { drawn } : {}),
    });
    this.#lastReport = performance.now();
  }
}
