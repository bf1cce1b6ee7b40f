/** The shapes of a run: what each loses against what it costs, as charts and as a table. */
import { api } from "../api.js";
import { FrontierChart } from "../charts/frontier.js";
import { fill, h } from "../dom.js";
import { exportShape } from "../form/kinds.js";
import { compact, number3, short } from "../words.js";

/** How a cost is told. */
const COSTS = {
  parameters: {
    title: "parameters",
    label: (value, isMark) => isMark ? compact(value) : `${compact(value)} parameters`,
  },
  tokensPerSecond: {
    title: "tokens a second",
    label: (value, isMark) => isMark ? compact(value) : `${short(value)} tokens a second`,
  },
};
/** Rows of the table: a search may have measured thousands of shapes. */
const MOST_ROWS = 40;

/** Whether a run can have shapes. */
export function hasShapes({ task, recipe }) {
  return task === "shrink" || Boolean(recipe.student?.shapes);
}

/** Charts and table of a run's shapes. */
export class Shapes {
  #id;
  #charts = new Map();
  #table = h("section", { class: "panel", hidden: true });
  element = h("div", {}, this.#table);
  /** Reads one after another, so that what is shown is never older than what was shown. */
  #reading = Promise.resolve();

  #mayExport;

  /**
   * @param {string} id of the run, as it stands in addresses
   * @param {{mayExport: boolean}} who whether links are shown to export a shape that was trained
   */
  constructor(id, { mayExport }) {
    this.#id = id;
    this.#mayExport = mayExport;
  }

  /** Reads what there is now. What cannot be read leaves what is shown. */
  read() {
    this.#reading = this.#reading
      .then(() => api(`/v1/runs/${this.#id}/shapes`))
      .then((found) => this.#show(found))
      .catch(() => {});
    return this.#reading;
  }

  destroy() {
    for (const { chart } of this.#charts.values()) chart.destroy();
  }

  #show(found) {
    const { data, costs, figure } = found;
    // What an attempt had measured may be taken back by the next one.
    this.element.hidden = data.length === 0;
    if (data.length === 0) return;
    for (const cost of costs) this.#chart(cost, figure).show(pointsOf(data, cost));
    for (const [cost, { panel }] of this.#charts) panel.hidden = !costs.includes(cost);
    const { step } = found;
    const run = this.#mayExport && step > 0 ? decodeURIComponent(this.#id) : undefined;
    fill(this.#table, ...tableOf(found, run));
    this.#table.hidden = false;
  }

  #chart(cost, figure) {
    const known = this.#charts.get(cost);
    if (known) return known.chart;
    const { title, label } = COSTS[cost];
    const name = `${capital(figure)} against ${title}`;
    const chart = new FrontierChart(name, number3, label);
    const panel = h("section", { class: "panel" }, h("h2", {}, name), chart.element);
    this.#charts.set(cost, { chart, panel });
    this.#table.before(panel);
    return chart;
  }
}

function pointsOf(data, cost) {
  return data.filter((shape) => shape.value !== null && shape[cost] !== null).map((shape) => ({
    ...{ name: shape.name, x: shape[cost], y: shape.value },
    ...{ isBest: shape.frontier.includes(cost), isChosen: shape.chosen },
  }));
}

/** What is worth telling in words: of a search the shapes that have a name, are chosen or are on a frontier. */
function tableOf({ data, figure, higherIsBetter, step }, run) {
  const isTold = ({ frontier, chosen, by }) =>
    step !== null || frontier.length > 0 || chosen || by.length > 0;
  const order = (a, b) => b.parameters - a.parameters || (higherIsBetter ? -1 : 1) * (a.value - b.value);
  const told = data.filter(isTold).sort(order);
  const rows = told.slice(0, MOST_ROWS);
  const has = (isThere) => rows.some(isThere);
  const columns = [
    [capital(figure), ({ value }) => number3(value)],
    has(({ before }) => before !== null) && ["Only cut", ({ before }) => number3(before)],
    ["Parameters", ({ parameters }) => compact(parameters)],
    has(({ tokensPerSecond }) => tokensPerSecond !== null) &&
    ["Tokens a second", ({ tokensPerSecond }) => short(tokensPerSecond)],
    has(({ by }) => by.length > 0) && ["Found by", ({ by }) => by.join(", ")],
    [
      "Place",
      ({ frontier, chosen }) =>
        [frontier.length > 0 && "frontier", chosen && "chosen"].filter(Boolean).join(", "),
    ],
    run !== undefined && [
      "As it is alone",
      ({ name }) => h("a", { href: exportShape(run, name), "aria-label": `Export ${name}` }, "Export"),
    ],
  ].filter(Boolean);
  const left = data.length - rows.length;
  return [
    h("h2", {}, step === null ? "Shapes that were measured" : `Shapes after step ${step}`),
    h(
      "div",
      { class: "wide-table", tabindex: 0, role: "region", "aria-label": "Numbers of the shapes" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ...["Shape", ...columns.map(([name]) => name)].map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        h(
          "tbody",
          {},
          ...rows.map((shape) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, shape.name),
              ...columns.map(([, of]) => h("td", { class: "number" }, of(shape))),
            )
          ),
        ),
      ),
    ),
    left > 0 &&
    h("p", { class: "help" }, `${left} more ${left === 1 ? "shape is" : "shapes are"} in the charts alone.`),
  ];
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}
