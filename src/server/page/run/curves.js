/** The curves of a run. What has no value yet is not there: an empty chart says nothing. */
import { Chart } from "../charts/chart.js";
import { lossStyles } from "../charts/line_styles.js";
import { ChartSettings } from "../charts/settings.js";
import { h } from "../dom.js";

/** Lines that belong to no loss have the colour of the text. */
const PLAIN = { color: "--ink", smooth: true };
/** Held-out losses are this one. */
const HELD_OUT = "cross-entropy";
const KL = "forward-kl";

/** Charts of a run's metrics and evaluations. */
export class Curves {
  #settings = new ChartSettings();
  #panels = new Map();
  #small = h("div", { class: "small-charts" });
  /** Losses of this run, which are told apart by their colours. */
  #names = [];
  #losses = this.#chart("Loss, nats a token", "Losses over steps");
  #parts = this.#chart(
    "Parts of the objective, and KL to the teacher, nats a token",
    "Parts of the objective over steps",
  );
  #sets = this.#chart("Held-out loss of each set, nats a token", "Held-out loss of each set over steps");
  #learningRate = this.#chart("Learning rate", "Learning rate over steps", this.#small);
  #gradientNorm = this.#chart("Gradient norm", "Gradient norm before clipping over steps", this.#small);
  #pace = this.#chart("Tokens a second", "Tokens a second over steps", this.#small);
  element = h("div", { hidden: true });

  constructor() {
    this.#losses.line({ ...PLAIN, key: "training", label: "training objective" });
    this.#learningRate.line({ ...PLAIN, key: "value", label: "learning rate", smooth: false });
    this.#gradientNorm.line({ ...PLAIN, key: "value", label: "gradient norm" });
    this.#pace.line({ ...PLAIN, key: "value", label: "tokens a second" });
    const panels = [this.#losses, this.#parts, this.#sets].map((chart) => this.#panels.get(chart));
    this.element.append(this.#settings.element, ...panels, this.#small);
  }

  /** A step of training. */
  metrics({ step, loss, losses, learningRate, gradientNorm, tokensPerSecond }) {
    this.#set(this.#losses, step, "training", loss);
    this.#set(this.#learningRate, step, "value", learningRate);
    this.#set(this.#gradientNorm, step, "value", gradientNorm);
    this.#set(this.#pace, step, "value", tokensPerSecond);
    const names = Object.keys(losses);
    if (names.length < 2) return;
    for (const name of names) {
      this.#parts.line({ key: name, label: name, ...this.#styleOf(name), smooth: true });
      this.#set(this.#parts, step, name, losses[name]);
    }
  }

  /** A measurement on held-out data. */
  evaluation({ step, model, loss, losses, sets }) {
    const style = this.#styleOf(HELD_OUT);
    if (model === "student") this.#setsOf(step, sets ?? {});
    if (model === "teacher") {
      this.#losses.line({ key: "teacher", label: "teacher, held out", ...style, dash: [6, 5] });
      this.#losses.level("teacher", loss);
      return;
    }
    this.#losses.line({ key: "held out", label: "student, held out", ...style, points: true });
    this.#set(this.#losses, step, "held out", loss);
    if (losses[KL] === undefined) return;
    const key = `${KL}, held out`;
    this.#parts.line({ key, label: "KL to the teacher, held out", ...this.#styleOf(KL), points: true });
    this.#set(this.#parts, step, key, losses[KL]);
  }

  /** The student's loss on each of several held-out sets. */
  #setsOf(step, sets) {
    for (const [name, { loss }] of Object.entries(sets)) {
      // A set may be called like a loss.
      this.#sets.line({ key: name, label: name, ...this.#styleOf(`set ${name}`), points: true });
      this.#set(this.#sets, step, name, loss);
    }
  }

  /** Takes away what was said of later steps. */
  rewind(step) {
    for (const chart of this.#panels.keys()) chart.rewind(step);
  }

  destroy() {
    for (const chart of this.#panels.keys()) chart.destroy();
  }

  #chart(title, label, place) {
    const chart = this.#settings.add(new Chart(label, place ? { height: 180 } : {}));
    const panel = h("section", { class: "panel", hidden: true }, h("h2", {}, title), chart.element);
    this.#panels.set(chart, panel);
    place?.append(panel);
    return chart;
  }

  #set(chart, step, key, value) {
    if (value === undefined) return;
    this.element.hidden = false;
    this.#panels.get(chart).hidden = false;
    chart.set(step, key, value);
  }

  #styleOf(name) {
    if (!this.#names.includes(name)) this.#names.push(name);
    return lossStyles.claim(this.#names).get(name);
  }
}
