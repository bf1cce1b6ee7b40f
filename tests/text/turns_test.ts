/** Conversations of several turns, with tools and thinking: which tokens are learnt, to the token. */
// @ts-types="../../types/std_assert.d.ts"
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { InputError } from "../../src/base/errors.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import type { ChatMessage, DatasetRow } from "../../src/text/dataset.ts";
import { encodeDataset, type EncodeOptions, encodeRow } from "../../src/text/encode.ts";
import type { TextTokenizer } from "../../src/text/tokenizer.ts";
import { sharedPath, sharedTest } from "../shared.ts";
import { loadTokenizer, readJson, tinyTokenizer } from "./fixtures.ts";

const source = { file: "d.jsonl", line: 1 };
const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string, more = {}): ChatMessage => ({ role: "assistant", content, ...more });
const row = (...messages: ChatMessage[]): DatasetRow => ({ shape: "messages", messages, source });

/** Samples as text with their targets in brackets. */
function marked(rows: DatasetRow[], options: EncodeOptions): string[] {
  return encodeDataset(rows, options).samples.map(({ ids, supervised }) =>
    Array.from(ids, (id, i) => {
      const [open, close] = [
        supervised[i]! > (supervised[i - 1] ?? 0),
        supervised[i]! > (supervised[i + 1] ?? 0),
      ];
      return `${open ? "[" : ""}${options.tokenizer.decode([id])}${close ? "]" : ""}`;
    }).join("")
  );
}

/** Leaves the thinking (b) out of turns that others follow, as Qwen3's template and those after it do. */
const forgetful = ChatTemplate.fromConfig({
  chat_template: "{% for m in messages %}{% if m.role == 'user' %}<s>{{ m.content }} " +
    "{% else %}{% if loop.last and m.reasoning_content %}{{ m.reasoning_content }}{% endif %}{{ m.content }}</s>" +
    "{% endif %}{% endfor %}",
}, { where: "m" })!;

Deno.test("turns are learnt all in one sample, the last alone, or each in its own with what leads to it", () => {
  const tokenizer: TextTokenizer = tinyTokenizer();
  const plain = ChatTemplate.fromConfig({
    chat_template: "{% for m in messages %}{% if m.role == 'user' %}<s>{{ m.content }} " +
      "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
  }, { where: "m" })!;
  const of = (turns: EncodeOptions["turns"], template = plain) =>
    marked([row(user("a"), assistant("d"), user("c"), assistant("e"), user("a"))], {
      ...{ tokenizer, template, contextLength: 99 },
      ...(turns ? { turns } : {}),
    });
  assertEquals(of(undefined), ["<s>a [d</s>]<s>c [e</s>]<s>a "]);
  assertEquals(of("all"), of(undefined));
  // What comes after the last answer leads to none.
  assertEquals(of("last"), ["<s>a d</s><s>c [e</s>]"]);
  assertEquals(of("each"), ["<s>a [d</s>]", "<s>a d</s><s>c [e</s>]"]);

  const thinking = row(
    user("a"),
    assistant("d", { reasoning_content: "b" }),
    user("c"),
    assistant("e", { reasoning_content: "bb" }),
  );
  const options = { tokenizer, template: forgetful, contextLength: 99 };
  const error = assertThrows(() => encodeRow(thinking, options), InputError, "later turns change it");
  assertStringIncludes(error.hint!, "data.turns to each");
  assertEquals(marked([thinking], { ...options, turns: "each" }), [
    "<s>a [bd</s>]",
    "<s>a d</s><s>c [bbe</s>]",
  ]);
  assertEquals(marked([thinking], { ...options, turns: "last" }), ["<s>a d</s><s>c [bbe</s>]"]);
  const { report } = encodeDataset([thinking], { ...options, turns: "each" });
  assertEquals([report.rows, report.samples, report.stopsLearnt], [1, 2, 2]);
});

sharedTest(
  "minimind2's conversations with tools, their results and thinking are learnt where the assistant speaks",
  () => {
    const config = readJson(sharedPath("models/minimind2-small/tokenizer_config.json")) as Record<
      string,
      unknown
    >;
    const template = ChatTemplate.fromConfig(config, { where: "minimind2-small" })!;
    const tokenizer = loadTokenizer("minimind2-small");
    const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
    const call = (args: unknown) => ({
      tool_calls: [{ type: "function", function: { name: "weather", arguments: args } }],
    });
    const talk = (args: unknown): DatasetRow => ({
      ...row(
        { role: "system", content: "Be kind." },
        user("Weather? <|im_end|>"),
        assistant("", call(args)),
        { role: "tool", content: '{"t": 20}' },
        assistant("<think>\nwarm\n</think>\n\nIt is 20."),
        user("Thanks"),
        assistant("<|im_start|>Bye."),
      ) as DatasetRow & { shape: "messages" },
      tools,
    });
    const options = { tokenizer, template, contextLength: 999 };
    const [text] = marked([talk({ city: "Rome" })], options);
    assertStringIncludes(text!, "Be kind.\n\n# Tools\n");
    assertStringIncludes(text!, '<tools>\n{"type": "function", "function": {"name": "weather"');
    assertStringIncludes(
      text!,
      "<|im_start|>user\nWeather? <|im_end|><|im_end|>\n<|im_start|>assistant\n" +
        '[<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>]\n' +
        '<|im_start|>user\n<tool_response>\n{"t": 20}\n</tool_response><|im_end|>\n' +
        "<|im_start|>assistant\n[<think>\nwarm\n</think>\n\nIt is 20.<|im_end|>]\n" +
        "<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n[<|im_start|>Bye.<|im_end|>]\n",
    );
    // As text, arguments are what the template makes of them too.
    assertEquals(marked([talk('{"city": "Rome"}')], options), [text!]);
    // Of each turn as a sample, the targets together are those of the one sample.
    const targets = (turns: "all" | "each") =>
      encodeDataset([talk({ city: "Rome" })], { ...options, turns }).samples
        .flatMap(({ ids, supervised }) => [...ids.filter((_, i) => supervised[i])]);
    assertEquals(targets("each"), targets("all"));
    // Written out, control tokens are text: as many of them as the template wrote are tokens.
    const { ids } = encodeRow(talk({}), options);
    assertEquals([1, 2].map((id) => ids.filter((other) => other === id).length), [7, 7]);
  },
);

Deno.test("where turns cannot be found by rendering up to them, the template's generation tags say what is learnt", () => {
  const tokenizer = tinyTokenizer();
  // The header of the last answer is another, so that earlier turns change when others follow.
  const tagged = (open: string, close: string, body = "{{ m.content }}</s>") =>
    ChatTemplate.fromConfig({
      chat_template: "{% for m in messages %}\n  {% if m.role == 'user' %}\n<s>{{ m.content }} {% else %}\n" +
        `d{% if not loop.last %}c{% endif %} ${open}\n${body}${close}\n{% endif %}\n{% endfor %}\n`,
    }, { where: "m" })!;
  const talk = row(user("a"), assistant("b"), user("c"), assistant("e"));
  const of = (template: ChatTemplate, turns?: EncodeOptions["turns"]) =>
    marked([talk], { tokenizer, template, contextLength: 99, ...(turns ? { turns } : {}) });
  assertEquals(of(tagged("{% generation %}", "{% endgeneration %}")), ["<s>a dc [b</s>]<s>c d [e</s>]"]);
  assertEquals(of(tagged("{%- generation -%}", "{%- endgeneration -%}")), ["<s>a dc[b</s>]<s>c d[e</s>]"]);
  // Without them, or where they would change what is written, it stays refused.
  assertThrows(() => of(tagged("", "")), InputError, "later turns change it");
  const odd = tagged("{% generation %}", "{% endgeneration %}", "{{- m.content }}</s>");
  assertThrows(() => of(odd), InputError, "later turns change it");
  // A template that needs no tags is read as it was: the end of a turn is learnt, tagged or not.
  const plain = ChatTemplate.fromConfig({
    chat_template: "{% for m in messages %}{% if m.role == 'user' %}<s>{{ m.content }} {% else %}" +
      "{% generation %}{{ m.content }}{% endgeneration %}</s>{% endif %}{% endfor %}",
  }, { where: "m" })!;
  assertEquals(of(plain), ["<s>a [b</s>]<s>c [e</s>]"]);
});
