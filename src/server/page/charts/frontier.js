/** A chart of what shapes lose against what they cost: those that no other beats on a line, the others in grey. */
import { fill, h, svg } from "../dom.js";
import { short } from "../words.js";
import { Legend } from "./legend.js";
import { paddedRange, ticks } from "./ticks.js";

const HEIGHT = 260;
const MARGIN = { left: 58, right: 16, top: 12, bottom: 30 };
/** Pixels that a pointer may be off. */
const NEAR = 28;
/** Pixels that a mark along the bottom needs. */
const MARK = 74;
const KINDS = {
  best: { label: "on the frontier", color: "--hue-1", points: true },
  beaten: { label: "beaten by another", color: "--muted", points: true },
};

/**
 * A shape in the chart.
 *
 * @typedef {{name: string, x: number, y: number, isBest: boolean, isChosen: boolean}} Point
 */

/** The chart. A shape is read by pointing at it, by touching it, or with the arrow keys. */
export class FrontierChart {
  #label;
  #figure;
  #costLabel;
  /** @type {Point[]} by rising cost */
  #points = [];
  #hidden = new Set();
  /** The point that is read. */
  #read;
  #place = () => [0, 0];
  #drawing = svg("svg", { "aria-hidden": "true", height: HEIGHT });
  #ring = svg("circle", { class: "ring", r: 7, visibility: "hidden" });
  #plot = h("div", {
    ...{ class: "plot frontier", role: "img", tabindex: 0 },
    onpointermove: (event) => this.#point(event),
    onpointerdown: (event) => this.#point(event),
    onpointerleave: (event) => event.pointerType === "mouse" && this.#show(undefined),
    onkeydown: (event) => this.#key(event),
    onblur: () => this.#show(undefined),
  }, this.#drawing);
  #said = h("p", { class: "read", role: "status" });
  #legend = new Legend((key, isShown) => {
    if (isShown) this.#hidden.delete(key);
    else this.#hidden.add(key);
    this.#draw();
  });
  #chosen = h(
    "span",
    { class: "key", hidden: true },
    svg(
      "svg",
      { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
      svg("circle", { class: "is-chosen", cx: 6, cy: 6, r: 4 }),
    ),
    "chosen",
  );
  #observer = new ResizeObserver(() => this.#draw());
  element = h("div", { class: "chart" }, this.#plot, this.#said, this.#legend.element);

  /**
   * @param {string} label what it shows
   * @param {(figure: number) => string} figure writes what a shape loses
   * @param {(cost: number, isMark: boolean) => string} cost writes what it costs, at a mark of the axis or in a sentence
   */
  constructor(label, figure, cost) {
    this.#label = label;
    this.#figure = figure;
    this.#costLabel = cost;
    for (const [key, kind] of Object.entries(KINDS)) this.#legend.add({ key, ...kind });
    this.#legend.element.append(this.#chosen);
    this.#observer.observe(this.#plot);
  }

  /**
   * Shows shapes in place of those that it has.
   *
   * @param {Point[]} points
   */
  show(points) {
    this.#points = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
    const best = this.#points.filter(({ isBest }) => isBest);
    this.#legend.show(undefined, new Map([["best", best.length], ["beaten", points.length - best.length]]));
    this.#chosen.hidden = points.every(({ isChosen }) => !isChosen);
    this.#plot.setAttribute(
      "aria-label",
      `${this.#label}: ${points.length} shapes; on the frontier ${
        best.map((p) => this.#sentence(p)).join("; ")
      }. ` +
        "Left and right arrows read each shape.",
    );
    this.#draw();
    this.#show(this.#shown().find(({ name }) => name === this.#read?.name));
  }

  destroy() {
    this.#observer.disconnect();
  }

  #shown() {
    return this.#points.filter(({ isBest }) => !this.#hidden.has(isBest ? "best" : "beaten"));
  }

  #draw() {
    const width = this.#plot.clientWidth;
    if (width === 0 || this.#points.length === 0) return;
    const [[x0, x1], [y0, y1]] = ["x", "y"].map((axis) => paddedRange(this.#points.map((p) => p[axis])));
    const [right, bottom] = [width - MARGIN.right, HEIGHT - MARGIN.bottom];
    this.#place = ({ x, y }) => [
      MARGIN.left + (x - x0) / (x1 - x0) * (right - MARGIN.left),
      bottom - (y - y0) / (y1 - y0) * (bottom - MARGIN.top),
    ];
    const grid = ticks(y0, y1, 5).flatMap((y) => {
      const [, at] = this.#place({ x: x0, y });
      return [
        svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: at, y2: at }),
        svg("text", { x: MARGIN.left - 8, y: at + 4, "text-anchor": "end" }, short(y)),
      ];
    });
    const marks = ticks(x0, x1, Math.max(2, Math.floor(width / MARK))).map((x) =>
      svg(
        "text",
        { x: this.#place({ x, y: y0 })[0], y: HEIGHT - 8, "text-anchor": "middle" },
        this.#costLabel(x, true),
      )
    );
    const shown = this.#shown();
    const best = shown.filter(({ isBest }) => isBest);
    const circle = (point) => {
      const [cx, cy] = this.#place(point);
      const kind = point.isBest ? "best" : point.isChosen ? "chosen" : "beaten";
      return svg("circle", { class: `${kind}${point.isChosen ? " is-chosen" : ""}`, cx, cy, r: 4 });
    };
    this.#drawing.setAttribute("width", width);
    fill(
      this.#drawing,
      ...grid,
      ...marks,
      ...this.#apart(shown.filter(({ isBest, isChosen }) => !isBest && !isChosen)).map(circle),
      svg("polyline", { class: "line", points: best.map((point) => this.#place(point).join()).join(" ") }),
      ...shown.filter(({ isBest, isChosen }) => isBest || isChosen).map(circle),
      this.#ring,
    );
    this.#show(shown.includes(this.#read) ? this.#read : undefined);
  }

  /** Thousands of shapes may lie on one spot: one of those on a pixel. */
  #apart(points) {
    return [...new Map(points.map((point) => [this.#place(point).map(Math.round).join(), point])).values()];
  }

  #point({ clientX, clientY }) {
    const { left, top } = this.#plot.getBoundingClientRect();
    const off = (point) => {
      const [x, y] = this.#place(point);
      return Math.hypot(x - (clientX - left), y - (clientY - top));
    };
    const [nearest] = this.#shown().map((point) => [off(point), point]).sort(([a], [b]) => a - b);
    this.#show(nearest?.[0] <= NEAR ? nearest[1] : undefined);
  }

  #key(event) {
    const shown = this.#shown();
    const at = shown.indexOf(this.#read);
    const next = {
      ArrowLeft: at < 0 ? shown.length - 1 : Math.max(0, at - 1),
      ArrowRight: Math.min(shown.length - 1, at + 1),
      Home: 0,
      End: shown.length - 1,
      Escape: -1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.#show(shown[next]);
  }

  #show(point) {
    this.#read = point;
    this.#said.textContent = point ? this.#sentence(point) : "";
    this.#ring.setAttribute("visibility", point ? "visible" : "hidden");
    if (!point) return;
    const [cx, cy] = this.#place(point);
    this.#ring.setAttribute("cx", cx);
    this.#ring.setAttribute("cy", cy);
  }

  #sentence({ name, x, y, isChosen }) {
    return `${name}: ${this.#figure(y)}, ${this.#costLabel(x, false)}${isChosen ? ", chosen" : ""}`;
  }
}
