/** The reliability diagram: how often models are right against how sure they are, in bins of confidence. */
import { fill, h, svg } from "../dom.js";
import { Legend } from "./legend.js";
import { HUES } from "./line_styles.js";
import { ticks } from "./ticks.js";

const HEIGHT = 260;
const MARGIN = { left: 44, right: 16, top: 12, bottom: 30 };
/** Radii in pixels: of a bin that holds everything, and of one that holds next to nothing. */
const [LARGEST, SMALLEST] = [10, 2];

/** The chart. A bin is read by pointing at it, by touching it, or with the arrow keys. */
export class ReliabilityChart {
  #series;
  #hidden = new Set();
  #points = [];
  #read;
  #drawing = svg("svg", { "aria-hidden": "true", height: HEIGHT });
  #ring = svg("circle", { class: "ring", r: LARGEST + 3, visibility: "hidden" });
  #plot;
  #said = h("p", { class: "read", role: "status" });
  #observer = new ResizeObserver(() => this.#draw());

  /**
   * @param {string} label what it shows
   * @param {{name: string, calibration: {bins: object[], count: number, expectedError: number}}[]} series one a model
   */
  constructor(label, series) {
    this.#series = series.map((one, i) => ({ ...one, color: `--hue-${i % HUES + 1}` }));
    const told = series.map(({ name, calibration }) =>
      `${name}, calibration error ${calibration.expectedError.toFixed(3)}`
    );
    this.#plot = h("div", {
      ...{ class: "plot frontier reliability", role: "img", tabindex: 0 },
      "aria-label": `${label}: ${told.join("; ")}. Left and right arrows read each bin.`,
      onpointermove: (event) => this.#point(event),
      onpointerdown: (event) => this.#point(event),
      onpointerleave: (event) => event.pointerType === "mouse" && this.#show(undefined),
      onkeydown: (event) => this.#key(event),
      onblur: () => this.#show(undefined),
    }, this.#drawing);
    const legend = new Legend((key, isShown) => {
      if (isShown) this.#hidden.delete(key);
      else this.#hidden.add(key);
      this.#draw();
    });
    for (const { name, color } of this.#series) legend.add({ key: name, label: name, color, points: true });
    legend.show(undefined, new Map(series.map(({ name, calibration }) => [name, calibration.expectedError])));
    this.element = h("div", { class: "chart" }, this.#plot, this.#said, legend.element);
    this.#observer.observe(this.#plot);
  }

  destroy() {
    this.#observer.disconnect();
  }

  #draw() {
    const width = this.#plot.clientWidth;
    if (width === 0) return;
    const [right, bottom] = [width - MARGIN.right, HEIGHT - MARGIN.bottom];
    const x = (value) => MARGIN.left + value * (right - MARGIN.left);
    const y = (value) => bottom - value * (bottom - MARGIN.top);
    const shown = this.#series.filter(({ name }) => !this.#hidden.has(name));
    this.#points = shown.flatMap(({ name, color, calibration: { bins, count } }) =>
      bins.filter((bin) => bin.count > 0).map((bin) => ({
        ...{ name, color, bin, share: bin.count / count, cx: x(bin.confidence), cy: y(bin.accuracy) },
      }))
    ).sort((a, b) => a.cx - b.cx);
    const marks = ticks(0, 1, 5);
    this.#drawing.setAttribute("width", width);
    fill(
      this.#drawing,
      ...marks.flatMap((value) => [
        svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }),
        svg("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1)),
        svg("text", { x: x(value), y: HEIGHT - 8, "text-anchor": "middle" }, value.toFixed(1)),
      ]),
      svg("line", { class: "diagonal", x1: x(0), x2: x(1), y1: y(0), y2: y(1) }),
      ...shown.flatMap(({ name, color }) => {
        const own = this.#points.filter((point) => point.name === name);
        const line = svg("polyline", {
          class: "line",
          points: own.map(({ cx, cy }) => `${cx},${cy}`).join(" "),
        });
        line.style.stroke = `var(${color})`;
        return [line, ...own.map(circle)];
      }),
      this.#ring,
    );
    this.#show(this.#points.find(({ name, bin }) => name === this.#read?.name && bin === this.#read?.bin));
  }

  #point(event) {
    const box = this.#drawing.getBoundingClientRect();
    const off = ({ cx, cy }) => Math.hypot(cx - (event.clientX - box.left), cy - (event.clientY - box.top));
    const [nearest] = this.#points.map((point) => [off(point), point]).sort(([a], [b]) => a - b);
    this.#show(nearest?.[0] <= 28 ? nearest[1] : undefined);
  }

  #key(event) {
    const at = this.#points.indexOf(this.#read);
    const last = this.#points.length - 1;
    const next = {
      ArrowLeft: at < 0 ? last : Math.max(0, at - 1),
      ArrowRight: Math.min(last, at + 1),
      Home: 0,
      End: last,
      Escape: -1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.#show(this.#points[next]);
  }

  #show(point) {
    this.#read = point;
    this.#ring.setAttribute("visibility", point ? "visible" : "hidden");
    this.#said.textContent = point ? sentence(point) : "";
    if (!point) return;
    this.#ring.setAttribute("cx", point.cx);
    this.#ring.setAttribute("cy", point.cy);
  }
}

function circle({ color, share, cx, cy }) {
  const drawn = svg("circle", { cx, cy, r: Math.max(SMALLEST, LARGEST * Math.sqrt(share)) });
  drawn.style.stroke = `var(${color})`;
  return drawn;
}

function sentence({ name, bin }) {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  return `${name}, confidence ${bin.above.toFixed(2)} to ${bin.upTo.toFixed(2)}: right ${
    percent(bin.accuracy)
  }, sure ${percent(bin.confidence)}, ${bin.count} of them`;
}
