/** Files that a run made. */
import { api } from "../api.js";
import { fill, h } from "../dom.js";
import { bytes } from "../words.js";

/** Shows in a panel the files that there are now. */
export async function showFiles(panel, id) {
  const { data } = await api(`/v1/runs/${id}/artifacts`);
  if (data.length === 0) return;
  const important = data.filter(({ name }) => /^(adapter\/|report\.html|model\.gguf)/.test(name));
  const others = data.filter((file) => !important.includes(file));
  fill(
    panel,
    h("h2", {}, "Files"),
    h("ul", { class: "files" }, ...important.map(item)),
    others.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `${others.length} more`),
        h("ul", { class: "files" }, ...others.map(item)),
      ),
  );
  panel.hidden = false;
}

function item({ name, bytes: size, url }) {
  return h(
    "li",
    {},
    h("a", { href: url, download: name.endsWith(".html") ? undefined : name.split("/").pop() }, name),
    h("span", {}, bytes(size)),
  );
}
