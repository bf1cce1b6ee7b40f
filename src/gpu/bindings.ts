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

/**
 * The source with one binding of group 0 read through another that is bound to the same bytes. Where a buffer is bound as writable
 * twice, the ranges must not overlap (https://www.w3.org/TR/webgpu/#encoder-bind-groups-alias-a-writable-resource), even if nothing is
 * written through them: a tensor that a kernel reads twice, beside an output in the same buffer, can be bound but once.
 *
 * @returns undefined where their types differ, or a name means something else too
 */
export function joinBindings(wgsl: string, twin: number, into: number): string | undefined {
  const [gone, kept] = [declarationOf(wgsl, twin), declarationOf(wgsl, into)];
  if (!gone || !kept || gone.type !== kept.type) return undefined;
  const rest = wgsl.replace(gone.text, "");
  const taken = new RegExp(`\\b(?:let|var|const|fn)\\s+(?:${gone.name}|${kept.name})\\b`);
  return taken.test(rest)
    ? undefined
    : rest.replace(new RegExp(`(?<![.\\w])${gone.name}\\b`, "g"), kept.name);
}

function declarationOf(
  wgsl: string,
  binding: number,
): { text: string; name: string; type: string } | undefined {
  const found = new RegExp(
    `@group\\(0\\)\\s*@binding\\(${binding}\\)\\s*var<\\s*storage\\s*(?:,\\s*read\\s*)?>\\s*(\\w+)\\s*:\\s*([^;]+);`,
  ).exec(wgsl);
  return found ? { text: found[0], name: found[1]!, type: found[2]!.replace(/\s/g, "") } : undefined;
}
