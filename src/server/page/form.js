/** The form of a new run. Its fields are made from the schemas of the recipe and of the plugins. */
import { api, ApiError, bytes, h, toast } from "./dom.js";
import {
  firstSentence,
  inputOf,
  isSimple,
  numberOf,
  objectSchema,
  put,
  take,
  valueAt,
  wordsOf,
} from "./fields.js";

/** What the form begins with: the example that comes with Limbeck, as far as the service has it. */
const EXAMPLE = {
  teacher: { model: "stories15M-q8_0.gguf" },
  student: { model: "teacher", layers: [0, 1, 3, 5] },
  data: { train: "stories-train", heldOut: "stories-heldout", contextLength: 256, endToken: "bos" },
  objective: [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }],
  adapter: { type: "lora", rank: 16 },
  train: {
    steps: 60,
    tokensPerMicroBatch: 256,
    learningRate: 0.0015,
    schedule: "linear",
    warmup: 5,
    evaluateEvery: 20,
    checkpointEvery: 20,
    seed: 1,
  },
  samples: { prompts: ["Once upon a time, there was a little"], tokens: 60 },
};

/** Fields that are shown at once; the others stand below. */
const FIRST = {
  data: ["train", "heldOut", "contextLength"],
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

/** Shows the form, filled in like a run's recipe where one is named; returns how to stop. */
export function showForm(main, like) {
  const abort = new AbortController();
  main.replaceChildren(h("p", { class: "empty" }, "Reading what the service has …"));
  load(like, abort.signal).then(
    (known) => !abort.signal.aborted && new Form(main, known, abort.signal).show(),
    (error) => {
      if (!abort.signal.aborted) main.replaceChildren(h("p", { class: "notice bad" }, error.message));
    },
  );
  return () => abort.abort();
}

async function load(like, signal) {
  const get = (path) => api(path, { signal });
  const [document, plugins, models, datasets, run] = await Promise.all([
    ...["/openapi.json", "/v1/plugins", "/v1/models", "/v1/datasets"].map(get),
    like === undefined ? undefined : get(`/v1/runs/${encodeURIComponent(like)}`),
  ]);
  return {
    schema: document.components.schemas.Recipe,
    plugins: plugins.data,
    models: models.data,
    datasets: datasets.data,
    like: run?.recipe,
  };
}

class Form {
  #main;
  #known;
  #signal;
  #recipe;
  #fields = new Map();
  #estimate = h("div", { "aria-live": "polite" });
  #problem = h("div", { role: "alert" });
  #terms = h("div");
  #adapterOptions = h("div", { class: "fields" });
  #json = h("textarea", { rows: 18, class: "mono", spellcheck: "false", "aria-label": "Recipe as JSON" });
  #useJson = false;

  constructor(main, known, signal) {
    this.#main = main;
    this.#known = known;
    this.#signal = signal;
    this.#recipe = this.#beginning();
  }

  /** The example where the service has it, else whatever it has. */
  #beginning() {
    const { models, datasets, like } = this.#known;
    if (like) {
      return { adapter: {}, train: {}, samples: {}, objective: EXAMPLE.objective, ...structuredClone(like) };
    }
    const recipe = structuredClone(EXAMPLE);
    const has = (list, name) => list.some(({ id }) => id === name);
    if (has(models, EXAMPLE.teacher.model) && has(datasets, EXAMPLE.data.train)) return recipe;
    recipe.teacher.model = models[0]?.id ?? "";
    recipe.student = { model: "teacher" };
    recipe.data = { train: datasets[0]?.id ?? "", contextLength: EXAMPLE.data.contextLength };
    recipe.samples = {};
    return recipe;
  }

  show() {
    const { models, datasets } = this.#known;
    const modelNames = models.map(({ id }) => id);
    const form = h(
      "form",
      {
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
      h(
        "section",
        { class: "panel" },
        h("h1", {}, "New run"),
        h(
          "p",
          { class: "help" },
          "The teacher is imitated, the student learns. What you see first is the example that comes with Limbeck.",
        ),
      ),
      this.#section(
        "Models",
        h(
          "div",
          { class: "fields" },
          this.#choice("teacher.model", "Teacher", modelNames),
          this.#choice("student.model", "Student", ["teacher", ...modelNames], {
            teacher: "the teacher's own weights",
          }),
          this.#text("student.layers", "Layers kept", "Counted from 0, such as 0, 1, 3, 5; all when empty", {
            read: (text) => text.trim() === "" ? undefined : text.split(/[\s,]+/).filter(Boolean).map(Number),
            write: (value) => value?.join(", ") ?? "",
          }),
        ),
      ),
      this.#section(
        "Data",
        h(
          "div",
          { class: "fields" },
          this.#choice("data.train", "Training data", datasets.map(({ id }) => id)),
          this.#choice("data.heldOut", "Held-out data", ["", ...datasets.map(({ id }) => id)], {
            "": "5 % of the training data",
          }),
          this.#upload(),
          ...this.#schemaFields("data", FIRST.data.slice(2)),
        ),
        this.#more("data", FIRST.data),
      ),
      this.#section(
        "Objective",
        this.#terms,
        h("button", { type: "button", onclick: () => this.#addTerm() }, "Add a loss"),
      ),
      this.#section(
        "Adapter",
        h(
          "div",
          { class: "fields" },
          this.#choice(
            "adapter.type",
            "Kind",
            this.#plugins("adapter").map(({ id }) => id),
            {},
            () => this.#showAdapter(),
          ),
          ...this.#schemaFields("adapter", FIRST.adapter),
        ),
        this.#adapterOptions,
        this.#more("adapter", [...FIRST.adapter, "type", "options"]),
      ),
      this.#section(
        "Training",
        h("div", { class: "fields" }, ...this.#schemaFields("train", FIRST.train)),
        this.#more("train", FIRST.train),
      ),
      this.#section(
        "Samples",
        h(
          "div",
          { class: "fields" },
          this.#text("samples.prompts", "Prompts", "One a line; the start of a held-out sample when empty", {
            read: (text) => text.split("\n").filter((line) => line !== ""),
            write: (value) => (value ?? []).join("\n"),
            rows: 2,
          }),
          ...this.#schemaFields("samples", FIRST.samples),
        ),
      ),
      h(
        "details",
        { class: "panel", ontoggle: (event) => this.#toggleJson(event.target.open) },
        h("summary", {}, "Edit the recipe as JSON"),
        this.#json,
      ),
      h(
        "section",
        { class: "panel" },
        this.#problem,
        this.#estimate,
        h(
          "div",
          { class: "actions" },
          h("button", { type: "button", id: "estimate", onclick: () => this.#askEstimate() }, "Estimate"),
          h("button", { class: "primary", id: "start" }, "Start run"),
        ),
      ),
    );
    this.#main.replaceChildren(form);
    for (const term of this.#recipe.objective) this.#addTerm(term);
    this.#showAdapter();
  }

  #section(title, ...children) {
    return h("fieldset", { class: "panel" }, h("legend", {}, title), ...children);
  }

  #plugins(...kinds) {
    return this.#known.plugins.filter(({ kind }) => kinds.includes(kind));
  }

  // Fields: each knows its path in the recipe, and is where a problem with that path is shown.

  #field(path, label, help, input, { read, wide } = {}) {
    const id = `field-${path.replaceAll(".", "-")}`;
    input.id = id;
    const wrong = h("p", { class: "wrong", id: `${id}-wrong` });
    const about = help ? h("p", { class: "help", id: `${id}-help` }, help) : null;
    input.setAttribute("aria-describedby", `${help ? `${id}-help ` : ""}${id}-wrong`);
    const element = h(
      "div",
      { class: `field${wide ? " wide" : ""}` },
      h("label", { for: id }, label),
      input,
      wrong,
      about,
    );
    this.#fields.set(path, { element, input, wrong, read: read ?? (() => input.value) });
    return element;
  }

  #choice(path, label, values, names = {}, changed) {
    const current = valueAt(this.#recipe, path) ?? "";
    const select = h(
      "select",
      { onchange: changed },
      ...values.map((value) => h("option", { value, selected: value === current }, names[value] ?? value)),
    );
    if (!values.includes(current) && values.length > 0) select.value = values[0];
    return this.#field(path, label, "", select, {
      read: () => select.value === "" ? undefined : select.value,
    });
  }

  #text(path, label, help, { read, write, rows }) {
    const input = rows ? h("textarea", { rows }) : h("input", { type: "text" });
    input.value = write(valueAt(this.#recipe, path));
    return this.#field(path, label, help, input, { read: () => read(input.value), wide: Boolean(rows) });
  }

  #upload() {
    const input = h("input", {
      type: "file",
      accept: ".jsonl,application/jsonl",
      onchange: async () => {
        const [file] = input.files;
        if (!file) return;
        const body = new FormData();
        body.set("purpose", "fine-tune");
        body.set("file", file);
        const response = await fetch("/v1/files", { method: "POST", body });
        const told = await response.json();
        if (!response.ok) return this.#tell([{ param: "upload", message: told.error.message }]);
        for (const path of ["data.train", "data.heldOut"]) {
          this.#fields.get(path).input.append(h("option", { value: told.id }, `${told.filename} (uploaded)`));
        }
        this.#fields.get("data.train").input.value = told.id;
        toast(`${told.filename} is uploaded and chosen as training data.`);
      },
    });
    return this.#field(
      "upload",
      "Upload a dataset",
      "JSON Lines: text, prompt and completion, or messages",
      input,
      {
        read: () => undefined,
      },
    );
  }

  /** Fields of a section of the recipe, as its schema has them. */
  #schemaFields(section, names) {
    const { properties } = objectSchema(this.#known.schema.properties[section]);
    return names.filter((name) => properties[name]).map((name) =>
      this.#schemaField(`${section}.${name}`, name, properties[name])
    );
  }

  #more(section, shown) {
    const { properties } = objectSchema(this.#known.schema.properties[section]);
    const names = Object.keys(properties).filter((name) =>
      !shown.includes(name) && isSimple(properties[name])
    );
    return names.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, "More"),
        h("div", { class: "fields" }, ...this.#schemaFields(section, names)),
      );
  }

  #schemaField(path, name, schema) {
    const { input, read } = inputOf(schema, valueAt(this.#recipe, path));
    return this.#field(path, wordsOf(name), firstSentence(schema.description), input, { read });
  }

  // The objective

  #addTerm(term = { loss: "forward-kl" }) {
    const i = this.#terms.children.length;
    const path = `objective.${i}`;
    const losses = this.#plugins("divergence", "row-loss", "feature-loss");
    const select = h(
      "select",
      { onchange: () => showOptions({}) },
      ...losses.map(({ id }) => h("option", { value: id, selected: id === term.loss }, id)),
    );
    const about = h("p", { class: "help" });
    const options = h("div", { class: "fields" });
    const showOptions = (values) => {
      const plugin = losses.find(({ id }) => id === select.value) ?? losses[0];
      about.textContent = plugin.description ?? "";
      this.#forget(`${path}.options.`);
      options.replaceChildren(...this.#optionFields(`${path}.options`, plugin, values));
    };
    const number = (name, label, value) => {
      const input = h("input", { type: "number", step: "any", min: 0, value: value ?? 1 });
      return this.#field(`${path}.${name}`, label, "", input, { read: () => numberOf(input) });
    };
    const element = h(
      "div",
      { class: "term" },
      h(
        "div",
        { class: "fields" },
        this.#field(`${path}.loss`, `Loss ${i + 1}`, "", select),
        number("weight", "Weight", term.weight),
        number("temperature", "Temperature", term.temperature),
        i > 0 &&
          h(
            "div",
            { class: "field" },
            h("label", {}, "\u00a0"),
            h("button", {
              type: "button",
              class: "quiet danger",
              onclick: () => this.#removeTerm(element),
            }, "Remove"),
          ),
      ),
      about,
      options,
    );
    this.#terms.append(element);
    showOptions(term.options ?? {});
  }

  #removeTerm(element) {
    const { objective } = this.#read();
    objective.splice([...this.#terms.children].indexOf(element), 1);
    this.#forget("objective.");
    this.#terms.replaceChildren();
    for (const term of objective) this.#addTerm(term);
  }

  #showAdapter() {
    const type = this.#fields.get("adapter.type").read();
    const plugin = this.#plugins("adapter").find(({ id }) => id === type);
    this.#forget("adapter.options.");
    this.#adapterOptions.replaceChildren(...this.#optionFields("adapter.options", plugin, {}));
  }

  #optionFields(path, plugin, values) {
    return Object.entries(plugin?.options?.properties ?? {}).filter(([, schema]) => isSimple(schema)).map(
      ([name, schema]) => {
        const { input, read } = inputOf(schema, values[name]);
        return this.#field(`${path}.${name}`, wordsOf(name), firstSentence(schema.description), input, {
          read,
        });
      },
    );
  }

  #forget(prefix) {
    for (const path of this.#fields.keys()) if (path.startsWith(prefix)) this.#fields.delete(path);
  }

  // What is sent

  #read() {
    if (this.#useJson) return JSON.parse(this.#json.value);
    const recipe = this.#withoutFields();
    for (const [path, { read }] of this.#fields) {
      const value = read();
      if (value !== undefined) put(recipe, path, value);
    }
    return recipe;
  }

  /** What the run that this one is to be like has beside the fields of the form. */
  #withoutFields() {
    const { like } = this.#known;
    if (!like) return {};
    const recipe = structuredClone(like);
    const terms = recipe.objective ?? [];
    recipe.objective = [...this.#terms.children].map((_, i) => {
      const same = terms[i]?.loss === this.#fields.get(`objective.${i}.loss`).read();
      return same ? terms[i] : {};
    });
    if (recipe.adapter?.type !== this.#fields.get("adapter.type").read()) recipe.adapter = {};
    for (const path of this.#fields.keys()) if (path !== "upload") take(recipe, path);
    return recipe;
  }

  #toggleJson(open) {
    if (open && !this.#useJson) this.#json.value = JSON.stringify(this.#read(), null, 2);
    this.#useJson = open;
  }

  async #askEstimate() {
    return await this.#try(async (recipe) => {
      this.#estimate.replaceChildren(h("p", { class: "help" }, "Planning the run …"));
      const estimate = await api("/v1/runs/estimate", {
        method: "POST",
        body: { recipe },
        signal: this.#signal,
      });
      this.#showEstimate(estimate);
      return true;
    });
  }

  /** The estimate is shown before anything is begun; what cannot fit is not begun at all. */
  async #submit() {
    const estimated = await this.#askEstimate();
    if (!estimated) return;
    await this.#try(async (recipe) => {
      const run = await api("/v1/runs", { method: "POST", body: { recipe }, signal: this.#signal });
      location.hash = `#/runs/${run.id}`;
    });
  }

  async #try(work) {
    this.#tell([]);
    const buttons = [...this.#main.querySelectorAll("#estimate, #start")];
    for (const button of buttons) button.disabled = true;
    try {
      let recipe;
      try {
        recipe = this.#read();
      } catch (error) {
        throw new ApiError(400, { message: `The recipe is not JSON: ${error.message}` });
      }
      return await work(recipe);
    } catch (error) {
      if (this.#signal.aborted) return undefined;
      this.#estimate.replaceChildren();
      const problems = error.problems?.length > 0 ? error.problems : [{ param: "", message: error.message }];
      this.#tell(problems);
      return undefined;
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  }

  /** Shows each problem beside its field, the others above the buttons. */
  #tell(problems) {
    for (const { element, wrong, input } of this.#fields.values()) {
      element.classList.remove("invalid");
      input.removeAttribute("aria-invalid");
      wrong.textContent = "";
    }
    this.#problem.replaceChildren();
    let first;
    for (const { param, message } of problems) {
      const field = this.#fieldOf(param.replace(/^recipe\./, ""));
      if (!field || this.#useJson) {
        this.#problem.append(h("p", { class: "notice bad" }, param ? `${param}: ${message}` : message));
        continue;
      }
      field.element.classList.add("invalid");
      field.input.setAttribute("aria-invalid", "true");
      field.wrong.textContent = message;
      field.element.closest("details")?.setAttribute("open", "");
      first ??= field.input;
    }
    first?.focus();
    if (!first && problems.length > 0) this.#problem.scrollIntoView({ block: "nearest" });
  }

  /** The field of a path, or of the closest part of the recipe that has one. */
  #fieldOf(path) {
    for (let at = path; at !== ""; at = at.includes(".") ? at.slice(0, at.lastIndexOf(".")) : "") {
      if (this.#fields.has(at)) return this.#fields.get(at);
    }
    return undefined;
  }

  #showEstimate(estimate) {
    const most = Math.max(...Object.values(estimate.bytes));
    const row = (name, count) =>
      h(
        "div",
        { class: "bar-row" },
        h("span", {}, name),
        h("progress", { max: most, value: count, "aria-label": name }),
        h("span", {}, bytes(count)),
      );
    this.#estimate.replaceChildren(
      h("h2", {}, `${bytes(estimate.totalBytes)} on ${estimate.adapter}`),
      h("div", { class: "bars" }, ...Object.entries(estimate.bytes).map(([name, count]) => row(name, count))),
      h(
        "p",
        { class: "help" },
        `${estimate.trained.parameters.toLocaleString()} values are trained in ${estimate.steps} steps; ${estimate.train.samples} training samples, ${estimate.heldOut.samples} held out.`,
      ),
      ...estimate.warnings.map(({ message }) => h("p", { class: "notice" }, message)),
    );
  }
}
