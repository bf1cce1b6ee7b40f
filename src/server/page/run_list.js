/** The list of runs. Runs are chosen there to be compared. */
import { h } from "./dom.js";
import { HUES } from "./charts/line_styles.js";
import { nameOf } from "./words.js";

/** As many runs as there are colours. */
const MOST_CHOSEN = HUES;

/** The list of runs. */
export class RunList {
  #list;
  #chosen = [];
  #whenChosen;
  #compare = h("a", { class: "button primary" });
  #clear = h("button", { type: "button", onclick: () => this.#choose([]) }, "Clear");
  #bar = h("div", { class: "compare-bar", hidden: true }, this.#compare, this.#clear);

  /** @param {(ids: string[]) => void} whenChosen runs were chosen, or no longer are */
  constructor(list, whenChosen) {
    this.#list = list;
    this.#whenChosen = whenChosen;
    list.after(this.#bar);
  }

  /** Runs to compare, by their ids. */
  set chosen(ids) {
    this.#chosen = ids;
    this.#showChosen();
  }

  /** Shows runs. Cards are changed in place, so that the focus stays where it is. */
  show(runs) {
    const known = new Map([...this.#list.children].map((item) => [item.dataset.id, item]));
    const items = runs.map((run) => {
      const item = known.get(run.id) ?? this.#newCard(run);
      fillCard(item, run);
      return item;
    });
    const { children } = this.#list;
    const same = items.length === children.length && items.every((item, i) => children[i] === item);
    if (!same) this.#list.replaceChildren(...items);
    if (known.size === 0) this.mark();
    if (runs.length === 0) this.#list.replaceChildren(h("li", { class: "sub" }, "None yet."));
    this.#showChosen();
  }

  /** Marks the run that is shown. */
  mark() {
    for (const link of this.#list.querySelectorAll("a")) {
      if (link.getAttribute("href") !== location.hash) link.removeAttribute("aria-current");
      else link.setAttribute("aria-current", "page");
    }
    // Where the list is a few cards high, the marked one is among them.
    const item = this.#list.querySelector("[aria-current]")?.closest("li");
    if (item) this.#list.scrollTop = item.offsetTop - this.#list.offsetTop;
  }

  #newCard({ id }) {
    const href = `#/runs/${id}`;
    const box = h("input", {
      type: "checkbox",
      onchange: () =>
        this.#choose(box.checked ? [...this.#chosen, id] : this.#chosen.filter((known) => known !== id)),
    });
    const link = h(
      "a",
      { class: "run-card", href, "aria-current": href === location.hash && "page" },
      h("span", { class: "row" }, h("span", { class: "title" }), h("span", { class: "state" })),
      h("span", { class: "sub" }),
      h("progress", { max: 1, value: 0, "aria-label": "Steps done" }),
    );
    return h("li", { "data-id": id }, h("label", { class: "choice" }, box), link);
  }

  #choose(ids) {
    this.chosen = ids;
    this.#whenChosen(ids);
  }

  #showChosen() {
    const isFull = this.#chosen.length >= MOST_CHOSEN;
    for (const box of this.#list.querySelectorAll(".choice input")) {
      box.checked = this.#chosen.includes(box.closest("li").dataset.id);
      box.disabled = isFull && !box.checked;
    }
    const count = this.#chosen.length;
    this.#bar.hidden = count === 0;
    this.#compare.textContent = count === 1 ? "Choose another to compare" : `Compare ${count} runs`;
    // A link that leads nowhere is none.
    if (count > 1) this.#compare.setAttribute("href", comparisonOf(this.#chosen));
    else this.#compare.removeAttribute("href");
  }
}

/** Where runs are compared. */
export function comparisonOf(ids) {
  return `#/compare/${ids.map(encodeURIComponent).join(",")}`;
}

function fillCard(item, run) {
  const name = nameOf(run);
  item.querySelector(".title").textContent = name;
  item.querySelector(".choice input").setAttribute("aria-label", `Compare ${name}`);
  const state = item.querySelector(".state");
  state.textContent = run.state;
  state.dataset.state = run.state;
  const loss = run.result?.heldOut.after ?? run.loss;
  item.querySelector(".sub").textContent =
    `${new Date(run.createdAt).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` +
    (loss === null || loss === undefined ? "" : ` · loss ${loss.toFixed(3)}`);
  const progress = item.querySelector("progress");
  progress.max = run.steps;
  progress.value = run.step;
  progress.hidden = run.state === "succeeded" || run.state === "cancelled";
}
