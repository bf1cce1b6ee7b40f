/** Curves of a run, drawn by uPlot. */
import { h } from "./dom.js";

/** Points kept of a live curve: beyond, every other one is dropped. */
const MOST_POINTS = 4000;

const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));

/** A chart of values over steps, which grows while it is shown. */
export class Chart {
  #element = h("div", { class: "chart" });
  #series;
  #rows = new Map();
  #plot;
  #drawing = false;
  #observer = new ResizeObserver(() => this.#size());

  /** @param {{name: string, color: string, points?: boolean, dash?: number[]}[]} series */
  constructor(label, series) {
    this.#series = series;
    this.#element.setAttribute("role", "img");
    this.#element.setAttribute("aria-label", label);
    this.#observer.observe(this.#element);
  }

  get element() {
    return this.#element;
  }

  /** Sets a value; later ones of the same step take its place. */
  set(step, name, value) {
    if (!this.#series.some((series) => series.name === name)) return;
    const row = this.#rows.get(step) ?? {};
    row[name] = value;
    this.#rows.set(step, row);
    if (this.#rows.size > MOST_POINTS) this.#thin();
    this.#schedule();
  }

  /** Adds a curve if there is none of its name. */
  add(series) {
    if (this.#series.some(({ name }) => name === series.name)) return;
    this.#series.push(series);
    this.#plot?.destroy();
    this.#plot = undefined;
  }

  /** Takes away what was said of later steps. */
  rewind(step) {
    for (const known of this.#rows.keys()) if (known > step) this.#rows.delete(known);
    this.#schedule();
  }

  destroy() {
    this.#observer.disconnect();
    this.#plot?.destroy();
    this.#plot = undefined;
  }

  #thin() {
    let i = 0;
    for (const [step, row] of this.#rows) {
      const rare = this.#series.some(({ name, points }) => points && row[name] !== undefined);
      if (!rare && i++ % 2) this.#rows.delete(step);
    }
  }

  #schedule() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#draw();
    });
  }

  #draw() {
    if (!this.#element.isConnected || this.#element.clientWidth === 0) return;
    const steps = [...this.#rows.keys()].sort((a, b) => a - b);
    const data = [
      steps,
      ...this.#series.map(({ name }) => steps.map((step) => this.#rows.get(step)[name] ?? null)),
    ];
    if (this.#plot) this.#plot.setData(data);
    else this.#plot = new globalThis.uPlot(this.#options(), data, this.#element);
  }

  #size() {
    if (this.#plot) this.#plot.setSize({ width: this.#element.clientWidth, height: 260 });
    else if (this.#rows.size > 0) this.#schedule();
  }

  #options() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color("--muted"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { stroke: color("--line"), width: 1 },
    };
    return {
      width: this.#element.clientWidth,
      height: 260,
      scales: { x: { time: false } },
      // Steps are whole.
      axes: [{ ...axis, incrs: WHOLE }, { ...axis, size: 56 }],
      series: [
        { label: "Step" },
        ...this.#series.map(({ name, color: variable, points, dash }) => ({
          label: name,
          stroke: color(variable),
          width: 2,
          dash,
          spanGaps: true,
          points: { show: points ?? false, size: 7 },
          value: (_, value) => value === null || value === undefined ? "–" : value.toFixed(4),
        })),
      ],
    };
  }
}
