/** Names of a chart's lines with their values; each is a switch that takes its line away or brings it back. */
import { h, svg } from "../dom.js";
import { short } from "../words.js";

/** The legend of a chart. */
export class Legend {
  #items = new Map();
  #step = h("span", { class: "step" });
  #toggle;
  element = h("div", { class: "legend" }, this.#step);

  /** @param {(key: string, isShown: boolean) => void} toggle */
  constructor(toggle) {
    this.#toggle = toggle;
  }

  /** Adds a line. */
  add({ key, label, color, dash, points }) {
    const value = h("span", { class: "value" });
    const button = h(
      "button",
      {
        type: "button",
        "aria-pressed": "true",
        onclick: () => {
          const isShown = button.getAttribute("aria-pressed") !== "true";
          button.setAttribute("aria-pressed", String(isShown));
          this.#toggle(key, isShown);
        },
      },
      swatch({ color, dash, points }),
      h("span", {}, label),
      value,
    );
    this.#items.set(key, value);
    this.element.append(button);
  }

  /** Shows values, by the keys of lines, at a step; undefined: the newest of each. */
  show(step, values) {
    this.#step.textContent = step === undefined ? "" : `Step ${step.toLocaleString()}`;
    for (const [key, element] of this.#items) element.textContent = short(values.get(key));
  }
}

/** A piece of a line. */
export function swatch({ color, dash, points }) {
  const line = svg("line", {
    ...{ x1: 0, x2: 24, y1: 6, y2: 6, "stroke-width": 2.5 },
    "stroke-dasharray": dash?.join(" "),
  });
  const drawn = svg(
    "svg",
    { viewBox: "0 0 24 12", width: 24, height: 12, class: "swatch", "aria-hidden": "true" },
    line,
    points && svg("circle", { cx: 12, cy: 6, r: 3.5 }),
  );
  drawn.style.color = `var(${color})`;
  return drawn;
}
