/** A box to try a model in: what it writes after a text, as it writes it. */
import { ApiError, failure } from "../api.js";
import { h } from "../dom.js";

/** What such a box consists of. */
export function tryBox(model, beginning = "Once upon a time") {
  const prompt = h("textarea", { id: "prompt", rows: 3 }, beginning);
  const tokens = h("input", { id: "tokens", type: "number", min: 1, max: 1024, value: 80 });
  const temperature = h("input", {
    ...{ id: "temperature", type: "number", min: 0, max: 2 },
    step: 0.1,
    value: 0.7,
  });
  const write = h("button", { class: "primary" }, "Write");
  const stop = h("button", { type: "button", hidden: true }, "Stop");
  const answer = h("div", { class: "answer", "aria-live": "polite", hidden: true });
  const form = h(
    "form",
    {
      async onsubmit(event) {
        event.preventDefault();
        const abort = new AbortController();
        stop.onclick = () => abort.abort();
        write.disabled = true;
        stop.hidden = false;
        answer.hidden = false;
        answer.replaceChildren(h("span", { class: "prompt" }, prompt.value));
        const asked = {
          model,
          prompt: prompt.value,
          max_tokens: Number(tokens.value),
          temperature: Number(temperature.value),
        };
        try {
          for await (const text of written(asked, abort.signal)) answer.append(text);
        } catch (error) {
          if (!abort.signal.aborted) answer.append(h("p", { class: "notice bad" }, error.message));
        } finally {
          write.disabled = false;
          stop.hidden = true;
        }
      },
    },
    h(
      "div",
      { class: "fields" },
      h("div", { class: "field wide" }, h("label", { for: "prompt" }, "Text to continue"), prompt),
      h("div", { class: "field" }, h("label", { for: "tokens" }, "Most tokens"), tokens),
      h("div", { class: "field" }, h("label", { for: "temperature" }, "Temperature"), temperature),
      h("div", { class: "actions end" }, write, stop),
    ),
  );
  return [h("h2", {}, "Try it"), form, answer];
}

/** The pieces of a completion as they come. */
async function* written(asked, signal) {
  const response = await fetch("/v1/completions", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...asked, stream: true }),
  });
  if (!response.ok) throw await failure(response);
  for await (const data of serverSent(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(500, chunk.error);
    yield chunk.choices[0]?.text ?? "";
  }
}

/** The data of server-sent events. */
async function* serverSent(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) if (event.startsWith("data: ")) yield event.slice(6);
  }
}
