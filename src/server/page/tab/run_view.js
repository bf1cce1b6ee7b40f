/** A run in this tab while it goes on, and what it left. */
import { fill, h, toast } from "../dom.js";
import { Curves } from "../run/curves.js";
import { Log } from "../run/log.js";
import { Samples } from "../run/samples.js";
import { bytes, duration, number3 } from "../words.js";

/** Shows a run from what it says. */
export class RunView {
  #engine;
  #id;
  #curves = new Curves();
  #samples = new Samples();
  #log = new Log();
  #state = h("span", { class: "state", role: "status" });
  #doing = h("span", { class: "help" });
  #progress = h("progress", { "aria-label": "Steps done" });
  #numbers = h("dl", { class: "numbers" });
  #trouble = h("div", { class: "notice bad", role: "alert", hidden: true });
  #files = h("section", { class: "panel", hidden: true });
  #stop = h("button", { type: "button", onclick: () => this.#askToStop() }, "Stop");
  #back;
  #told = { step: 0, steps: 0 };
  element;

  /** @param {() => void} leave goes back to the form */
  constructor(engine, id, steps, leave) {
    [this.#engine, this.#id] = [engine, id];
    this.#told.steps = steps;
    this.#back = h("button", { type: "button", class: "primary", hidden: true, onclick: leave }, "Back");
    this.element = h(
      "div",
      {},
      h(
        "section",
        { class: "panel" },
        h(
          "div",
          { class: "head" },
          h("div", {}, h("h1", {}, "Distilling in this tab"), h("p", { class: "mono" }, id)),
          h("div", { class: "actions" }, this.#stop, this.#back),
        ),
        h("p", { class: "state-line" }, this.#state, " ", this.#doing),
        this.#trouble,
        this.#progress,
        this.#numbers,
      ),
      this.#files,
      this.#curves.element,
      this.#samples.element,
      this.#log.element,
    );
    this.#as("running");
    this.#show();
  }

  /** Shows what is said. */
  add(event) {
    this.#log.add(event);
    switch (event.type) {
      case "stage":
        this.#doing.textContent = event.message;
        break;
      case "plan":
        this.#told = { ...this.#told, steps: event.steps, memory: event.totalBytes };
        break;
      case "metrics":
        Object.assign(this.#told, {
          step: event.step,
          loss: event.loss,
          pace: event.tokensPerSecond,
          left: (this.#told.steps - event.step) * event.secondsPerStep,
        });
        this.#curves.metrics(event);
        break;
      case "evaluation":
        this.#curves.evaluation(event);
        break;
      case "sample":
        this.#samples.add(event);
        break;
      case "rewind":
        this.#told.step = Math.max(0, event.step);
        this.#curves.rewind(event.step);
        break;
      case "result":
        this.#told.result = event.result;
        break;
    }
    this.#show();
  }

  /** The run has ended, or was stopped. */
  async end({ status }) {
    this.#as(status === "succeeded" ? "succeeded" : "paused");
    this.#doing.textContent = status === "succeeded" ? "" : "It can be resumed where it stopped.";
    this.#ended();
    if (status === "succeeded") await this.showFiles();
  }

  /** The run cannot go on. */
  fail({ message, hint }) {
    this.#as("failed");
    this.#doing.textContent = "";
    fill(this.#trouble, h("p", {}, message), hint && h("p", { class: "hint" }, hint));
    this.#trouble.hidden = false;
    this.#ended();
  }

  destroy() {
    this.#curves.destroy();
  }

  /** Lists what can be downloaded. */
  async showFiles() {
    const files = await this.#engine.ask({ type: "files", id: this.#id });
    const link = ({ name, content }) =>
      h(
        "li",
        {},
        h("a", { href: URL.createObjectURL(content), download: name.split("/").at(-1) }, name),
        h("span", {}, bytes(content.size)),
      );
    fill(
      this.#files,
      h("h2", {}, "The adapter"),
      h(
        "p",
        { class: "help" },
        "PEFT loads it: adapter_config.json and adapter_model.safetensors",
        files.some(({ name }) => name.startsWith("base/"))
          ? "; base/ is the student that it was trained on, which it needs."
          : "; its base is the student's own model.",
      ),
      h(
        "p",
        { class: "actions" },
        h(
          "button",
          { type: "button", class: "primary", onclick: () => this.#downloadAll() },
          "Download all (ZIP)",
        ),
      ),
      h("details", {}, h("summary", {}, "One by one"), h("ul", { class: "files" }, ...files.map(link))),
    );
    this.#files.hidden = false;
  }

  async #downloadAll() {
    try {
      const content = await this.#engine.ask({ type: "zip", id: this.#id });
      h("a", { href: URL.createObjectURL(content), download: `limbeck-${this.#id}.zip` }).click();
    } catch (error) {
      toast(error.message);
    }
  }

  async #askToStop() {
    this.#stop.disabled = true;
    this.#doing.textContent = "saving, then stopping";
    await this.#engine.ask({ type: "stop" });
  }

  #as(state) {
    this.#state.dataset.state = state;
    this.#state.textContent = state;
  }

  #ended() {
    this.#stop.hidden = true;
    this.#progress.hidden = true;
    this.#back.hidden = false;
    this.#told.left = undefined;
    this.#show();
  }

  #show() {
    const { step, steps, loss, pace, left, memory, result } = this.#told;
    this.#progress.max = steps;
    this.#progress.value = step;
    const heldOut = result?.heldOut;
    const numbers = [
      ["Steps", `${step} of ${steps}`],
      ["Training loss", number3(loss)],
      heldOut && ["Held out, before", number3(heldOut.before)],
      heldOut && ["Held out, after", number3(heldOut.after)],
      heldOut && ["Teacher", number3(heldOut.teacher)],
      !heldOut && pace !== undefined && ["Tokens a second", Math.round(pace).toLocaleString()],
      !heldOut && left !== undefined && ["Time left, about", duration(left)],
      memory !== undefined && ["Memory on the GPU", bytes(memory)],
    ].filter(Boolean);
    fill(
      this.#numbers,
      ...numbers.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
  }
}
