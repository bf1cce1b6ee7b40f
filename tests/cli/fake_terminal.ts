/** A terminal that remembers. */
import { Output, type Terminal } from "../../src/cli/terminal/output.ts";

/** What was printed so far, and a terminal that takes more. */
export interface FakeTerminal extends Terminal {
  out: string;
  err: string;
}

export function fakeTerminal(interactive = false, columns = 80): FakeTerminal {
  return {
    out: "",
    err: "",
    interactive,
    columns: () => columns,
    stdout(text) {
      this.out += text;
    },
    stderr(text) {
      this.err += text;
    },
  };
}

/** An output for people on a fake terminal. */
export function fakeOutput(interactive = false, columns = 80): { out: Output; terminal: FakeTerminal } {
  const terminal = fakeTerminal(interactive, columns);
  return { out: new Output(terminal, false), terminal };
}
