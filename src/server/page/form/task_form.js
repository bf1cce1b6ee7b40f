/** The forms of runs that do something else than distil: merge models, add a residual, cut a model, measure some. */
import { api } from "../api.js";
import { fill, h } from "../dom.js";
import { shownTask } from "./estimate.js";
import { Fields } from "./fields.js";
import { isTask, kindLinks } from "./kinds.js";
import { MergeFields } from "./merge_fields.js";
import { section } from "./section.js";
import { showLoaded } from "./show_loaded.js";

const TITLES = {
  merge: "Merge models",
  residual: "Add an instruction residual",
  shrink: "Shrink a model",
  evaluate: "Evaluate models",
  extract: "Extract an adapter",
  export: "Export a shape",
  "merge-adapters": "Merge adapters",
};
const ABOUT = {
  merge: "Several models of one shape become one, tensor by tensor.",
  residual:
    "What instruction tuning changed in one base model is added to another one: new base + (instruct - base).",
  evaluate:
    "Models are measured beside each other on tasks: how well they predict, choose, agree with a teacher, or answer.",
  extract: "The difference of two models becomes an adapter for the first one.",
  "merge-adapters": "The adapters of several runs on one base become one, or are merged into their base.",
  export: "One shape of a run that trained several, on its own and without training.",
  shrink: "Layers, heads and channels that the model can do without are searched for on data, and cut away.",
};
/** The schema of each task, by its name in the service's document. */
const SCHEMAS = {
  merge: "MergeTask",
  residual: "ResidualTask",
  shrink: "ShrinkTask",
  evaluate: "EvaluateTask",
  extract: "ExtractTask",
  export: "ExportTask",
  "merge-adapters": "MergeAdaptersTask",
};
/** Fields of a shrink that are shown at once. */
const SHRINK_FIRST = ["layers", "search", "metric", "width", "structure"];

/**
 * Shows the form of a task; returns how to stop.
 *
 * @param {string} name a task, or the id of a run that the new one is to be like
 * @param {...string} values of an export the id of the run, and the shape
 */
export function showTaskForm(main, name, ...values) {
  document.title = "New run – Limbeck";
  return showLoaded(
    main,
    (signal) => load(name, values, signal),
    (known, signal) => new TaskForm(known, signal).show(main),
  );
}

async function load(name, [id, shape], signal) {
  const get = (path) => api(path, { signal });
  const [document, plugins, models, datasets, run] = await Promise.all([
    ...["/openapi.json", "/v1/plugins", "/v1/models", "/v1/datasets"].map(get),
    isTask(name) ? undefined : get(`/v1/runs/${encodeURIComponent(name)}`),
  ]);
  const task = run?.task ?? name;
  return {
    task,
    schema: document.components.schemas[SCHEMAS[task]],
    plugins: plugins.data,
    models: models.data,
    datasets: datasets.data,
    recipe: run?.recipe ?? (id === undefined ? {} : { run: `run:${id}`, shape }),
  };
}

class TaskForm {
  #signal;
  #task;
  /** What the run that this one is to be like has beside the fields of the form. */
  #kept;
  #fields = new Fields();
  #parts;
  #name = h("input", { type: "text", autocomplete: "off" });
  #problem = h("div", { role: "alert" });
  #summary = h("div", { class: "summary", role: "status" });
  #buttons = [
    h("button", { type: "button", onclick: () => this.#estimate() }, "Estimate"),
    h("button", { class: "primary" }, "Start run"),
  ];

  constructor(known, signal) {
    this.#signal = signal;
    this.#task = known.task;
    this.#kept = known.recipe;
    this.#parts = PARTS[known.task](this.#fields, known);
  }

  show(main) {
    const submit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    const name = this.#fields.add("metadata.name", "Name", "May be left empty", this.#name, { apart: true });
    fill(
      main,
      kindLinks(this.#task),
      h(
        "form",
        { novalidate: true, onsubmit: submit, oninput: () => fill(this.#summary) },
        h(
          "section",
          { class: "panel" },
          h("h1", {}, TITLES[this.#task]),
          h("p", { class: "help" }, ABOUT[this.#task]),
          h("div", { class: "fields" }, name),
        ),
        ...this.#parts,
        h(
          "section",
          { class: "panel begin" },
          this.#problem,
          this.#summary,
          h("div", { class: "actions" }, ...this.#buttons),
        ),
      ),
    );
  }

  #read() {
    const recipe = { ...structuredClone(this.#kept), task: this.#task };
    // Rows of models and options of a method are read anew: fields alone say how many there are.
    for (const field of this.#task === "merge" ? ["models", "options"] : []) delete recipe[field];
    this.#fields.write(recipe);
    return recipe;
  }

  /** Shows what it needs and will leave, or what is wrong with it; nothing is begun. */
  #estimate() {
    return this.#send(async (signal) => {
      fill(this.#summary, h("p", {}, "Looking at the models …"));
      const body = { recipe: this.#read() };
      const found = await api("/v1/runs/estimate", { method: "POST", body, signal });
      this.#tell({ problems: [] });
      fill(this.#summary, ...shownTask(found));
    });
  }

  #submit() {
    return this.#send(async (signal) => {
      const name = this.#name.value.trim();
      const body = { recipe: this.#read(), ...(name === "" ? {} : { metadata: { name } }) };
      const run = await api("/v1/runs", { method: "POST", body, signal });
      location.hash = `#/runs/${run.id}`;
    });
  }

  async #send(work) {
    for (const button of this.#buttons) button.disabled = true;
    try {
      await work(this.#signal);
    } catch (error) {
      if (this.#signal.aborted) return;
      fill(this.#summary);
      this.#tell(error);
    } finally {
      for (const button of this.#buttons) button.disabled = false;
    }
  }

  #tell({ problems, message }) {
    const told = problems?.length > 0 || !message ? problems : [{ param: "", message }];
    const others = this.#fields.tell(told, { focus: true });
    fill(
      this.#problem,
      ...others.map(({ param, message }) =>
        h("p", { class: "notice bad" }, param ? `${param}: ${message}` : message)
      ),
    );
  }
}

/** The parts of each form. */
const PARTS = {
  merge: (fields, known) => new MergeFields(fields, known, { method: "linear", ...known.recipe }).elements,

  residual(fields, { schema, models, recipe }) {
    const names = models.map(({ id }) => id);
    return [
      section("Models", [
        fields.choice("base", "Base", names, recipe.base),
        fields.choice("instruct", "Instruct, tuned from it", names, recipe.instruct),
        fields.choice("newBase", "New base", names, recipe.newBase),
      ]),
      section(
        "Residual",
        fields.ofSchema("", schema.properties, recipe, ["scale", "rank", "dtype", "commonRows"]),
      ),
    ];
  },

  evaluate(fields, { models, datasets, recipe }) {
    const example = [{ kind: "perplexity", data: datasets[0]?.id ?? "" }];
    const listed = recipe.models ?? models.slice(0, 2).map(({ id }) => ({ model: id }));
    return [
      section("Models", [
        fields.text("models", "Models", "One a line, the one first that others are compared with", listed, {
          read: (text) =>
            text.split("\n").map((line) => line.trim()).filter(Boolean).map((model) => ({ model })),
          write: (list = []) => list.map(({ model }) => model).join("\n"),
          rows: 3,
        }),
        fields.choice("teacher", "Teacher", ["", ...models.map(({ id }) => id)], recipe.teacher, {
          "": "none",
        }),
      ]),
      section("Tasks", [
        fields.text(
          "tasks",
          "Tasks",
          "A list in JSON: kind or layout, data, and what the kind wants",
          recipe.tasks ?? example,
          {
            read: tasksOf,
            write: (tasks) => JSON.stringify(tasks, null, 1),
            rows: 8,
          },
        ),
      ]),
    ];
  },

  extract(fields, { schema, models, recipe }) {
    const names = models.map(({ id }) => id);
    return [
      section("Models", [
        fields.choice("base", "Base", names, recipe.base),
        fields.choice("tuned", "Tuned from it", names, recipe.tuned),
        ...fields.ofSchema("", schema.properties, recipe, ["rank"]),
      ]),
    ];
  },

  "merge-adapters": (fields, { schema: { properties }, models, recipe }) => [
    section("Adapters", [
      fields.text(
        "adapters",
        "Adapters",
        "Runs, one a line, each with its weight after it: run:ID 0.5",
        recipe.adapters,
        {
          ...{ read: adaptersOf, write: adapterLines, rows: 3 },
        },
      ),
      ...fields.ofSchema("", properties, recipe, ["method", "rank"]),
      fields.choice("into", "Into", ["", ...models.map(({ id }) => id)], recipe.into, { "": "one adapter" }),
      ...fields.ofSchema("", properties, recipe, ["dtype"]),
    ]),
  ],

  export: (fields, { schema: { properties }, recipe }) => [
    section("Shape", fields.ofSchema("", properties, recipe, ["run", "shape", "target", "storage"])),
  ],

  shrink(fields, { schema, models, datasets, recipe }) {
    const { properties } = schema;
    const more = Object.keys(properties).filter((name) =>
      !["task", "model", "data", ...SHRINK_FIRST].includes(name)
    );
    const [data, ...others] = [recipe.data ?? []].flat();
    return [
      section("Model and data", [
        fields.choice("model", "Model", models.map(({ id }) => id), recipe.model),
        others.length > 0
          ? fields.text("data", "Data", "Datasets, one a line", [data, ...others], {
            read: (text) => text.split("\n").filter(Boolean),
            write: (names) => names.join("\n"),
            rows: 2,
          })
          : fields.choice("data", "Data", datasets.map(({ id }) => id), data),
      ]),
      section(
        "What stays",
        fields.ofSchema("", properties, recipe, SHRINK_FIRST),
        h(
          "details",
          {},
          h("summary", {}, "More"),
          h("div", { class: "fields" }, ...fields.ofSchema("", properties, recipe, more)),
        ),
      ),
    ];
  },
};

/** Tasks as they are entered. What is no JSON is sent as it is, so that the service says what is wrong with it. */
function tasksOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Adapters as they are entered. What is no number is sent as it is, so that the service says what is wrong with it. */
function adaptersOf(text) {
  return text.split("\n").map((line) => line.trim().split(/\s+/)).filter(([adapter]) => adapter)
    .map(([adapter, weight]) => ({
      adapter,
      ...(weight === undefined ? {} : { weight: Number.isFinite(Number(weight)) ? Number(weight) : weight }),
    }));
}

function adapterLines(adapters = []) {
  return adapters.map(({ adapter, weight = 1 }) => `${adapter} ${weight}`).join("\n");
}
