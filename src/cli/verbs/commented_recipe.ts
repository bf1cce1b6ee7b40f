/**
 * A recipe with every field, its meaning and its default, made from the recipe's schema so that it cannot fall behind.
 *
 * @module
 */
import { parseRecipe } from "../../distill/recipe/parse.ts";
import { recipeJsonSchema } from "../../distill/recipe/problems.ts";

interface Schema {
  description?: string;
  type?: string;
  properties?: Record<string, Schema>;
  anyOf?: Schema[];
}

const WIDTH = 100;

/** What the user must fill in anyway. */
const EXAMPLE = {
  teacher: { model: "./teacher" },
  student: { model: "./student" },
  data: { train: "./train.jsonl" },
};

/** Values shown, commented out, for fields that have no default. */
const SHOWN: Readonly<Record<string, string>> = {
  "teacher.quantize": "q8_0",
  "teacher.stream": "true",
  "teacher.adapter": "{type: lora, rank: 16}",
  "teacher.cache": "{topK: 64}",
  "student.layers": "[0, 1, 3, 5]",
  "student.shape": "./shape.json",
  "student.dtype": "f16",
  "student.quantize": "nf4",
  "student.train": "[norms, head]",
  "data.mix": "tokens",
  "data.heldOut": "./heldout.jsonl",
  "data.limit": "1000",
  "data.columns": "{prompt: question, completion: answer}",
  "data.deduplicate": "true",
  "data.overlap": "1",
  "data.turns": "each",
  "data.streaming": "true",
  "data.specialTokens": "text",
  "evaluate.tasks": "[{kind: perplexity, data: ./heldout.jsonl}]",
  "train.compute": "f16",
  "output.folder": "./my-run",
  "limits.gpuBytes": "8000000000",
};

/** Sections of runs of their own kind: recipes of examples/recipes and pages of docs/ show them. */
const ELSEWHERE: readonly string[] = [
  "student.shapes",
  "train.oneForAll",
  "train.onPolicy",
  "teacher.server",
  "teacher.self",
  "teacher.teachers",
  "teacher.combine",
  "teacher.align",
  "teacher.privileged",
  "teacher.tokenizer",
];

/** YAML text. Loading it gives the defaults. */
export function commentedRecipe(): string {
  const schema = recipeJsonSchema() as Schema;
  const defaults = parseRecipe(EXAMPLE) as unknown as Record<string, unknown>;
  const lines = [
    "# A recipe for Limbeck. Fields behind a # show their defaults: take the # away to change one.",
  ];
  for (const [name, section] of Object.entries(schema.properties ?? {})) {
    if (name === "$schema") continue;
    lines.push("", ...comment(section.description, ""));
    if (name === "objective") {
      lines.push("objective:");
      for (const term of defaults.objective as Record<string, unknown>[]) {
        lines.push(`  - {loss: ${term.loss}, weight: ${term.weight}, temperature: ${term.temperature}}`);
      }
      continue;
    }
    const group = section.anyOf?.find((branch) => branch.properties) ?? section;
    lines.push(`${name}:`, ...fields(group, [name], (defaults[name] ?? {}) as Record<string, unknown>));
  }
  return lines.join("\n") + "\n";
}

function fields(section: Schema, path: readonly string[], values: Record<string, unknown>): string[] {
  const indent = "  ".repeat(path.length);
  const given = (EXAMPLE as Record<string, Record<string, unknown>>)[path[0]] ?? {};
  return Object.entries(section.properties ?? {}).flatMap(([name, field]) => {
    const here = [...path, name];
    if (ELSEWHERE.includes(here.join("."))) return [];
    const about = comment(field.description, indent);
    if (field.properties && values[name] !== undefined) {
      return [...about, `${indent}${name}:`, ...fields(field, here, values[name] as Record<string, unknown>)];
    }
    const value = values[name] === undefined ? SHOWN[here.join(".")] : yaml(values[name]);
    const mark = path.length === 1 && name in given ? "" : "# ";
    return [...about, `${indent}${mark}${name}: ${value}`];
  });
}

/** Values of a recipe's defaults in YAML's flow style, which is JSON with barer words. */
function yaml(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function comment(text: string | undefined, indent: string): string[] {
  const lines: string[] = [];
  let line = `${indent}#`;
  for (const word of (text ?? "").split(" ")) {
    if (line.length + word.length + 1 > WIDTH) {
      lines.push(line);
      line = `${indent}#`;
    }
    line += ` ${word}`;
  }
  return text ? [...lines, line] : [];
}
