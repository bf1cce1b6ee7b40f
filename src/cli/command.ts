/**
 * What a verb of the command line is, and how its arguments are read. Everything a verb takes is declared, so that help, parsing and
 * "did you mean" come from one place.
 *
 * @module
 */
// @ts-types="../../types/std_parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
// @ts-types="../../types/std_colors.d.ts"
import { bold } from "@std/fmt/colors";
import { didYouMean } from "../base/did_you_mean.ts";
import { UsageError } from "../base/errors.ts";
import type { PluginModule } from "../registry/exported_plugins.ts";
import type { Output } from "./terminal/output.ts";

/** A flag of a verb. */
export interface Flag {
  /** Placeholder of its value in help, such as `FILE`; a switch when absent. */
  value?: string;
  /** One letter that means the same, such as `f`. */
  short?: string;
  /** What kind of value; text by default. */
  kind?: "text" | "number" | "count";
  /** Bounds of a number. */
  least?: number;
  most?: number;
  above?: number;
  /** May be given several times. */
  many?: boolean;
  /** A number, or several with commas between them. */
  listed?: boolean;
  help: string;
}

/** The flags that were given, by name, already of their kind. */
export type Flags = Readonly<
  Record<string, string | number | boolean | readonly string[] | readonly number[] | undefined>
>;

/** A verb. */
export interface Command {
  name: string;
  /** Positional arguments in help, such as `[RECIPE]`. */
  usage: string;
  /** Fewest and most positional arguments. */
  positional: readonly [fewest: number, most: number];
  flags: Readonly<Record<string, Flag>>;
  examples: readonly string[];
  /** Further help, if any. */
  details?: string;
  /** Whether it loads plugins itself, instead of handing them to a run's process. */
  loadsPlugins?: boolean;
  /** Whether it opens the GPU itself, instead of leaving that to a run's process. */
  opensGpu?: boolean;
  /** Does the work; returns the exit code. */
  run(invocation: Invocation): Promise<number>;
}

/** One use of a verb. */
export interface Invocation {
  args: readonly string[];
  flags: FlagReader;
  out: Output;
  /** Plugin modules of the configuration and the flags, of a verb that takes some. */
  plugins?: readonly PluginModule[];
}

/** Flags that every verb has. */
const COMMON_FLAGS: Readonly<Record<string, Flag>> = {
  json: { help: "Print JSON for machines" },
  help: { help: "Show this help" },
};

/** Reads flags by kind, so that a verb cannot mistake one. */
export class FlagReader {
  readonly #flags: Flags;

  constructor(flags: Flags) {
    this.#flags = flags;
  }

  text(name: string): string | undefined {
    const value = this.#flags[name];
    return typeof value === "string" ? value : undefined;
  }

  number(name: string): number | undefined {
    const value = this.#flags[name];
    return typeof value === "number" ? value : undefined;
  }

  on(name: string): boolean {
    return this.#flags[name] === true;
  }

  /** Whether it was given at all, whatever its kind. */
  given(name: string): boolean {
    const value = this.#flags[name];
    return value !== undefined && value !== false;
  }

  list(name: string): readonly string[] {
    const value = this.#flags[name];
    return Array.isArray(value) ? value : [];
  }

  /** The numbers of a flag that may be several. */
  numbers(name: string): readonly number[] {
    const value = this.#flags[name];
    return Array.isArray(value) ? value : [];
  }
}

/**
 * Reads a verb's arguments.
 *
 * @throws {UsageError} unknown flags, flags without a value, numbers that are none, too many or too few arguments
 */
export function readArguments(command: Command, argv: readonly string[]): { args: string[]; flags: Flags } {
  const known = { ...command.flags, ...COMMON_FLAGS };
  const names = Object.keys(known);
  const problems: string[] = [];
  const parsed = parseArgs(argv, {
    boolean: names.filter((name) => known[name].value === undefined),
    // Everything else stays text, so that a run id such as 20260724 does not become a number.
    string: [...names.filter((name) => known[name].value !== undefined), "_"],
    collect: names.filter((name) => known[name].many),
    alias: {
      h: "help",
      ...Object.fromEntries(names.flatMap((name) => known[name]!.short ? [[known[name]!.short!, name]] : [])),
    },
    unknown: (argument, key) => {
      if (key === undefined) return true;
      problems.push(
        `there is no flag ${argument.split("=")[0]}${didYouMean(key, names).replace('"', '"--')}`,
      );
      return false;
    },
  });
  const args = parsed._.map(String);
  const flags: Record<string, string | number | boolean | string[] | number[] | undefined> = {};
  for (const [name, flag] of Object.entries(known)) {
    const value = parsed[name];
    if (value === undefined || value === false || (Array.isArray(value) && value.length === 0)) continue;
    if (value === "" || (Array.isArray(value) && value.includes(""))) {
      problems.push(`--${name} needs a value: ${flag.value}`);
    } else if (flag.listed) {
      flags[name] = String(value).split(",").map((part) => readNumber(name, flag, part, problems));
    } else if (flag.kind && flag.kind !== "text") {
      flags[name] = readNumber(name, flag, String(value), problems);
    } else flags[name] = value as string | boolean | string[];
  }
  const [fewest, most] = command.positional;
  if (!flags.help) {
    if (args.length < fewest) problems.push(`an argument is missing: ${command.usage}`);
    if (args.length > most) problems.push(`unexpected argument: ${args.slice(most).join(" ")}`);
  }
  if (problems.length > 0) {
    throw new UsageError(problems.join("\n"), {
      hint: `\`limbeck ${command.name} --help\` lists what it takes.`,
    });
  }
  return { args, flags };
}

function readNumber(name: string, flag: Flag, text: string, problems: string[]): number {
  const number = Number(text);
  const whole = flag.kind === "count";
  const { least = whole ? 0 : undefined, most, above } = flag;
  const fits = text.trim() !== "" && Number.isFinite(number) && (!whole || Number.isSafeInteger(number)) &&
    !(number < (least ?? -Infinity)) && !(number > (most ?? Infinity)) &&
    (above === undefined || number > above);
  if (!fits) {
    const bounds = Number.isNaN(number) ? [] : [
      ...(above === undefined ? [] : [`above ${above}`]),
      ...(least === undefined ? [] : [`from ${least}`]),
      ...(most === undefined ? [] : [`up to ${most}`]),
    ];
    const kind = [whole ? "a whole number" : "a number", ...bounds].join(" ");
    problems.push(`--${name} must be ${kind}, not "${text}"`);
  }
  return number;
}

/** Help of a verb. */
export function commandHelp(command: Command, summary: string): string {
  const flags = Object.entries({ ...command.flags, ...COMMON_FLAGS }).map((
    [name, flag],
  ): [string, string] => [
    `${flag.short ? `-${flag.short}, ` : ""}--${name}${flag.value ? ` ${flag.value}` : ""}${
      flag.many ? " ..." : ""
    }`,
    flag.help,
  ]);
  return [
    `${summary}.`,
    "",
    `${bold("Usage:")} limbeck ${command.name} ${command.usage}`.trimEnd(),
    ...(command.details ? ["", command.details] : []),
    "",
    bold("Flags:"),
    ...columns(flags),
    "",
    bold("Examples:"),
    ...command.examples.map((example) => `  ${example}`),
  ].join("\n");
}

/** Rows of two columns, indented, the second one aligned. */
export function columns(rows: readonly [string, string][]): string[] {
  const width = Math.max(...rows.map(([first]) => first.length)) + 2;
  return rows.map(([first, second]) => `  ${first.padEnd(width)}${second}`);
}
