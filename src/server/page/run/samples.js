/** Texts that the models of a run wrote. */
import { h } from "../dom.js";

/** The newest samples of each model and prompt. */
export class Samples {
  #known = new Map();
  #list = h("div", { class: "samples" });
  element = h("section", { class: "panel", hidden: true }, h("h2", {}, "Samples"), this.#list);

  /** Adds a sample; one of the same model and prompt makes room for it, unless it is from before training. */
  add(event) {
    const { model, prompt, step } = event;
    const when = model === "teacher" || step === 0 ? 0 : "later";
    this.#known.set(JSON.stringify([model, prompt, when]), event);
    this.#list.replaceChildren(...[...this.#known.values()].map(shown));
    this.element.hidden = false;
  }

  /** The first prompt. */
  get prompt() {
    return this.#known.values().next().value?.prompt;
  }
}

function shown({ model, step, prompt, text }) {
  const who = model === "teacher" ? "teacher" : step === 0 ? "student before" : `student after step ${step}`;
  return h(
    "div",
    { class: `sample ${model}` },
    h("div", { class: "who" }, who),
    h("p", {}, h("span", { class: "prompt" }, prompt), text),
  );
}
