/** The recipe as it is entered: in fields, which are made from the schemas of the recipe and of the plugins, or as JSON. */
import { ApiError } from "../api.js";
import { fill, h } from "../dom.js";
import { firstRecipe } from "./example.js";
import { Fields } from "./fields.js";
import { ObjectiveFields } from "./objective.js";
import { section } from "./section.js";

/** Fields that are shown at once; the others stand below. */
const FIRST = {
  data: ["contextLength"],
  train: [
    "steps",
    "learningRate",
    "tokensPerMicroBatch",
    "schedule",
    "warmup",
    "evaluateEvery",
    "checkpointEvery",
    "seed",
  ],
  adapter: ["rank", "alpha", "dropout"],
  samples: ["tokens", "temperature"],
};

/** What a recipe may keep of its teacher, as JSON, and what each is called. */
const CACHES = {
  "": "nothing, it runs in every step",
  '{"payload":"hidden"}': "its hidden states",
  '{"topK":64}': "its 64 largest logits",
};

/** What stands in a recipe in place of an adapter. */
const NO_ADAPTER = "none";

/** What a service has: the schema of recipes, plugins, models, datasets, and the recipe that the new one is to be like. */
export class RecipeFields {
  /** Fields by their paths. */
  fields = new Fields();
  #known;
  #recipe;
  #objective;
  #json = h("textarea", { rows: 18, class: "mono", spellcheck: "false", "aria-label": "Recipe as JSON" });
  #parts;
  /** Whether the JSON is open; then it is what counts. */
  isJson = false;

  /**
   * @param known what the service has
   * @param {HTMLElement} upload a field that adds datasets
   */
  constructor(known, upload) {
    this.#known = known;
    this.#recipe = firstRecipe(known);
    this.#objective = new ObjectiveFields(this.fields, this.#plugins("loss"));
    this.#parts = [
      this.#models(),
      this.#data(upload),
      section("Objective", [], this.#objective.element, this.#addLoss()),
      this.#adapter(),
      section("Training", this.#first("train"), ...this.#others("train")),
      this.#samples(),
    ];
    for (const term of this.#recipe.objective) this.#objective.add(term);
  }

  /** What is shown. */
  get elements() {
    const json = h(
      "details",
      { class: "panel", ontoggle: () => this.#toggle(json) },
      h("summary", {}, "Edit the recipe as JSON"),
      h("p", { class: "help" }, "While this is open, it counts in place of the fields above."),
      this.#json,
    );
    return [...this.#parts, json];
  }

  /**
   * The recipe.
   *
   * @throws {ApiError} it is no JSON
   */
  read() {
    if (this.isJson) {
      try {
        return JSON.parse(this.#json.value);
      } catch (error) {
        throw new ApiError(400, { message: `The recipe is not JSON: ${error.message}` });
      }
    }
    const recipe = this.#withoutFields();
    this.fields.write(recipe);
    if (recipe.adapter.type === NO_ADAPTER) recipe.adapter = NO_ADAPTER;
    return recipe;
  }

  /** Offers a dataset, and chooses it to train on. */
  addDataset({ id, filename }) {
    for (const path of ["data.train", "data.heldOut"]) {
      this.fields.input(path).append(h("option", { value: id }, `${filename} (uploaded)`));
    }
    this.fields.input("data.train").value = id;
  }

  #models() {
    const names = this.#known.models.map(({ id }) => id);
    const { teacher, student } = this.#recipe;
    const help = "Counted from 0, such as 0, 1, 3, 5; all when empty";
    // Several teachers have no field: they stay what they are.
    const several = { "": `several: ${teacher.combine} (edit as JSON)` };
    const teachers = teacher.teachers
      ? this.fields.choice("teacher.model", "Teacher", [""], "", several)
      : this.fields.choice("teacher.model", "Teacher", [...names, "student"], teacher.model, {
        student: "the student itself",
      });
    const kept = teacher.cache ? JSON.stringify(teacher.cache) : "";
    return section("Models", [
      teachers,
      this.fields.choice(
        "teacher.cache",
        "Kept of the teacher",
        Object.keys(CACHES),
        kept,
        CACHES,
        (text) => text === "" ? undefined : JSON.parse(text),
      ),
      this.fields.choice("student.model", "Student", ["teacher", ...names], student.model, {
        teacher: "the teacher's own weights",
      }),
      this.fields.text("student.layers", "Layers kept", help, student.layers, {
        read: (text) => text.trim() === "" ? undefined : text.split(/[\s,]+/).filter(Boolean).map(Number),
        write: (value) => value?.join(", ") ?? "",
      }),
    ]);
  }

  #data(upload) {
    const names = this.#known.datasets.map(({ id }) => id);
    const { train, heldOut } = this.#recipe.data;
    return section("Data", [
      this.fields.choice("data.train", "Training data", names, train),
      this.fields.choice("data.heldOut", "Held-out data", ["", ...names], heldOut, {
        "": "5 % of the training data",
      }),
      this.fields.add(
        "upload",
        "Upload a dataset",
        "JSON Lines: text, prompt and completion, or messages",
        upload,
        {
          apart: true,
        },
      ),
      ...this.#first("data"),
    ], ...this.#others("data", "train", "mix", "heldOut"));
  }

  #addLoss() {
    const add = () => {
      this.#objective.add();
      changed(this.#objective.element);
    };
    return h("button", { type: "button", onclick: add }, "Add a loss");
  }

  #adapter() {
    const { adapter } = this.#recipe;
    const kinds = this.#plugins("adapter");
    const choice = this.fields.choice(
      "adapter.type",
      "Kind",
      [...kinds.map(({ id }) => id), NO_ADAPTER],
      adapter === NO_ADAPTER ? NO_ADAPTER : adapter.type,
      { [NO_ADAPTER]: "none, only what student.train names" },
    );
    const options = h("div", { class: "fields" });
    const settings = h(
      "div",
      { class: "settings" },
      h("div", { class: "fields" }, ...this.#first("adapter")),
      options,
      ...this.#others("adapter", "type", "options"),
    );
    const show = (values) => {
      const id = this.fields.value("adapter.type");
      const { properties = {} } = kinds.find((plugin) => plugin.id === id)?.options ?? {};
      this.fields.forget("adapter.options.");
      fill(options, ...this.fields.ofSchema("adapter.options", properties, values));
      settings.hidden = id === NO_ADAPTER;
    };
    this.fields.input("adapter.type").addEventListener("change", () => show({}));
    show(adapter.options);
    return section("Adapter", [choice], settings);
  }

  #samples() {
    const help = "One a line; the start of a held-out sample when empty";
    return section("Samples", [
      this.fields.text("samples.prompts", "Prompts", help, this.#recipe.samples.prompts, {
        read: (text) => text.split("\n").filter((line) => line !== ""),
        write: (value) => (value ?? []).join("\n"),
        rows: 2,
      }),
      ...this.#first("samples"),
    ]);
  }

  #first(name) {
    return this.fields.ofSection(this.#known.schema, this.#recipe, name, { only: FIRST[name] });
  }

  #others(name, ...shown) {
    return this.fields.ofSection(this.#known.schema, this.#recipe, name, {
      except: [...FIRST[name], ...shown],
    });
  }

  #plugins(role) {
    return this.#known.plugins.filter((plugin) => plugin.role === role);
  }

  /** What the run that this one is to be like has beside the fields of the form. */
  #withoutFields() {
    const { like } = this.#known;
    if (!like) return {};
    const recipe = structuredClone(like);
    recipe.objective = this.#objective.kept;
    if (recipe.adapter?.type !== this.fields.value("adapter.type")) recipe.adapter = {};
    return recipe;
  }

  #toggle(json) {
    if (json.open && !this.isJson) this.#json.value = JSON.stringify(this.read(), null, 2);
    this.isJson = json.open;
    for (const part of this.#parts) part.disabled = json.open;
    changed(json);
  }
}

/** Says that something was changed, as inputs do by themselves. */
function changed(element) {
  element.dispatchEvent(new Event("input", { bubbles: true }));
}
