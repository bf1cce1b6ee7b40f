/**
 * Processes that are measured while they run.
 *
 * @module
 */

/** What a process took. */
export interface Measured {
  readonly seconds: number;
  /** Seconds of all processors; 0 where the system does not say. */
  readonly processor: number;
  /** Most memory that was resident, of the process and all that it started, bytes. */
  readonly peak: number;
  /** What it printed. */
  readonly output: string;
}

/** A system's unit of processor time, in seconds. */
const TICK = 0.01;

/** Runs a command to its end. @throws where it fails, with what it said */
export async function measure(command: string, args: readonly string[], cwd: string): Promise<Measured> {
  const begun = performance.now();
  const process = new Deno.Command(command, { args: [...args], cwd, stdout: "piped", stderr: "piped" })
    .spawn();
  let [peak, processor] = [0, 0];
  const watch = setInterval(() => {
    try {
      const seen = usage(process.pid);
      peak = Math.max(peak, seen.peak);
      processor = Math.max(processor, seen.processor);
    } catch {
      // It has ended, or this system has no such files.
    }
  }, 20);
  const { code, stdout, stderr } = await process.output();
  clearInterval(watch);
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${new TextDecoder().decode(stderr)}`);
  return {
    seconds: (performance.now() - begun) / 1000,
    processor,
    peak,
    output: new TextDecoder().decode(stdout),
  };
}

/** What a process and its children have used so far. @throws where it is gone */
function usage(pid: number): { peak: number; processor: number } {
  const read = (name: string) => Deno.readTextFileSync(`/proc/${pid}/${name}`);
  const stat = read("stat");
  // The name, in brackets, may hold spaces; utime and stime are the 12th and 13th field after it.
  const [user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13).map(Number);
  const own = {
    peak: Number(/VmHWM:\s+(\d+) kB/.exec(read("status"))?.[1] ?? 0) * 1024,
    processor: (user! + system!) * TICK,
  };
  for (const child of read(`task/${pid}/children`).split(" ").filter(Boolean).map(Number)) {
    const { peak, processor } = usage(child);
    own.peak += peak;
    own.processor += processor;
  }
  return own;
}
