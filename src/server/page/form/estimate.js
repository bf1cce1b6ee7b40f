/** What a recipe needs on the GPU. */
import { api } from "../api.js";
import { h } from "../dom.js";
import { bytes, compact } from "../words.js";

/** How long nothing has to change before an estimate is asked for, milliseconds. */
const PAUSE_MS = 700;

/** Asks for estimates, one at a time: only that of the newest recipe counts. The service ends its work for one that is taken back. */
export class Estimator {
  #timer;
  #running;

  /** Asks in a while, unless something changes until then. */
  soon(ask) {
    this.stop();
    this.#timer = setTimeout(ask, PAUSE_MS);
  }

  /**
   * The estimate of a recipe; undefined where a newer one was asked for, or none is wanted any more.
   *
   * @throws {ApiError} what is wrong with the recipe
   */
  async of(recipe) {
    this.stop();
    const { signal } = this.#running = new AbortController();
    try {
      const estimate = await api("/v1/runs/estimate", { method: "POST", body: { recipe }, signal });
      return signal.aborted ? undefined : estimate;
    } catch (error) {
      if (signal.aborted) return undefined;
      throw error;
    }
  }

  /** Takes back what was asked for. */
  stop() {
    clearTimeout(this.#timer);
    this.#running?.abort();
  }
}

/** An estimate in a few words. */
export function summaryOf({ totalBytes, adapter }) {
  return `${bytes(totalBytes)} on ${adapter}`;
}

/** What an estimate consists of, to be shown. */
export function shownEstimate(estimate) {
  const most = Math.max(...Object.values(estimate.bytes));
  const row = ([name, count]) =>
    h(
      "div",
      { class: "bar-row" },
      h("span", {}, name),
      h("progress", { max: most, value: count, "aria-label": name }),
      h("span", {}, bytes(count)),
    );
  const { trained, steps, train, heldOut } = estimate;
  return [
    h("h2", {}, "Memory on the GPU"),
    h("div", { class: "bars" }, ...Object.entries(estimate.bytes).map(row)),
    h(
      "p",
      { class: "help" },
      `${trained.parameters.toLocaleString()} values are trained in ${steps} steps; ${train.samples} training samples, ${heldOut.samples} held out.`,
    ),
    ...estimate.warnings.map(({ message }) => h("p", { class: "notice" }, message)),
  ];
}

/** What a task needs and will leave, to be shown. */
export function shownTask({ output, data, evaluations, totalBytes, adapter, warnings }) {
  const said = [
    output &&
    `It leaves ${output.kind === "model" ? "a model" : "an adapter"} of ${
      compact(output.parameters)
    } parameters in ${output.dtype}, ${bytes(output.bytes)}.`,
    data &&
    `It measures on ${compact(data.tokens)} tokens of ${compact(data.samples)} samples${
      evaluations === undefined ? "" : `, at most ${evaluations} times`
    }.`,
    adapter && `${bytes(totalBytes)} on ${adapter}.`,
  ].filter(Boolean);
  return [
    h("p", {}, said.join(" ")),
    ...warnings.map(({ message }) => h("p", { class: "notice" }, message)),
  ];
}
