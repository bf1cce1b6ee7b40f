/** What is merged, and how: a method, models with options of their own each, and options of the method. */
import { h } from "../dom.js";
import { section } from "./section.js";

/** The part of a merge's form that depends on its method. */
export class MergeFields {
  #fields;
  #methods;
  #models;
  #count = 0;
  #rows = h("div");
  #about = h("p", { class: "help" });
  #options = h("div", { class: "fields" });
  elements;

  /**
   * @param fields of the form
   * @param {{plugins: object[], models: {id: string}[], schema: object}} known what the service has
   * @param recipe what is shown first
   */
  constructor(fields, { plugins, models, schema }, recipe) {
    this.#fields = fields;
    this.#methods = plugins.filter(({ role }) => role === "merge");
    this.#models = models.map(({ id }) => id);
    const method = fields.choice("method", "Method", this.#methods.map(({ id }) => id), recipe.method);
    fields.input("method").addEventListener("change", () => this.#show({}, this.#entered()));
    const base = fields.choice("base", "Base", ["", ...this.#models], recipe.base, {
      "": "none, where the method needs none",
    });
    const add = () => {
      this.#add({});
      changed(this.#rows);
    };
    this.elements = [
      section("Method", [method, base], this.#about, this.#options),
      section("Models", [], this.#rows, h("button", { type: "button", onclick: add }, "Add a model")),
      section("Result", [
        fields.choice("tokenizer", "Tokens of", ["", "base", "union", ...this.#models], recipe.tokenizer, {
          "": "the models, which have the same",
          base: "the base",
          union: "all models",
        }),
        ...fields.ofSchema("", schema.properties, recipe, ["outDtype", "seed"]),
      ]),
    ];
    this.#show(recipe.options ?? {}, recipe.models ?? [{}, {}]);
  }

  get #method() {
    return this.#methods.find(({ id }) => id === this.#fields.value("method")) ?? this.#methods[0];
  }

  /** Makes what depends on the method anew. */
  #show(options, models) {
    const method = this.#method;
    this.#about.textContent = method?.description ?? "";
    this.#fields.forget("options.");
    this.#options.replaceChildren(
      ...this.#fields.ofSchema("options", method?.options?.properties ?? {}, options),
    );
    this.#fields.forget("models.");
    this.#rows.replaceChildren();
    this.#count = 0;
    for (const model of models) this.#add(model);
  }

  #add({ model, ...options }) {
    const i = this.#count++;
    const path = `models.${i}`;
    const further = this.#method?.furtherOptions ?? {};
    const own = Object.values(further).flatMap(({ schema }) =>
      this.#fields.ofSchema(path, schema?.properties ?? {}, options)
    );
    const remove = h("button", {
      ...{ type: "button", class: "quiet danger", "aria-label": `Remove model ${i + 1}` },
      onclick: () => {
        this.#show(this.#optionsEntered(), this.#entered().toSpliced(i, 1));
        changed(this.#rows);
      },
    }, "Remove");
    this.#rows.append(h(
      "div",
      { class: "term fields" },
      this.#fields.choice(`${path}.model`, `Model ${i + 1}`, this.#models, model ?? this.#models[i]),
      ...own,
      i > 0 && h("div", { class: "actions end" }, remove),
    ));
  }

  #entered() {
    const recipe = {};
    this.#fields.write(recipe);
    return recipe.models ?? [];
  }

  #optionsEntered() {
    const recipe = {};
    this.#fields.write(recipe);
    return recipe.options ?? {};
  }
}

function changed(element) {
  element.dispatchEvent(new Event("input", { bubbles: true }));
}
