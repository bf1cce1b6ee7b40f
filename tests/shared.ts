/**
 * Reference material that lies beside a maintainer's checkout (`../shared`), absent from a user's clone.
 * Tests that read it are registered with {@linkcode sharedTest}, which skips them with a printed reason.
 */
const root = new URL("../../shared/", import.meta.url);

function present(): boolean {
  try {
    return Deno.statSync(root).isDirectory;
  } catch {
    return false;
  }
}

/** Whether the reference folder is here. */
export const hasShared: boolean = present();

/** Absolute path of a file in the reference folder. */
export function sharedPath(path: string): string {
  return decodeURIComponent(new URL(path, root).pathname);
}

/** A test that needs the reference folder; where it is absent the test is ignored and says why. */
export function sharedTest(name: string, fn: () => void | Promise<void>): void {
  if (!hasShared) console.log(`skip: ${name}: the reference folder ../shared is not beside this checkout`);
  Deno.test({ name, ignore: !hasShared, fn });
}
