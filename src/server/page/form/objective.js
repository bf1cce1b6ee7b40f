/** The part of the form with the losses that are minimised. */
import { h } from "../dom.js";
import { numberOf } from "./schema_inputs.js";

/** The losses of the form. */
export class ObjectiveFields {
  #fields;
  #losses;
  /** Each loss as it was added, with what no field shows. */
  #terms = [];
  element = h("div");

  /**
   * @param fields of the form
   * @param losses plugins that there are
   */
  constructor(fields, losses) {
    this.#fields = fields;
    this.#losses = losses;
  }

  /** What the losses have beside what fields show. One that was changed to another has nothing. */
  get kept() {
    return this.#terms.map((term, i) =>
      this.#fields.value(`objective.${i}.loss`) === term.loss ? structuredClone(term) : {}
    );
  }

  /** Adds a loss. */
  add(term = { loss: "forward-kl" }) {
    const i = this.#terms.push(term) - 1;
    const path = `objective.${i}`;
    const select = h(
      "select",
      { onchange: () => showOptions({}) },
      ...this.#losses.map(({ id }) => h("option", { value: id, selected: id === term.loss }, id)),
    );
    const about = h("p", { class: "help" });
    const options = h("div", { class: "fields" });
    const showOptions = (values) => {
      const plugin = this.#losses.find(({ id }) => id === select.value) ?? this.#losses[0];
      about.textContent = plugin.description ?? "";
      this.#fields.forget(`${path}.options.`);
      options.replaceChildren(
        ...this.#fields.ofSchema(`${path}.options`, plugin.options?.properties ?? {}, values),
      );
    };
    const number = (name, label, value) => {
      const input = h("input", { type: "number", step: "any", min: 0, value: value ?? 1 });
      return this.#fields.add(`${path}.${name}`, label, "", input, { read: () => numberOf(input) });
    };
    const remove = h("button", {
      ...{ type: "button", class: "quiet danger", "aria-label": `Remove loss ${i + 1}` },
      onclick: () => this.#remove(i),
    }, "Remove");
    this.element.append(h(
      "div",
      { class: "term" },
      h(
        "div",
        { class: "fields" },
        this.#fields.add(`${path}.loss`, `Loss ${i + 1}`, "", select),
        number("weight", "Weight", term.weight),
        number("temperature", "Temperature", term.temperature),
        i > 0 && h("div", { class: "actions end" }, remove),
      ),
      about,
      options,
    ));
    showOptions(term.options ?? {});
  }

  /** Those that come after it move up, so all are made anew. */
  #remove(i) {
    const recipe = { objective: this.kept };
    this.#fields.write(recipe);
    recipe.objective.splice(i, 1);
    this.#fields.forget("objective.");
    this.#terms = [];
    this.element.replaceChildren();
    for (const term of recipe.objective) this.add(term);
    this.element.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
