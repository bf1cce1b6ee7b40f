/** What a run said, line by line. */
import { h } from "../dom.js";
import { bytes, number3 } from "../words.js";

const MOST_LINES = 400;

/** The log of a run. */
export class Log {
  #lines = h("ol", { class: "log", tabindex: 0, "aria-label": "What the run said" });
  element = h("section", { class: "panel" }, h("h2", {}, "Log"), this.#lines);

  /** Adds a line where an event has something to say in one. */
  add(event) {
    const text = sentence(event);
    if (text === undefined) return;
    const time = new Date(event.time).toLocaleTimeString([], { hour12: false });
    const { scrollHeight, scrollTop, clientHeight } = this.#lines;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    this.#lines.append(
      h("li", {}, h("time", { datetime: event.time }, time), h("span", { class: `is-${event.type}` }, text)),
    );
    if (this.#lines.children.length > MOST_LINES) this.#lines.firstChild.remove();
    if (atEnd) this.#lines.scrollTop = this.#lines.scrollHeight;
  }
}

function sentence(event) {
  switch (event.type) {
    case "state":
      return event.message ? `${event.state}: ${event.message}` : event.state;
    case "plan":
      return `${event.adapterName}, ${bytes(event.totalBytes)} on the GPU`;
    case "progress":
      return event.step % 10 === 0 ? `${event.step} %, ${event.message}` : undefined;
    case "stage":
      return event.message;
    case "evaluation":
      return `held-out loss of the ${event.model} after step ${event.step}: ${number3(event.loss)}`;
    case "shapes":
      return `held-out losses after step ${event.step}: ${
        event.shapes.map(({ name, loss }) => `${name} ${number3(loss)}`).join("; ")
      }`;
    case "rollout":
      return `the student wrote ${event.answers} answers after step ${event.step}, ${
        number3(event.meanLength)
      } tokens each, entropy ${number3(event.entropy)}`;
    case "checkpoint":
      return `checkpoint after step ${event.step}${event.best ? ", the best so far" : ""}`;
    case "rewind":
      return `continuing after step ${Math.max(0, event.step)}`;
    case "warning":
    case "error":
      return event.hint ? `${event.message} – ${event.hint}` : event.message;
  }
}
