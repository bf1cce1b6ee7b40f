/**
 * Where a command's words go. Results go to stdout, notes to stderr; with `--json` stdout carries JSON only.
 *
 * @module
 */
// @ts-types="../../../types/std_colors.d.ts"
import { bold, dim, red, setColorEnabled, yellow } from "@std/fmt/colors";
import type { ExitCode } from "../../base/errors.ts";
import { explainError } from "../../runs/child/told_error.ts";

/** The terminal as a command sees it; tests hand in their own. */
export interface Terminal {
  stdout(text: string): void;
  stderr(text: string): void;
  /** Whether stdout is a terminal on which a line can be redrawn. */
  readonly interactive: boolean;
  /** Columns of the terminal. */
  columns(): number;
}

/** The process's own terminal. */
export function processTerminal(): Terminal {
  return {
    stdout: (text) => writeAll(Deno.stdout, text),
    stderr: (text) => writeAll(Deno.stderr, text),
    interactive: Deno.stdout.isTerminal(),
    columns: () => {
      try {
        return Deno.consoleSize().columns || 80;
      } catch {
        return 80;
      }
    },
  };
}

/** Prints what a command has to say. */
export class Output {
  readonly terminal: Terminal;
  /** Whether the reader is a machine. */
  readonly json: boolean;

  constructor(terminal: Terminal, json: boolean) {
    this.terminal = terminal;
    this.json = json;
    setColorEnabled(terminal.interactive && !json && !Deno.noColor);
  }

  /** A line of the result; nothing with `--json`. */
  line(text = ""): void {
    if (!this.json) this.terminal.stdout(`${text}\n`);
  }

  /** A piece of the result, without a line's end; nothing with `--json`. */
  write(text: string): void {
    if (!this.json) this.terminal.stdout(text);
  }

  /** A value of the result, one line; nothing without `--json`. */
  value(value: unknown): void {
    if (this.json) this.terminal.stdout(JSON.stringify(value) + "\n");
  }

  /** Something that is not part of the result. */
  note(text: string): void {
    this.terminal.stderr(`${text}\n`);
  }

  /** Something to beware of. */
  warn(text: string): void {
    this.terminal.stderr(`${yellow("warning")}: ${text}\n`);
  }

  /**
   * An error with what to do about it; with `--json` also as `{"error": {...}}` on stdout.
   *
   * @returns the exit code that it ends a command with
   */
  error(error: unknown, debug: boolean): ExitCode {
    const { code, message, hint, exitCode } = explainError(
      error,
      "This is a mistake in Limbeck; LIMBECK_DEBUG=1 shows where. Please report it.",
    );
    try {
      this.value({ error: { code, message, ...(hint === undefined ? {} : { hint }) } });
    } catch {
      // What cannot be written to stdout is the error itself.
    }
    // Whoever stopped it knows that it is no error.
    const mark = exitCode === 130 ? "" : `${red(bold("error"))}: `;
    this.terminal.stderr(`${mark}${message}\n`);
    if (hint) this.terminal.stderr(`${dim("hint")}: ${hint}\n`);
    if (debug && error instanceof Error) this.terminal.stderr(`${error.stack}\n${causes(error)}`);
    return exitCode;
  }
}

/** Whether errors are to show where they arose. */
export function isDebug(): boolean {
  try {
    return !["", "0", undefined].includes(Deno.env.get("LIMBECK_DEBUG"));
  } catch {
    return false;
  }
}

function causes(error: Error): string {
  return error.cause instanceof Error ? `caused by ${error.cause.stack}\n${causes(error.cause)}` : "";
}

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let done = 0; done < bytes.length;) done += stream.writeSync(bytes.subarray(done));
  } catch (error) {
    // Whoever read it, such as `head`, has seen enough.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}
