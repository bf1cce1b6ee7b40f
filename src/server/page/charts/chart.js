/** Curves over steps, drawn by uPlot. */
import { h } from "../dom.js";
import { short } from "../words.js";
import { Legend } from "./legend.js";
import { exponentialMean } from "./smoothing.js";

/** Points kept of a live curve: beyond, every other one is dropped. */
const MOST_POINTS = 4000;
const DARK = matchMedia("(prefers-color-scheme: dark)");
/** Steps are whole. */
const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));

/**
 * What a line is: its colour as the name of a CSS variable; `points` for few values, each drawn as one; `smooth` where smoothing applies.
 *
 * @typedef {{key: string, label: string, color: string, dash?: number[], points?: boolean, smooth?: boolean}} Line
 */

/** A chart of values over steps, which grows while it is shown. */
export class Chart {
  #label;
  #height;
  /** @type {Map<string, Line>} */
  #lines = new Map();
  #hidden = new Set();
  #levels = new Map();
  #rows = new Map();
  #steps = [];
  #settings = { smoothing: 1, logarithmic: false };
  #plot;
  #drawing = false;
  #canvas = h("div", { class: "plot", role: "img" });
  #legend = new Legend((key, isShown) => {
    if (isShown) this.#hidden.delete(key);
    else this.#hidden.add(key);
    this.#rebuild();
  });
  #observer = new ResizeObserver(() => this.#resize());
  #onScheme = () => this.#rebuild();
  element = h("div", { class: "chart" }, this.#canvas, this.#legend.element);

  /** @param {string} label what it shows, for those who cannot see it */
  constructor(label, { height = 260 } = {}) {
    this.#label = label;
    this.#height = height;
    this.#canvas.setAttribute("aria-label", label);
    this.#observer.observe(this.#canvas);
    DARK.addEventListener("change", this.#onScheme);
  }

  /** Adds a line unless there is one of its key. */
  line(line) {
    if (this.#lines.has(line.key)) return;
    this.#lines.set(line.key, line);
    this.#legend.add(line);
    this.#rebuild();
  }

  /** Sets a value; null where it is not finite. Later ones of the same step take its place. */
  set(step, key, value) {
    const row = this.#rows.get(step) ?? {};
    row[key] = value;
    this.#rows.set(step, row);
    if (this.#rows.size > MOST_POINTS) this.#thin();
    this.#schedule();
  }

  /** Puts values in the place of all that a line has. */
  replace(key, points) {
    for (const [step, row] of this.#rows) {
      delete row[key];
      if (Object.keys(row).length === 0) this.#rows.delete(step);
    }
    for (const [step, value] of points) this.set(step, key, value);
  }

  /** Sets a value that holds at all steps. */
  level(key, value) {
    this.#levels.set(key, value);
    this.#schedule();
  }

  /** Takes away what was said of later steps. */
  rewind(step) {
    for (const known of this.#rows.keys()) if (known > step) this.#rows.delete(known);
    this.#schedule();
  }

  /** Sets over how many steps lines are smoothed, and whether the scale is logarithmic. */
  configure(settings) {
    this.#settings = settings;
    this.#rebuild();
  }

  destroy() {
    DARK.removeEventListener("change", this.#onScheme);
    this.#observer.disconnect();
    this.#plot?.destroy();
    this.#plot = undefined;
  }

  #thin() {
    const rare = [...this.#lines.values()].filter(({ points }) => points);
    let i = 0;
    for (const [step, row] of this.#rows) {
      if (rare.every(({ key }) => row[key] === undefined) && i++ % 2) this.#rows.delete(step);
    }
  }

  #rebuild() {
    this.#plot?.destroy();
    this.#plot = undefined;
    this.#schedule();
  }

  #schedule() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#draw();
    });
  }

  #resize() {
    const width = this.#canvas.clientWidth;
    if (!this.#plot) this.#schedule();
    else if (width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: this.#height });
  }

  #draw() {
    if (!this.#canvas.isConnected || this.#canvas.clientWidth === 0 || this.#rows.size === 0) return;
    this.#steps = [...this.#rows.keys()].sort((a, b) => a - b);
    const curves = this.#curves();
    // A logarithmic scale has no place for what is not above zero.
    const isLogarithmic = this.#settings.logarithmic &&
      curves.some(({ values }) => values.some((v) => v > 0));
    const data = [this.#steps];
    for (const { values } of curves) {
      data.push(isLogarithmic ? values.map((value) => value <= 0 ? null : value) : values);
    }
    if (this.#plot) this.#plot.setData(data);
    else this.#plot = new globalThis.uPlot(this.#options(curves, isLogarithmic), data, this.#canvas);
    this.#showValues();
  }

  /** What is drawn: of a line that is smoothed its values, faintly, and before them their mean. */
  #curves() {
    const { smoothing } = this.#settings;
    return [...this.#lines.values()].filter(({ key }) => !this.#hidden.has(key)).flatMap((line) => {
      const values = this.#valuesOf(line.key);
      if (!line.smooth || smoothing === 1) return [{ line, values, width: 2 }];
      return [
        { line, values, width: 1, alpha: 0.3 },
        { line, values: exponentialMean(this.#steps, values, smoothing), width: 2 },
      ];
    });
  }

  /** null leaves a gap in a curve, undefined does not. */
  #valuesOf(key) {
    const level = this.#levels.get(key);
    return this.#steps.map((step) => level ?? this.#rows.get(step)[key]);
  }

  /** Values where the pointer is, else the newest: always as the run told them, smoothed or not. */
  #showValues() {
    const at = this.#plot.cursor.idx ?? undefined;
    const values = new Map([...this.#lines.keys()].map((key) => {
      const known = this.#valuesOf(key);
      return [key, at === undefined ? known.findLast((value) => value !== undefined) : known[at]];
    }));
    this.#legend.show(at === undefined ? undefined : this.#steps[at], values);
    if (at !== undefined) return;
    const said = [...this.#lines.values()].map(({ key, label }) => `${label} ${short(values.get(key))}`);
    this.#canvas.setAttribute(
      "aria-label",
      `${this.#label}, to step ${this.#steps.at(-1)}: ${said.join(", ")}`,
    );
  }

  #options(curves, isLogarithmic) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color("--muted"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { stroke: color("--line"), width: 1 },
    };
    const numbers = (_, splits) => splits.map((value) => value === null ? "" : short(value));
    return {
      width: this.#canvas.clientWidth,
      height: this.#height,
      legend: { show: false },
      scales: { x: { time: false }, y: isLogarithmic ? { distr: 3 } : {} },
      axes: [{ ...axis, incrs: WHOLE }, { ...axis, size: 62, values: numbers }],
      series: [
        {},
        ...curves.map(({ line, width, alpha }) => ({
          ...{ stroke: color(line.color), dash: line.dash, width, alpha: alpha ?? 1 },
          // One value makes no line.
          points: { show: (plot, i) => line.points || plot.data[i].filter(isValue).length === 1, size: 7 },
        })),
      ],
      hooks: { setCursor: [(plot) => plot === this.#plot && this.#showValues()] },
    };
  }
}

function isValue(value) {
  return value !== null && value !== undefined;
}
