/** The form of a new run: a recipe is entered, what it needs is shown, and it is begun. */
import { api } from "../api.js";
import { fill, h, toast } from "../dom.js";
import { Estimator, shownEstimate, summaryOf } from "./estimate.js";
import { kindLinks } from "./kinds.js";
import { RecipeFields } from "./recipe_fields.js";
import { showLoaded } from "./show_loaded.js";

/** Shows the form, filled in like a run's recipe where one is named; returns how to stop. */
export function showForm(main, like) {
  document.title = "New run – Limbeck";
  return showLoaded(
    main,
    (signal) => load(like, signal),
    (known, signal) => new Form(known, signal).show(main),
  );
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
    like: run?.task === "cache" ? run.recipe.recipe : run?.recipe,
  };
}

class Form {
  #signal;
  #origin;
  #recipe;
  #estimator = new Estimator();
  /** The recipe, as text, that was last asked about. */
  #asked;
  /** Whether the estimate of that one is shown. */
  #isEstimated = false;
  #isSubmitting = false;
  #name = h("input", { type: "text", autocomplete: "off" });
  #upload = h("input", { type: "file", accept: ".jsonl,application/jsonl", onchange: () => this.#send() });
  #problem = h("div", { role: "alert" });
  #estimate = h("section", { class: "panel", hidden: true });
  #summary = h("p", { class: "summary", role: "status" });
  #buttons = [
    h("button", { type: "button", onclick: () => this.#askEstimate() }, "Estimate"),
    h("button", { type: "button", onclick: () => this.#submit("cache") }, "Fill the cache only"),
    h("button", { class: "primary" }, "Start run"),
  ];

  constructor(known, signal) {
    this.#signal = signal;
    this.#origin = known.like ? "what that run had" : "the example that comes with Limbeck";
    this.#recipe = new RecipeFields(known, this.#upload);
    signal.addEventListener("abort", () => this.#estimator.stop());
  }

  show(main) {
    const submit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    const name = this.#recipe.fields.add("metadata.name", "Name", "May be left empty", this.#name, {
      apart: true,
    });
    fill(
      main,
      kindLinks("distill"),
      h(
        "form",
        { novalidate: true, oninput: () => this.#changed(), onsubmit: submit },
        h(
          "section",
          { class: "panel" },
          h("h1", {}, "New run"),
          h(
            "p",
            { class: "help" },
            `The teacher is imitated, the student learns. What you see first is ${this.#origin}.`,
          ),
          h("div", { class: "fields" }, name),
        ),
        ...this.#recipe.elements,
        this.#estimate,
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

  async #send() {
    const [file] = this.#upload.files;
    if (!file) return;
    const body = new FormData();
    body.set("purpose", "fine-tune");
    body.set("file", file);
    try {
      const told = await api("/v1/files", { method: "POST", body, signal: this.#signal });
      this.#recipe.addDataset(told);
      toast(`${told.filename} is uploaded and chosen as training data.`);
      this.#changed();
    } catch (error) {
      if (!this.#signal.aborted) this.#tell([{ param: "upload", message: error.message }], true);
    }
  }

  /** What was told of another recipe no longer counts; the new one is looked at once nothing has changed for a while. */
  #changed() {
    if (this.#isSubmitting || this.#isAsked()) return;
    this.#asked = undefined;
    this.#isEstimated = false;
    this.#isOld = true;
    this.#estimator.soon(() => this.#askEstimate({ isWaitedFor: false }));
  }

  #isAsked() {
    try {
      return JSON.stringify(this.#recipe.read()) === this.#asked;
    } catch {
      return false;
    }
  }

  /**
   * Shows the estimate of the recipe as it is entered, or what is wrong with it; returns the recipe once its estimate is shown.
   *
   * @param {{isWaitedFor?: boolean}} [how] whether someone waits for it; else it takes no focus from where something is typed
   */
  async #askEstimate({ isWaitedFor = true } = {}) {
    try {
      const recipe = this.#recipe.read();
      if (this.#isEstimated && this.#isAsked()) return recipe;
      this.#asked = JSON.stringify(recipe);
      this.#isEstimated = false;
      if (isWaitedFor) this.#summary.textContent = "Planning the run …";
      const estimate = await this.#estimator.of(recipe);
      if (!estimate) return undefined;
      this.#isEstimated = true;
      this.#tell([]);
      this.#showEstimate(summaryOf(estimate), shownEstimate(estimate));
      return recipe;
    } catch (error) {
      this.#fail(error, isWaitedFor);
      return undefined;
    }
  }

  /**
   * The estimate is shown before anything is begun; what cannot fit is not begun at all.
   *
   * @param {"distill" | "cache"} [task] whether all is done, or only what is kept of the teacher is made ahead
   */
  async #submit(task = "distill") {
    this.#isSubmitting = true;
    for (const button of this.#buttons) button.disabled = true;
    try {
      const entered = await this.#askEstimate();
      if (!entered) return;
      const recipe = task === "cache" ? { task, recipe: entered } : entered;
      const name = this.#name.value.trim();
      const body = { recipe, ...(name === "" ? {} : { metadata: { name } }) };
      const run = await api("/v1/runs", { method: "POST", body, signal: this.#signal });
      location.hash = `#/runs/${run.id}`;
    } catch (error) {
      this.#fail(error, true);
    } finally {
      for (const button of this.#buttons) button.disabled = false;
      this.#isSubmitting = false;
      // What was typed meanwhile.
      if (!this.#signal.aborted) this.#changed();
    }
  }

  #fail(error, isWaitedFor) {
    if (this.#signal.aborted) return;
    this.#showEstimate("", []);
    const problems = error.problems?.length > 0 ? error.problems : [{ param: "", message: error.message }];
    // A cache has the recipe within its own.
    const placed = problems.map(({ param, message }) => ({
      param: param.replace(/^recipe\.recipe\./, "recipe."),
      message,
    }));
    this.#tell(placed, isWaitedFor);
  }

  #showEstimate(summary, elements) {
    this.#isOld = false;
    this.#summary.textContent = summary;
    fill(this.#estimate, ...elements);
    this.#estimate.hidden = elements.length === 0;
  }

  /** Whether what is shown was told of the recipe before the last change. */
  set #isOld(yes) {
    for (const element of [this.#estimate, this.#summary]) element.setAttribute("aria-busy", String(yes));
  }

  /** Shows each problem beside its field, the others above the buttons. */
  #tell(problems, focus = false) {
    const { fields, isJson } = this.#recipe;
    const others = fields.tell(problems, { focus, onlyApart: isJson });
    fill(
      this.#problem,
      ...others.map(({ param, message }) =>
        h("p", { class: "notice bad" }, param ? `${param}: ${message}` : message)
      ),
    );
    if (focus && others.length > 0 && others.length === problems.length) {
      this.#problem.scrollIntoView({ block: "nearest" });
    }
  }
}
