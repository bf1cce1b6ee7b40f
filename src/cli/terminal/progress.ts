/**
 * A run as it is watched: a bar that is redrawn on a terminal, plain lines elsewhere.
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold, cyan, dim, green, red, stripAnsiCode, yellow } from "@std/fmt/colors";
import type {
  EvaluationEvent,
  MetricsEvent,
  PlanEvent,
  ProfileEvent,
  ProgressEvent,
  RunEvent,
  TeachersEvent,
} from "../../distill/run/events.ts";
import type { Output } from "./output.ts";
import { bytes, count, duration, number3, short } from "../../base/units.ts";
import { tunedText } from "../../tune/tuned.ts";

/** Where no line can be redrawn, milliseconds between lines of metrics. */
const PLAIN_INTERVAL_MS = 5000;

/** Shows the events of a run. */
export class Progress {
  readonly #out: Output;
  readonly #now: () => number;
  #steps = 0;
  #bar = "";
  #lastPlain = -Infinity;
  /** Seconds a step, smoothed over some ten steps; a fresh process says nothing of the next steps' speed. */
  #pace: number | undefined;

  /** @param now clock in milliseconds */
  constructor(out: Output, now: () => number = () => performance.now()) {
    this.#out = out;
    this.#now = now;
  }

  /** Shows an event. */
  show(event: RunEvent): void {
    if (this.#out.json) return this.#out.value(event);
    switch (event.type) {
      case "plan":
        this.#steps = event.steps;
        return this.#lines(planLines(event));
      case "stage":
        return this.#lines([`${dim("·")} ${event.message}`]);
      case "metrics":
        return this.#metrics(event);
      case "progress":
        return this.#progress(event);
      case "evaluation":
        return this.#lines([evaluationLine(event, this.#out.terminal.columns())]);
      case "checkpoint":
        return this.#lines([dim(`· checkpoint ${event.path}${event.best ? ", the best so far" : ""}`)]);
      case "rewind":
        return this.#lines([
          event.step < 0 ? "starting again from the beginning" : `continuing after step ${event.step}`,
        ]);
      case "warning":
        return this.#lines([`${yellow("warning")}: ${event.message}`]);
      case "state":
        if (event.state === "interrupted") {
          this.#lines([yellow(event.message ?? "the training process ended")]);
        }
        return;
      case "teachers":
        return this.#lines(teacherLines(event));
      case "profile":
        return this.#lines(profileLines(event));
      case "tuned":
        return this.#lines([`${dim("·")} ${tunedText(event)}`]);
      case "sample":
      case "rollout":
      case "error":
      case "result":
      case "heartbeat":
        // The summary at the end shows samples and the result; errors are printed like all errors.
        return;
    }
  }

  /** A line among the events, such as what Ctrl-C will do. */
  line(text: string): void {
    this.#lines([text]);
  }

  /** Takes the bar away. */
  end(): void {
    this.#erase();
  }

  /** How far a task is that trains nothing. */
  #progress({ step, message, secondsLeft }: ProgressEvent): void {
    const { interactive, columns, stdout } = this.#out.terminal;
    const left = secondsLeft === undefined ? "" : `  ${duration(secondsLeft)} left`;
    const text = `${step} %  ${message}${left}`;
    if (interactive) {
      this.#erase();
      const filled = Math.round(24 * step / 100);
      const bar = cyan("━".repeat(filled)) + dim("─".repeat(24 - filled));
      this.#bar = `${bar} ${text.slice(0, Math.max(0, columns() - 26))}`;
      return stdout(this.#bar);
    }
    if (this.#now() - this.#lastPlain < PLAIN_INTERVAL_MS) return;
    this.#lastPlain = this.#now();
    this.#out.line(text);
  }

  #metrics(event: MetricsEvent): void {
    const seconds = event.secondsPerStep;
    this.#pace = this.#pace === undefined ? seconds : this.#pace + 0.2 * (seconds - this.#pace);
    const left = (this.#steps - event.step) * this.#pace;
    const { interactive } = this.#out.terminal;
    if (interactive) {
      this.#erase();
      this.#bar = barLine(event, this.#steps, left, this.#out.terminal.columns() - 1);
      this.#out.terminal.stdout(this.#bar);
      return;
    }
    const now = this.#now();
    if (now - this.#lastPlain < PLAIN_INTERVAL_MS && event.step !== this.#steps) return;
    this.#lastPlain = now;
    this.#out.line(`step ${event.step}/${this.#steps}  ${figures(event).join("  ")}  ${duration(left)} left`);
  }

  #lines(lines: readonly string[]): void {
    const bar = this.#bar;
    this.#erase();
    for (const line of lines) this.#out.line(line);
    if (bar) this.#out.terminal.stdout(this.#bar = bar);
  }

  #erase(): void {
    if (this.#bar) this.#out.terminal.stdout("\r\x1b[2K");
    this.#bar = "";
  }
}

function planLines(plan: PlanEvent): string[] {
  const { parameters, data } = plan;
  const widest = Math.max(5, ...Object.keys(plan.bytes).map((name) => name.length));
  const row = (name: string, size: number) => `  ${name.padEnd(widest)}  ${bytes(size).padStart(10)}`;
  return [
    `${bold("GPU")}      ${plan.adapterName}${plan.provider ? ` through ${plan.provider}` : ""}${
      plan.software ? yellow(" (software: a CPU does the work)") : ""
    }`,
    `${bold("Models")}   teacher ${
      parameters.teacher === 0 ? "behind a server" : count(parameters.teacher)
    }, student ${count(parameters.student)}, trained ${count(parameters.trainable)} parameters`,
    `${bold("Data")}     ${data.trainSamples} samples, ${count(data.trainTokens)} tokens, ${
      count(data.supervisedTokens)
    } of them learnt; ${data.heldOutSamples} held out`,
    ...(data.sets ?? []).map(({ name, weight, samples, tokens }) =>
      `  ${name}: weight ${short(weight)}, ${samples} samples, ${count(tokens)} tokens`
    ),
    ...(data.heldOutSets ?? []).map(({ name, samples }) => `  ${name}: ${samples} held out`),
    `${bold("Memory")}   planned on the GPU`,
    ...Object.entries(plan.bytes).map(([name, size]) => row(name, size)),
    bold(row("total", plan.totalBytes)),
  ];
}

/** Which of several teachers teaches how much. */
function teacherLines({ teachers }: TeachersEvent): string[] {
  const all = teachers.reduce((sum, { tokens }) => sum + tokens, 0);
  return teachers.map(({ name, samples, tokens, loss }, i) => {
    const share = all > 0 ? `, ${Math.round(100 * tokens / all)} % of the tokens` : "";
    const own = loss === null ? "" : `, cross-entropy ${number3(loss)}`;
    return `${i === 0 ? `${bold("Teachers")} ` : "         "}${name}: ${samples} samples${share}${own}`;
  });
}

function profileLines({ kernels }: ProfileEvent): string[] {
  const total = kernels.reduce((sum, kernel) => sum + kernel.milliseconds, 0);
  const rows = kernels.map((k) => [
    k.kernel,
    String(k.launches),
    short(k.milliseconds),
    `${(100 * k.milliseconds / (total || 1)).toFixed(1)} %`,
    short(k.flops / k.milliseconds / 1e6),
    short(k.bytes / k.milliseconds / 1e6),
  ]);
  const head = ["kernel", "launches", "ms", "share", "GFLOP/s", "GB/s"];
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ");
  return [`${bold("Time by kernel")}, ${short(total)} ms in all`, dim(line(head)), ...rows.map(line)];
}

function figures(event: MetricsEvent): string[] {
  return [
    `loss ${number3(event.loss)}`,
    ...Object.entries(event.losses).map(([id, value]) => `${id} ${number3(value)}`),
    `${short(event.tokensPerSecond)} tokens/s`,
  ];
}

/** The bar with as many figures as fit: what is dropped first is said by others, or matters least from second to second. */
function barLine(event: MetricsEvent, steps: number, left: number, width: number): string {
  const share = steps > 0 ? Math.min(1, event.step / steps) : 0;
  const bar = (cells: number) => {
    const filled = Math.round(share * cells);
    return cyan("━".repeat(filled)) + dim("─".repeat(cells - filled));
  };
  const [loss, ...others] = figures(event);
  const rate = others.pop()!;
  const divergences = others.filter((figure) => !figure.startsWith("cross-entropy "));
  const candidates: [cells: number, figures: string[]][] = [
    [24, [loss, ...others, rate]],
    [16, [loss, ...divergences, rate]],
    [8, [loss, ...divergences.slice(0, 1), rate]],
    [8, [loss]],
  ];
  for (const [cells, shown] of candidates) {
    const line = [`${bar(cells)} ${event.step}/${steps}`, ...shown, `${duration(left)} left`].join("  ");
    if (stripAnsiCode(line).length <= width) return line;
  }
  // A longer line would wrap and could not be redrawn.
  return `${event.step}/${steps}`.slice(0, Math.max(0, width));
}

/** As many of the other losses as fit into the line: all of them are in the report and in metrics.jsonl. */
function evaluationLine(event: EvaluationEvent, columns: number): string {
  const when = event.step === 0 ? "before training" : `after step ${event.step}`;
  const loss = event.loss === null ? red("not finite") : green(number3(event.loss));
  // A teacher that stands still is measured once.
  const who = event.model === "teacher" && event.step === 0 ? "teacher" : `${event.model} ${when}`;
  const [, ...others] = Object.entries(event.sets ?? {});
  const sets = others.map(([name, { loss }]) => `, ${name} ${number3(loss)}`).join("");
  let line = `held-out loss ${loss}${sets}  ${who}`;
  for (const [id, value] of Object.entries(event.losses)) {
    const longer = `${line}  ${id} ${number3(value)}`;
    if (stripAnsiCode(longer).length > Math.max(columns, 80)) break;
    line = longer;
  }
  return line;
}
