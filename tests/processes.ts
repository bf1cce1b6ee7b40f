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
