/**
 * Runs every bench of this folder, one after another, each in a process of its own: `deno task bench`. Arguments are handed on
 * (`--tiled` runs the kernels for hardware GPUs).
 *
 * @module
 */
const here = new URL("./", import.meta.url);
const names = Array.from(Deno.readDirSync(here), (entry) => entry.name).filter((name) =>
  name.endsWith("_bench.ts")
).sort();
for (const args of [...names.map((name) => [name]), ["step.ts", "stories15M"], ["step.ts", "stories260K"]]) {
  console.log(`\n# bench/${args.join(" ")}`);
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL(args[0]!, here).href, ...args.slice(1), ...Deno.args],
  }).spawn().status;
  if (code !== 0) Deno.exit(code);
}
