/** What a run in this tab is to do. */
import { h } from "../dom.js";
import { section } from "../form/section.js";
import { Source } from "./sources.js";

const LOSSES = {
  "half and half": "Words and the teacher's probabilities, half each",
  "forward-kl": "The teacher's probabilities (forward KL)",
  "reverse-kl": "Reverse KL",
  "jensen-shannon": "Jensen–Shannon",
};

/** What the example that comes with Limbeck wants. */
const EXAMPLE = {
  model: "stories15M-q8_0.gguf",
  layers: "0, 1, 3, 5",
  sets: "train.schedule=linear\ntrain.warmup=5\ndata.endToken=bos",
};

const NUMBERS = [
  ["train.steps", "Steps", 60, "1"],
  ["adapter.rank", "Rank of the adapter", 16, "1"],
  ["data.contextLength", "Context length, tokens", 256, "1"],
  ["train.tokensPerMicroBatch", "Tokens of a micro-batch", 256, "1"],
  ["train.learningRate", "Learning rate", 0.0015, "any"],
  ["train.checkpointEvery", "Steps between checkpoints", 20, "1"],
  ["train.seed", "Seed", 1, "1"],
];

/** For about so long kernels are timed, where that is asked for. */
const TUNE_SECONDS = 8;

/** The form; `begin` is told what to do. */
export function runForm({ models, datasets }, begin) {
  const teacher = new Source("teacher", "Teacher", "model", models);
  const student = new Source("student", "Student", "model", models, {
    first: [["teacher", "The teacher itself"]],
  });
  const train = new Source("train", "Texts to learn from", "data", datasets);
  const heldOut = new Source("heldOut", "Texts to measure on", "data", datasets, {
    first: [["split", "A twentieth of those"]],
  });
  teacher.choose(EXAMPLE.model);
  train.choose("stories-train");
  heldOut.choose("stories-heldout");
  const layers = field("layers", "Layers that the student keeps", h("input", { type: "text" }), {
    help: "Numbers from 0, such as 0, 1, 3, 5; all of them where this is empty.",
  });
  const loss = field(
    "loss",
    "What is made small",
    h("select", {}, ...Object.entries(LOSSES).map(([value, text]) => h("option", { value }, text))),
  );
  const numbers = NUMBERS.map(([path, label, value, step]) => [
    path,
    field(path, label, h("input", { type: "number", min: 0, step, required: true }), { value }),
  ]);
  const sets = field("sets", "Anything else in the recipe, a change a line", h("textarea", { rows: 4 }), {
    help: "As limbeck distill takes after --set, such as objective.0.temperature=2 or adapter.type=dora.",
    wide: true,
  });
  // What suits the example goes with it, unless it was changed.
  teacher.onChange = (id) => {
    for (const [{ input }, text] of [[layers, EXAMPLE.layers], [sets, EXAMPLE.sets]]) {
      if (id === EXAMPLE.model && input.value === "") input.value = text;
      else if (id !== EXAMPLE.model && input.value === text) input.value = "";
    }
  };
  teacher.onChange(teacher.value);
  const tune = h("input", { type: "checkbox", id: "field-tune" });
  const order = () => {
    const [own, other] = [teacher.read(), student.other === undefined ? student.read() : undefined];
    const [rows, measured] = [train.read(), heldOut.other === undefined ? heldOut.read() : undefined];
    if (
      !own || !rows || (student.other === undefined && !other) || (heldOut.other === undefined && !measured)
    ) {
      return undefined;
    }
    // Two that are called alike are two.
    const [second, third] = [apart(other, own), apart(measured, rows)];
    const kept = layers.input.value.split(/[\s,]+/).filter(Boolean).map(Number);
    const recipe = {
      teacher: { model: own.name },
      student: { model: second?.name ?? "teacher", ...(kept.length > 0 ? { layers: kept } : {}) },
      data: { train: rows.name, ...(third ? { heldOut: third.name } : {}) },
      objective: loss.input.value === "half and half"
        ? [{ loss: "cross-entropy", weight: 0.5 }, { loss: "forward-kl", weight: 0.5 }]
        : [{ loss: loss.input.value }],
      samples: { tokens: 60 },
      // What is downloaded is the adapter; a merged model would fill the browser's storage.
      output: { merged: false },
    };
    return {
      id: `${new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").toLowerCase()}-${
        Math.random().toString(36).slice(2, 6)
      }`,
      recipe,
      sets: [
        ...numbers.map(([path, { input }]) => `${path}=${input.value}`),
        ...sets.input.value.split("\n").map((line) => line.trim()).filter(Boolean),
      ],
      ...(tune.checked ? { tuneSeconds: TUNE_SECONDS } : {}),
      models: { [own.name]: own.files, ...(second ? { [second.name]: second.files } : {}) },
      datasets: { [rows.name]: rows.files, ...(third ? { [third.name]: third.files } : {}) },
    };
  };
  return h(
    "form",
    {
      onsubmit(event) {
        event.preventDefault();
        const found = order();
        if (found) begin(found);
      },
    },
    section("Models", [teacher.element, student.element, layers.element]),
    section("Data", [train.element, heldOut.element]),
    section(
      "Training",
      [loss.element, ...numbers.slice(0, 2).map(([, { element }]) => element)],
      h(
        "details",
        {},
        h("summary", {}, "More"),
        h("div", { class: "fields" }, ...numbers.slice(2).map(([, { element }]) => element), sets.element),
        h(
          "label",
          { class: "choice" },
          tune,
          "Time this GPU's kernels first, for some seconds, and keep the fastest for later runs",
        ),
      ),
    ),
    h(
      "div",
      { class: "panel begin" },
      h("span", { class: "summary" }, "Nothing leaves this tab."),
      h("button", { class: "primary" }, "Start"),
    ),
  );
}

function apart(one, other) {
  return one && one.name === other.name && one.files !== other.files
    ? { ...one, name: `${one.name}-2` }
    : one;
}

function field(name, label, input, { value, help, wide = false } = {}) {
  const id = `field-${name.replaceAll(".", "-")}`;
  input.id = id;
  if (value !== undefined) input.value = value;
  if (help) input.setAttribute("aria-describedby", `${id}-help`);
  const element = h(
    "div",
    { class: `field${wide ? " wide" : ""}` },
    h("label", { for: id }, label),
    input,
    help && h("p", { class: "help", id: `${id}-help` }, help),
  );
  return { element, input };
}
