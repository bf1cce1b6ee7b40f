/** A disk that is soon full. */
import { withFolder } from "./fake_run.ts";

/** Mounts a file system of 1 MiB at `runs` in a folder, and calls `fn` with that; only root may. */
export async function withSmallDisk(fn: (folder: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const disk = `${folder}/runs`;
    const run = (command: string, ...args: string[]) =>
      new Deno.Command(command, { args, stderr: "null" }).output();
    const mounted = await run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk).catch(() => ({
      success: false,
    }));
    if (!mounted.success) return console.log("skip: a small disk cannot be mounted here");
    try {
      await fn(folder);
    } finally {
      await run("umount", disk);
    }
  });
}
