/**
 * `limbeck generate --rationales`
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { basename } from "@std/path";
import { oneOf } from "../../base/did_you_mean.ts";
import { InputError, LimbeckError, UsageError } from "../../base/errors.ts";
import { type Author, localAuthor, servedAuthor, servedName } from "../../distill/rationales/authors.ts";
import {
  type QuestionColumns,
  readQuestions,
  readSolved,
  type SolvedExample,
} from "../../distill/rationales/questions.ts";
import {
  checkExamples,
  parseRationaleTemplate,
  USUAL_TEMPLATE,
} from "../../distill/rationales/rationale_prompt.ts";
import { ANSWER_SOURCE } from "../../distill/rationales/rationale_rows.ts";
import {
  partPath,
  writeRationales,
  type WrittenRationales,
} from "../../distill/rationales/write_rationales.ts";
import { unreadable } from "../../formats/files.ts";
import { familiesOf } from "../../registry/families.ts";
import { type ServerSettings, urlProblem } from "../../served/server.ts";
import type { Flag, FlagReader, Invocation } from "../command.ts";
import { namedModel } from "../model_argument.ts";
import { registryWith } from "../setup/registry.ts";
import { ensureAdapter } from "../setup/setup.ts";
import { stoppable } from "../terminal/stoppable_work.ts";

/** Flags of rationales alone. */
export const RATIONALE_FLAGS: Readonly<Record<string, Flag>> = {
  rationales: {
    value: "FILE",
    help: "Write rationales of the questions in a data file, whose answers are known",
  },
  examples: { value: "FILE", help: "Solved examples, with a rationale each, to put before every question" },
  shots: {
    value: "COUNT",
    kind: "count",
    least: 1,
    help: "So many of them, the first (default 3, or all of fewer)",
  },
  "per-question": {
    value: "COUNT",
    kind: "count",
    least: 1,
    most: 100,
    help: "Rationales of a question (default 1)",
  },
  columns: {
    value: "PART=NAME,...",
    help: "Columns of question, answer and rationale, where they have other names",
  },
  template: {
    value: "FILE",
    help: "How a question is asked: text with {question}, {answer}, then {rationale}",
  },
  "answer-prefix": { value: "TEXT", help: 'What asks the student for an answer (default "predict: ")' },
  "rationale-prefix": { value: "TEXT", help: 'What asks it for a rationale (default "explain: ")' },
  "without-answers": { help: "Write no rows of answers, such as for a second teacher" },
  "drop-without-answer": { help: "Leave out rationales that do not hold the answer, rather than count them" },
  server: {
    value: "URL",
    help: "Ask a server of the OpenAI API, as a rule https://HOST/v1, in place of a model here",
  },
  "served-model": { value: "NAME", help: "What the server calls the model" },
  "key-variable": { value: "NAME", help: "Environment variable that holds the server's key" },
  "allow-http": { help: "Allow http, which others can read on the way, to another machine" },
  "requests-per-minute": { value: "COUNT", kind: "number", above: 0, help: "Ask the server no more often" },
  "budget-requests": { value: "COUNT", kind: "count", least: 1, help: "Requests in all, resumes included" },
  "budget-tokens": {
    value: "COUNT",
    kind: "count",
    least: 1,
    help: "Tokens in all, of prompts and texts together",
  },
};

/** Flags of `generate` that mean nothing for rationales, and those that a server takes none of. */
const NOT_WITH_RATIONALES = ["prompt", "prompts-file", "count", "pairs"];
const NOT_WITH_SERVER = ["model", "run", "top-k"];
const ONLY_WITH_SERVER = [
  ...["served-model", "key-variable", "allow-http"],
  ...["requests-per-minute", "budget-requests", "budget-tokens"],
];

/** Refuses flags of rationales where none are written. @throws {UsageError} */
export function refuseRationaleFlags(flags: FlagReader): void {
  const given = Object.keys(RATIONALE_FLAGS).find((name) => flags.given(name));
  if (given !== undefined) {
    throw new UsageError(`--${given} is for rationales: name their questions with --rationales`);
  }
}

/** Writes rationales. */
export async function generateRationales(
  invocation: Invocation,
  checkOutput: (path: string, replace: boolean) => Promise<void>,
): Promise<number> {
  const { flags, out } = invocation;
  const output = checkFlags(flags);
  await checkOutput(output, flags.on("force"));
  const columns = columnsOf(flags.text("columns"));
  const templateFile = flags.text("template");
  const template = parseRationaleTemplate(
    templateFile === undefined ? USUAL_TEMPLATE : await readText(templateFile),
    templateFile ?? "the usual template",
  );
  const questions = await readQuestions(flags.text("rationales")!, columns);
  const examples = await examplesOf(flags, columns);
  if (!flags.on("chat")) checkExamples(template, examples);
  const { author, name, used } = await authorOf(invocation, output, template.after);
  const source = flags.text("source") ?? name;
  if (source === ANSWER_SOURCE) {
    throw new UsageError(
      `--source ${ANSWER_SOURCE} is what rows of answers have; name the rationales otherwise`,
    );
  }
  const left = `stopped; what has come is in ${partPath(output)}, and the same command goes on`;
  let written: WrittenRationales;
  try {
    written = await stoppable(out, "rationales", ({ signal, onProgress }) =>
      writeRationales({
        ...{ questions, examples, template, author, output, source, signal },
        perQuestion: flags.number("per-question") ?? 1,
        answerPrefix: flags.text("answer-prefix") ?? "predict: ",
        rationalePrefix: flags.text("rationale-prefix") ?? "explain: ",
        withoutAnswers: flags.on("without-answers"),
        dropWithoutAnswer: flags.on("drop-without-answer"),
        dropUnfinished: flags.on("finished"),
        onProgress: (done, total) => onProgress(done, total, `${done} of ${total} texts`),
      }), left);
  } catch (error) {
    throw inFlags(error);
  }
  if (used !== undefined) await Deno.remove(used).catch(() => {});
  out.value({ ...written, source });
  for (const line of told(written, source, flags)) out.line(line);
  return 0;
}

/** @returns where rows go */
function checkFlags(flags: FlagReader): string {
  const refuse = (names: readonly string[], why: string) => {
    const given = names.find((name) => flags.given(name));
    if (given !== undefined) throw new UsageError(`--${given} ${why}`);
  };
  refuse(NOT_WITH_RATIONALES, "does not go with --rationales");
  if (flags.given("server")) {
    refuse(NOT_WITH_SERVER, "does not go with --server");
    if (!flags.given("served-model")) {
      throw new UsageError("--server needs --served-model: what the server calls the model");
    }
  } else refuse(ONLY_WITH_SERVER, "is of a server: name it with --server");
  if (!flags.given("examples")) refuse(["shots"], "is of solved examples: name their file with --examples");
  if ((flags.number("per-question") ?? 1) > 1 && flags.number("temperature") === 0) {
    throw new UsageError("several rationales of a question would be the same at --temperature 0", {
      hint: "Leave it out (0.7 then), or raise it.",
    });
  }
  const output = flags.text("output");
  if (output === undefined) throw new UsageError("say where rationales are written: --output FILE");
  return output;
}

const PARTS = ["question", "answer", "rationale"];

function columnsOf(text: string | undefined): QuestionColumns {
  const columns: Record<string, string> = {};
  for (const pair of text?.split(",") ?? []) {
    const at = pair.indexOf("=");
    const [part, name] = [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
    if (at < 0 || name === "" || !PARTS.includes(part)) {
      throw new UsageError(
        `--columns has ${JSON.stringify(pair)}; write PART=NAME, where PART is ${oneOf(PARTS)}`,
      );
    }
    columns[part] = name;
  }
  return columns;
}

async function examplesOf(flags: FlagReader, columns: QuestionColumns): Promise<SolvedExample[]> {
  const [file, shots] = [flags.text("examples"), flags.number("shots")];
  if (file === undefined) return [];
  const examples = await readSolved(file, columns);
  if (shots !== undefined && shots > examples.length) {
    throw new InputError(`has ${examples.length} solved examples, fewer than --shots ${shots}`, {
      where: file,
      hint: "Write more of them, or ask for fewer.",
    });
  }
  return examples.slice(0, shots ?? 3);
}

async function authorOf(
  invocation: Invocation,
  output: string,
  stop: string,
): Promise<{ author: Author; name: string; used?: string }> {
  const { flags, out } = invocation;
  const several = (flags.number("per-question") ?? 1) > 1;
  const options = {
    maxTokens: flags.number("tokens") ?? 256,
    temperature: flags.number("temperature") ?? (several ? 0.7 : 0),
    topP: flags.number("top-p") ?? 1,
    seed: flags.number("seed") ?? 1,
    chat: flags.on("chat"),
    stop,
  };
  if (flags.given("server")) {
    const server = serverOf(flags);
    const used = `${partPath(output)}.used`;
    const author = servedAuthor(server, {
      ...{ ...options, together: server.concurrency },
      served: { usedFile: used, onRetry: (message) => out.note(message) },
    });
    return { author, name: servedName(server), used };
  }
  const model = await namedModel(invocation);
  if (!flags.on("no-setup")) await ensureAdapter((message) => out.note(message));
  const families = familiesOf(await registryWith(invocation.plugins));
  const author = localAuthor(model, {
    ...{ ...options, together: flags.number("together") ?? 8 },
    ...{ topK: flags.number("top-k") ?? 0, families },
  });
  const named = flags.text("model") ?? flags.text("run")!;
  return { author, name: basename(named).replace(/\.gguf$/i, "") };
}

function serverOf(flags: FlagReader): ServerSettings {
  const [url, keyVariable] = [flags.text("server")!, flags.text("key-variable")];
  const problem = urlProblem(url, flags.on("allow-http"));
  if (problem !== undefined) throw new UsageError(flagNames(`--server ${problem}`));
  const [perMinute, requests, tokens] = [
    flags.number("requests-per-minute"),
    flags.number("budget-requests"),
    flags.number("budget-tokens"),
  ];
  return {
    ...{ url, model: flags.text("served-model")!, timeoutSeconds: 300 },
    concurrency: flags.number("together") ?? 4,
    ...(keyVariable === undefined ? {} : { keyVariable }),
    ...(perMinute === undefined ? {} : { requestsPerMinute: perMinute }),
    ...(flags.on("allow-http") ? { allowHttp: true } : {}),
    budget: { ...(requests === undefined ? {} : { requests }), ...(tokens === undefined ? {} : { tokens }) },
  };
}

async function readText(path: string): Promise<string> {
  return await Deno.readTextFile(path).catch((error) => {
    throw unreadable(path, error);
  });
}

/** What recipes call the settings of a server, and which flags these are. */
const FLAG_NAMES: readonly [RegExp, string][] = [
  [/teacher\.server\.budget\.requests/g, "--budget-requests"],
  [/teacher\.server\.budget\.tokens/g, "--budget-tokens"],
  [/requestsPerMinute or concurrency of teacher\.server/g, "--requests-per-minute or --together"],
  [/teacher\.server\.keyVariable|\bkeyVariable\b/g, "--key-variable"],
  [/teacher\.server\.model/g, "--served-model"],
  [/teacher\.server(\.url)?/g, "--server"],
  [/allowHttp: true/g, "--allow-http"],
  [/data\.columns/g, "--columns"],
  [/the recipe says/g, "--key-variable says"],
];

function flagNames(text: string): string {
  return FLAG_NAMES.reduce((said, [name, flag]) => said.replace(name, flag), text);
}

/** An error whose advice is about flags, where it was about recipes. */
function inFlags(error: unknown): unknown {
  if (!(error instanceof LimbeckError) || error.hint === undefined) return error;
  return Object.assign(error, { message: flagNames(error.message), hint: flagNames(error.hint) });
}

function told(written: WrittenRationales, source: string, flags: FlagReader): string[] {
  const left = (dropped: boolean) => dropped ? ", left out" : ", kept";
  const some = (count: number, text: string) => count > 0 ? [`  ${count} ${text}`] : [];
  return [
    `Wrote ${written.rationales} rationales of ${written.questions} questions to ${written.output}, as source: ${source}`,
    ...some(written.resumed, "texts were there before"),
    ...some(written.withoutAnswer, `do not hold the answer${left(flags.on("drop-without-answer"))}`),
    ...some(written.unfinished, `were cut by the limit of tokens${left(flags.on("finished"))}`),
    ...some(written.empty, "were empty, left out"),
    ...some(written.repeated, "were the same as another of their question, left out"),
    ...some(written.questionsWithout, "questions have no rationale"),
  ];
}
