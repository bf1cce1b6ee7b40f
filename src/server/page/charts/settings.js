/** How curves are drawn: smoothed or not, on which scale. One choice for all charts, which the browser remembers. */
import { h } from "../dom.js";
import { remember, remembered } from "../memory.js";

/** Steps that smoothing goes over. */
const OVER = [1, 5, 10, 20, 50, 100, 200, 500];

/** The controls, and the charts that they set. */
export class ChartSettings {
  #charts = [];
  #smoothing = h("input", { type: "range", id: "smoothing", min: 0, max: OVER.length - 1, step: 1 });
  #said = h("output", { for: "smoothing" });
  #logarithmic = h("input", { type: "checkbox", id: "logarithmic" });
  element = h(
    "div",
    { class: "chart-settings", role: "group", "aria-label": "How curves are drawn" },
    h("label", { for: "smoothing" }, "Smoothing"),
    this.#smoothing,
    this.#said,
    this.#logarithmic,
    h("label", { for: "logarithmic" }, "Logarithmic scale"),
  );

  constructor() {
    const { smoothing = 1, logarithmic = false } = remembered("curves") ?? {};
    this.#smoothing.value = Math.max(0, OVER.indexOf(smoothing));
    this.#logarithmic.checked = logarithmic;
    this.element.addEventListener("input", () => this.#apply());
    this.#apply();
  }

  /** A chart that follows them. */
  add(chart) {
    this.#charts.push(chart);
    chart.configure(this.#value);
    return chart;
  }

  get #value() {
    return { smoothing: OVER[Number(this.#smoothing.value)], logarithmic: this.#logarithmic.checked };
  }

  #apply() {
    const { smoothing } = this.#value;
    const said = smoothing === 1 ? "none" : `over about ${smoothing} steps`;
    this.#said.textContent = said;
    this.#smoothing.setAttribute("aria-valuetext", said);
    remember("curves", this.#value);
    for (const chart of this.#charts) chart.configure(this.#value);
  }
}
