/** What a new run can do, as links above the form of each. */
import { h } from "../dom.js";

/** Forms by the task of their runs: where each is, and what it is called. */
const KINDS = {
  distill: ["#/new", "Distil"],
  merge: ["#/task/merge", "Merge"],
  residual: ["#/task/residual", "Add a residual"],
  shrink: ["#/task/shrink", "Shrink"],
  evaluate: ["#/task/evaluate", "Evaluate"],
  extract: ["#/task/extract", "Extract an adapter"],
  "merge-adapters": ["#/task/merge-adapters", "Merge adapters"],
  export: ["#/task/export", "Export a shape"],
};

/** Whether a text names a task that has a form of its own. */
export function isTask(name) {
  return name !== "distill" && Object.hasOwn(KINDS, name);
}

/** The address of a form that is filled in like a run. A cache is made for a distillation, and has its form. */
export function likeRun({ id, task }) {
  return task === "distill" || task === "cache" ? `#/new/${id}` : `#/task/${id}`;
}

/** The address of the form that exports a shape of a run. */
export function exportShape(run, shape) {
  return `#/task/${["export", run, shape].map(encodeURIComponent).join(",")}`;
}

/** Links to all forms, that of `current` marked. */
export function kindLinks(current) {
  return h(
    "nav",
    { class: "kinds", "aria-label": "What the run does" },
    ...Object.entries(KINDS).map(([task, [href, label]]) =>
      h("a", { class: "button", href, "aria-current": task === current ? "page" : "false" }, label)
    ),
  );
}
