/** Where models and data come from: the example, what the service has, or what is picked here. */
import { h } from "../dom.js";

/** Files of a model's folder that a run reads. */
const OF_MODEL = /\.(json|safetensors|jinja|model|gguf)$|^(vocab|merges)\.txt$/i;
const PICK = "";

/** What may be chosen without picking: models and datasets with the addresses of their files; none where nobody serves them. */
export async function offered() {
  try {
    const response = await fetch(new URL("../../tab/catalogue.json", import.meta.url));
    if (response.ok) return await response.json();
    if (response.status === 401) return { models: [], datasets: [], isSignedOut: true };
  } catch {
    // Files can be picked all the same.
  }
  return { models: [], datasets: [] };
}

/** Files by name out of what an input holds, those aside that no run reads. */
function picked(input, kind) {
  const files = [...input.files].filter(({ name }) => kind !== "model" || OF_MODEL.test(name));
  return Object.fromEntries(files.map((file) => [file.name, file]));
}

/** Inputs for a folder, for a GGUF file, or for data. */
export function fileInput(kind, label) {
  const attributes = { model: { multiple: true }, data: { accept: ".jsonl,.ndjson,.json,.parquet" } };
  const input = h("input", { type: "file", "aria-label": label, ...attributes[kind] });
  return { input, read: () => picked(input, kind) };
}

/** A choice among what is offered and what is picked. `first` are choices that are no files. */
export class Source {
  #kind;
  #offered;
  #select;
  #files;
  #folder;
  /** Told what is chosen. */
  onChange = () => {};
  element;

  constructor(id, label, kind, offered, { first = [], help } = {}) {
    [this.#kind, this.#offered] = [kind, offered];
    this.#files = fileInput(kind, `${label}: files`);
    this.#folder = kind === "model" ? fileInput(kind, `${label}: folder`) : undefined;
    if (this.#folder) this.#folder.input.webkitdirectory = true;
    this.#select = h(
      "select",
      {
        id,
        onchange: () => {
          this.#show();
          this.onChange(this.value);
        },
      },
      ...first.map(([value, text]) => h("option", { value: `:${value}` }, text)),
      ...offered.map(({ id, name }) => h("option", { value: id }, name ?? id)),
      h("option", { value: PICK }, kind === "model" ? "A model on this device …" : "A file on this device …"),
    );
    this.picking = h(
      "div",
      { hidden: true },
      this.#folder && h("p", { class: "help" }, "Its folder (config.json, tokenizer.json, safetensors):"),
      this.#folder?.input,
      this.#folder && h("p", { class: "help" }, "or its files, or one GGUF file:"),
      this.#files.input,
      kind === "data" &&
        h("p", { class: "help" }, "JSON Lines with text, prompt and completion, or messages."),
    );
    this.wrong = h("p", { class: "wrong", role: "alert" });
    this.element = h(
      "div",
      { class: "field" },
      h("label", { for: id }, label),
      this.#select,
      this.picking,
      this.wrong,
      help && h("p", { class: "help" }, help),
    );
    this.#show();
  }

  #show() {
    this.picking.hidden = this.#select.value !== PICK;
  }

  /** Chooses what is offered by this name, where it is. */
  choose(id) {
    if (!this.#offered.some((one) => one.id === id)) return;
    this.#select.value = id;
    this.#show();
  }

  /** Name of what is chosen; empty where something is to be picked. */
  get value() {
    return this.#select.value;
  }

  /** What is no file: the text after the colon; undefined for files. */
  get other() {
    const { value } = this.#select;
    return value.startsWith(":") ? value.slice(1) : undefined;
  }

  /** Name and files of what was chosen; undefined, and told beside it, where nothing was. */
  read() {
    this.wrong.textContent = "";
    const { value } = this.#select;
    if (value !== PICK) {
      const { id, files } = this.#offered.find((one) => one.id === value);
      return { name: id, files };
    }
    const files = { ...this.#folder?.read(), ...this.#files.read() };
    if (Object.keys(files).length === 0) {
      this.wrong.textContent = "Pick its files.";
      this.#select.focus();
      return undefined;
    }
    const folder = this.#folder?.input.files[0]?.webkitRelativePath.split("/")[0];
    const name = (folder || Object.keys(files)[0]).replace(/[^\w.-]+/g, "-");
    return { name: this.#kind === "model" ? name.replace(/\.gguf$/i, "") : name, files };
  }
}
