/**
 * Reads the resource bindings that a WGSL source declares, so that explicit bind group layouts can be made from it. Automatic
 * layouts drop bindings that a variant of a kernel does not use, which would make every variant bind differently.
 *
 * @module
 */

/** One `@group(g) @binding(b) var<...>` declaration. */
export interface Binding {
  readonly group: number;
  readonly binding: number;
  readonly kind: "uniform" | "read" | "read_write";
  readonly name: string;
}

const DECLARATION =
  /@group\((\d+)\)\s*@binding\((\d+)\)\s*var<\s*(uniform|storage)\s*(?:,\s*(read_write|read)\s*)?>\s*(\w+)/g;

/** Every binding declared in the source, in order of appearance. */
export function parseBindings(wgsl: string): Binding[] {
  const bare = wgsl.replace(/\/\/[^\n]*/g, "");
  return [...bare.matchAll(DECLARATION)].map((m) => ({
    group: Number(m[1]),
    binding: Number(m[2]),
    kind: m[3] === "uniform" ? "uniform" : m[4] === "read_write" ? "read_write" : "read",
    name: m[5]!,
  }));
}

/**
 * The source with the given bindings of group 0 declared `read_write` instead of `read`: WebGPU forbids one buffer as both
 * read-only and writable in a dispatch, and only the planner knows which tensors share a buffer.
 */
export function accessVariant(wgsl: string, writable: ReadonlySet<number>): string {
  if (writable.size === 0) return wgsl;
  return wgsl.replace(
    /(@group\(0\)\s*@binding\((\d+)\)\s*var<\s*storage)\s*(?:,\s*read\s*)?>/g,
    (all, before: string, index: string) => writable.has(Number(index)) ? `${before}, read_write>` : all,
  );
}

/** Binding of the first uniform where all are in one group: beyond all that a device allows of storage. */
export const FIRST_UNIFORM = 500;

/**
 * The source with the uniforms of group 1 behind the storage of group 0: a launch then sets one group, and encoding one costs as much as
 * the launch itself.
 */
export function inOneGroup(wgsl: string): string {
  return wgsl.replace(
    /@group\(1\)(\s*)@binding\((\d+)\)(?=\s*var<\s*uniform\s*>)/g,
    (_, space: string, index: string) => `@group(0)${space}@binding(${FIRST_UNIFORM + Number(index)})`,
  );
}
