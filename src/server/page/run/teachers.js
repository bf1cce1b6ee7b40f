/** What each of several teachers taught in a run, where each sample has one of them. */
import { fill, h } from "../dom.js";
import { number3 } from "../words.js";

/** A table of a run's teachers. */
export class Teachers {
  #teachers = [];
  /** What each taught in each step, so that a step which is done again counts once. */
  #steps = new Map();
  #body = h("tbody");
  element = h(
    "section",
    { class: "panel", hidden: true },
    h("h2", {}, "Which teacher taught what"),
    h(
      "div",
      { class: "wide-table", tabindex: 0, role: "region", "aria-label": "Teachers" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ...["Teacher", "Samples", "Its loss on them", "On all", "Tokens taught", "Objective, last step"]
              .map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        this.#body,
      ),
    ),
    h(
      "p",
      { class: "help" },
      "A teacher's loss is its own cross-entropy in nats a token; the objective is the student's over the tokens of its samples.",
    ),
  );

  /** Which teacher has which samples: once, before training. */
  choose({ teachers }) {
    this.#teachers = teachers;
    this.element.hidden = false;
    this.#show();
  }

  /** What they taught in a step. */
  metrics({ step, teachers }) {
    if (!teachers) return;
    this.#steps.set(step, teachers);
    this.#show();
  }

  /** Takes back what was taught after a step. */
  rewind(last) {
    for (const step of this.#steps.keys()) if (step > last) this.#steps.delete(step);
    this.#show();
  }

  #show() {
    const steps = [...this.#steps.values()];
    const all = sum(steps.flat());
    fill(
      this.#body,
      ...this.#teachers.map(({ name, samples, loss, lossOfAll }) => {
        const own = steps.flatMap((step) => step.filter((part) => part.name === name));
        const tokens = sum(own);
        const share = all > 0 ? ` (${Math.round(100 * tokens / all)} %)` : "";
        const last = own.findLast((part) => part.tokens > 0)?.loss ?? null;
        const cells = [
          samples,
          number3(loss),
          number3(lossOfAll),
          `${tokens.toLocaleString()}${share}`,
          number3(last),
        ];
        return h(
          "tr",
          {},
          h("th", { scope: "row" }, name),
          ...cells.map((cell) => h("td", { class: "number" }, String(cell))),
        );
      }),
    );
  }
}

function sum(parts) {
  return parts.reduce((total, { tokens }) => total + tokens, 0);
}
