/** What models came to on tasks: tables, and a reliability diagram where a task has one. */
import { ReliabilityChart } from "../charts/reliability.js";
import { fill, h } from "../dom.js";

/** Tables and diagrams of a run's evaluation. */
export class Evaluation {
  #charts = [];
  element = h("div", { hidden: true });

  /** Shows what a run's result has, if it has something. */
  show(result) {
    const found = result?.evaluation ?? result?.findings?.evaluation;
    if (!found) return;
    this.destroy();
    const { models, tasks, bootstrap } = found;
    fill(
      this.element,
      h(
        "section",
        { class: "panel" },
        h("h2", {}, "Tasks"),
        figures(models, tasks),
        ...differences(models, tasks, bootstrap),
        h(
          "p",
          { class: "help" },
          tasks.map(({ name, items, unit }) => `${name}: ${items} ${unit}`).join("; "),
        ),
      ),
      ...tasks.flatMap((task) => this.#reliability(task, models)),
    );
    this.element.hidden = false;
  }

  destroy() {
    for (const chart of this.#charts.splice(0)) chart.destroy();
  }

  #reliability({ name, calibration = [] }, models) {
    const series = calibration.flatMap((found, i) =>
      found?.count > 0 ? [{ name: models[i], calibration: found }] : []
    );
    if (series.length === 0) return [];
    const title = `Reliability, ${name}`;
    const chart = new ReliabilityChart(title, series);
    this.#charts.push(chart);
    return [h("section", { class: "panel" }, h("h2", {}, title), chart.element)];
  }
}

function figures(models, tasks) {
  return table(
    "Figures of the tasks",
    ["Task", "Figure", ...models],
    tasks.flatMap(({ name, figures }) =>
      figures.map(({ title, values }, i) => [i === 0 ? name : "", title, ...values.map(number)])
    ),
  );
}

/** The figures that are compared item by item. */
function differences([first, ...others], tasks, { level }) {
  const rows = tasks.flatMap(({ name, figures }) =>
    figures.flatMap(({ title, better, differences }) =>
      others.flatMap((model, i) => {
        const found = differences[i + 1];
        if (!found) return [];
        const { difference, low, high, p } = found;
        const apart = low > 0 || high < 0
          ? ((high < 0) === (better === "lower") ? "better" : "worse")
          : "not told apart";
        const said = found.items < 2 ? "" : apart;
        return [[
          name,
          title,
          model,
          signed(difference),
          `${signed(low)} to ${signed(high)}`,
          p < 0.0001 ? "< 0.0001" : p.toFixed(4),
          said,
        ]];
      })
    )
  );
  if (rows.length === 0) return [];
  return [
    h("h2", {}, `Less ${first}`),
    table("Differences", ["Task", "Figure", "Model", "Difference", `${100 * level} %`, "p", ""], rows),
  ];
}

function table(label, head, rows) {
  return h(
    "div",
    { class: "wide-table", tabindex: 0, role: "region", "aria-label": label },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name)))),
      h(
        "tbody",
        {},
        ...rows.map(([first, ...cells]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, first),
            ...cells.map((cell) => h("td", { class: "number" }, cell)),
          )
        ),
      ),
    ),
  );
}

function number(value) {
  return value === null ? "–" : Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(4);
}

function signed(value) {
  return `${value > 0 ? "+" : ""}${number(value)}`;
}
