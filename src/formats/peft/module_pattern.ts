/**
 * Keys of PEFT's `rank_pattern` and `alpha_pattern`. To PEFT they are regular expressions for the end of a module's path, from a dot on; the
 * few forms read here mean the same to it, and are compared name by name, whoever wrote them.
 *
 * @module
 */

const NAME = "[A-Za-z0-9_-]+";
const PART = `(?:${NAME}|\\(${NAME}(?:\\|${NAME})*\\)|\\\\[dw]\\+)`;

/**
 * Names joined by dots (`.` or `\.`), 1000 characters at most. In the place of a name there may be a choice, `(0|1)`, `\d+` for any number
 * or `\w+` for any name; `^` in front asks for the whole path, `.*\.` for a longer one.
 */
export const MODULE_PATTERN: RegExp = new RegExp(
  `^(?=.{1,1000}$)(?:\\^|\\.\\*\\\\\\.)?${PART}(?:\\\\?\\.${PART})*$`,
);

/** How PEFT itself writes that a name ends a path. */
const LONGER = ".*\\.";

/** What {@linkcode MODULE_PATTERN} takes, for errors. */
export const MODULE_PATTERN_FORM = "the name of a module or the end of its path, such as q_proj or " +
  "layers.0.self_attn.q_proj; (0|1), \\d+ (any number) and \\w+ (any name) may stand for a name";

/** Gives the value of the first key that fits the path of a module. Keys are as {@linkcode MODULE_PATTERN} says. */
export function patternReader(
  patterns: Readonly<Record<string, number>> = {},
): (path: string) => number | undefined {
  const read = Object.entries(patterns).map(([key, value]) => ({ fits: reader(key), value }));
  return (path) => read.find(({ fits }) => fits(path.split(".")))?.value;
}

function reader(key: string): (names: readonly string[]) => boolean {
  const longer = key.startsWith(LONGER);
  const parts = key.slice(longer ? LONGER.length : 0).replace("^", "").replaceAll("\\.", ".").split(".").map(
    (part) => {
      if (part === "\\w+") return () => true;
      if (part === "\\d+") return (name: string) => /^\d+$/.test(name);
      const choices = part.replace(/[()]/g, "").split("|");
      return (name: string) => choices.includes(name);
    },
  );
  return (names) => {
    const before = names.length - parts.length;
    return (key.startsWith("^") ? before === 0 : before >= Number(longer)) &&
      parts.every((is, i) => is(names[before + i]!));
  };
}
