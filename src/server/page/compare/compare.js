/** Runs side by side: their losses in one chart each, and their numbers. A run has one colour in all of it. */
import { api } from "../api.js";
import { Chart } from "../charts/chart.js";
import { swatch } from "../charts/legend.js";
import { runStyles } from "../charts/line_styles.js";
import { ChartSettings } from "../charts/settings.js";
import { fill, h } from "../dom.js";
import { ENDED, nameOf, number3 } from "../words.js";

/** How often runs that go on are read, milliseconds. */
const AGAIN_MS = 5000;

/** Shows runs side by side; returns how to stop. */
export function showComparison(main, ids) {
  document.title = "Compare runs – Limbeck";
  const view = new Comparison(main, ids);
  view.begin();
  return () => view.end();
}

class Comparison {
  #main;
  #ids;
  #styles;
  #abort = new AbortController();
  #timer;
  #runs = new Map();
  #settings = new ChartSettings();
  #heldOut = this.#settings.add(new Chart("Held-out loss of each run over steps"));
  #training = this.#settings.add(new Chart("Training objective of each run over steps"));
  #rows = h("tbody");
  #notice = h("p", { class: "help" });
  #problem = h("div", { role: "alert" });

  constructor(main, ids) {
    this.#main = main;
    this.#ids = ids;
    this.#styles = runStyles.claim(ids);
  }

  async begin() {
    const columns = [
      "Run",
      "State",
      "Steps",
      "Training loss",
      "Held out, before",
      "Held out, after",
      "Teacher",
    ];
    fill(
      this.#main,
      h(
        "section",
        { class: "panel" },
        h("h1", {}, "Compare runs"),
        this.#problem,
        h(
          "div",
          { class: "wide-table", tabindex: 0, role: "region", "aria-label": "Numbers of the runs" },
          h(
            "table",
            {},
            h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)))),
            this.#rows,
          ),
        ),
      ),
      this.#settings.element,
      h("section", { class: "panel" }, h("h2", {}, "Held-out loss, nats a token"), this.#heldOut.element),
      h(
        "section",
        { class: "panel" },
        h("h2", {}, "Training objective, nats a token"),
        this.#notice,
        this.#training.element,
      ),
    );
    await this.#read();
  }

  end() {
    this.#abort.abort();
    clearTimeout(this.#timer);
    this.#heldOut.destroy();
    this.#training.destroy();
  }

  /** Reads what may have changed, and again later while some of it may. */
  async #read() {
    const isOver = ({ state } = {}) => ENDED.has(state);
    const open = this.#ids.filter((id) => !isOver(this.#runs.get(id)));
    const found = await Promise.allSettled(open.map((id) => this.#readRun(id)));
    if (this.#abort.signal.aborted) return;
    // In the order in which they were chosen, whichever was read first.
    for (const { value } of found) if (value) this.#draw(value);
    const problems = found.flatMap(({ reason }) => reason ? [reason.message] : []);
    fill(this.#problem, ...problems.map((message) => h("p", { class: "notice bad" }, message)));
    fill(this.#rows, ...[...this.#shown()].map((run) => this.#row(run)));
    const objectives = new Set([...this.#shown()].map(({ recipe }) => JSON.stringify(recipe.objective)));
    this.#notice.textContent = objectives.size > 1
      ? "These runs minimise different objectives, so their values cannot be compared; their held-out losses can."
      : "";
    const isGoingOn = this.#ids.some((id) => this.#runs.has(id) && !isOver(this.#runs.get(id)));
    if (isGoingOn) this.#timer = setTimeout(() => this.#read(), AGAIN_MS);
  }

  async #readRun(id) {
    const { signal } = this.#abort;
    const path = `/v1/runs/${encodeURIComponent(id)}`;
    // The run first: if it has ended, what is read next is all there is.
    const run = await api(path, { signal });
    const { training, evaluations } = await api(`${path}/metrics?resolution=500`, { signal });
    return { run, training, evaluations };
  }

  #draw({ run, training, evaluations }) {
    const { id } = run;
    this.#runs.set(id, run);
    const line = { key: id, label: nameOf(run), color: this.#styles.get(id).color };
    this.#training.line({ ...line, smooth: true });
    this.#heldOut.line({ ...line, points: true });
    // What was said of steps that an interrupted run takes anew no longer holds.
    this.#training.replace(id, training.map(({ step, meanLoss }) => [step, meanLoss]));
    const student = evaluations.filter(({ model }) => model === "student");
    this.#heldOut.replace(id, student.map(({ step, loss }) => [step, loss]));
  }

  /** Runs in the order in which they were chosen. */
  #shown() {
    return this.#ids.map((id) => this.#runs.get(id)).filter(Boolean);
  }

  #row(run) {
    const heldOut = run.result?.heldOut;
    const name = h("a", { href: `#/runs/${run.id}` }, swatch(this.#styles.get(run.id)), nameOf(run));
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      h("td", {}, h("span", { class: "state", "data-state": run.state }, run.state)),
      ...[
        `${run.step} of ${run.steps}`,
        number3(run.loss),
        number3(heldOut?.before),
        number3(heldOut?.after),
        number3(heldOut?.teacher),
      ].map((value) => h("td", { class: "number" }, value)),
    );
  }
}
