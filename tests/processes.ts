/**
 * Other processes, by their ids: tests run side by side, so none may end what it only knows by name.
 *
 * @module
 */

/** Ids of processes whose command line has this text, such as a folder of the test's own. Needs Linux's `/proc`. */
export async function processesWith(text: string): Promise<number[]> {
  const found: number[] = [];
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    // It may be gone by now.
    const line = await Deno.readTextFile(`/proc/${name}/cmdline`).catch(() => "");
    if (line.replaceAll("\0", " ").includes(text)) found.push(Number(name));
  }
  return found;
}

/** Processes that a process has started, by id, with the processor seconds that they took. */
export function childrenOf(parent: number): Map<number, number> {
  const found = new Map<number, number>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      // proc(5): after the name in brackets come the state and the parent; the times are the 14th and 15th field.
      const fields = Deno.readTextFileSync(`/proc/${name}/stat`).replace(/^.*\) /s, "").split(" ");
      if (Number(fields[1]) === parent) {
        found.set(Number(name), (Number(fields[11]) + Number(fields[12])) / 100);
      }
    } catch {
      // It has just ended.
    }
  }
  return found;
}
