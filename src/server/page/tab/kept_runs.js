/** Runs that this browser keeps: to go on with, to look at, to remove. */
import { h } from "../dom.js";
import { fileInput } from "./sources.js";

/** A panel of them; undefined where there are none. `asked` is told open, resume or remove, and what was picked again. */
export function keptRuns(runs, asked) {
  if (runs.length === 0) return undefined;
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "Runs kept in this browser"),
    h("ul", { class: "kept" }, ...runs.map((run) => item(run, asked))),
  );
}

function item(run, asked) {
  const { id, state, step, steps, wanted } = run;
  const inputs = Object.entries(wanted).map(([name, files]) => {
    const { input, read } = fileInput("any", `${name}: ${files.join(", ")}`);
    input.multiple = true;
    return {
      name,
      read,
      element: h(
        "div",
        { class: "field wide" },
        h("p", { class: "help" }, `Pick again: ${files.join(", ")}`),
        input,
      ),
    };
  });
  const picked = () => Object.fromEntries(inputs.map(({ name, read }) => [name, read()]));
  const isDone = state === "succeeded";
  return h(
    "li",
    {},
    h(
      "div",
      { class: "head" },
      h(
        "div",
        {},
        h("p", { class: "mono" }, id),
        h(
          "p",
          {},
          h("span", { class: "state", "data-state": isDone ? "succeeded" : "interrupted" }, state),
          ` – ${
            isDone
              ? `${steps} steps`
              : step === 0
              ? `nothing saved yet of ${steps} steps`
              : `saved after step ${step} of ${steps}`
          }`,
        ),
      ),
      h(
        "div",
        { class: "actions" },
        isDone ? h("button", { type: "button", onclick: () => asked("open", run) }, "Open") : h("button", {
          type: "button",
          class: "primary",
          onclick: () => asked("resume", run, picked()),
        }, "Resume"),
        h("button", { type: "button", class: "danger quiet", onclick: () => asked("remove", run) }, "Remove"),
      ),
    ),
    !isDone && inputs.length > 0 && h("div", { class: "fields" }, ...inputs.map(({ element }) => element)),
  );
}
