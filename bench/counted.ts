/**
 * Counts what kernels read and write: every access to a storage binding goes through a counter. A check of the bytes that a plan says its
 * kernels move (`PlannedDispatch.traffic`) by what their texts do, for whoever can wait for it.
 *
 * @module
 */
import { parseBindings } from "../src/gpu/bindings.ts";
import type { Gpu } from "../src/gpu/device.ts";
import { compile, type Executable } from "../src/tensor/executable.ts";
import type { Storage } from "../src/tensor/graph.ts";
import type { Plan, PlannedDispatch } from "../src/tensor/plan.ts";

/** Counters of one dispatch, one for each binding; at a multiple of 256 bytes. */
const COUNTERS = 64;
const STORAGE = "counted accesses";

/** Bytes that one dispatch has read and written. */
export interface Counted {
  readonly dispatch: PlannedDispatch;
  readonly bytes: number;
  /** By the name that the kernel gives a binding. */
  readonly byBinding: ReadonlyMap<string, number>;
}

const WORDS: Readonly<Record<string, number>> = { vec2: 2, vec3: 4, vec4: 4 };

/** Bytes of an element of each binding of a kernel, by name. */
function elementBytes(wgsl: string): Map<string, number> {
  const types = new Map(
    [...wgsl.matchAll(/^alias (\w+) = ([^;]+);/gm)].map(([, name, type]) => [name!, type!]),
  );
  const declarations = wgsl.matchAll(/var<storage, \w+> (\w+): array<(.+)>;/g);
  return new Map([...declarations].map(([, name, declared]) => {
    const type = types.get(declared!) ?? declared!;
    const known = /^(?:(vec[234])<)?[fiu]32>?$/.exec(type);
    if (!known) throw new Error(`${name} is an array of ${type}: how many bytes is that?`);
    return [name!, 4 * (WORDS[known[1]!] ?? 1)];
  }));
}

/** The kernel with a counter at every access to its storage bindings. */
export function countingKernel(wgsl: string): string {
  const bindings = parseBindings(wgsl).filter((b) => b.group === 0);
  let text = wgsl.replace(/\/\/[^\n]*/g, "");
  for (const { name, binding } of bindings) {
    const access = new RegExp(`(?<![\\w.])${name}\\[`, "g");
    let counted = "";
    let from = 0;
    for (const { index } of text.matchAll(access)) {
      const open = index + name.length;
      let depth = 0;
      let close = open;
      do {
        if (text[close] === "[") depth++;
        if (text[close] === "]") depth--;
        close++;
      } while (depth > 0);
      if (index < from) throw new Error(`${name} is read to find where it is read`);
      counted += `${text.slice(from, open)}[counted${binding}(u32(${text.slice(open + 1, close - 1)}))]`;
      from = close;
    }
    text = counted + text.slice(from);
  }
  const main = /@compute @workgroup_size\([^)]*\)\s*fn main\(((?:[^()]|\([^()]*\))*)\)/.exec(text);
  if (!main) throw new Error("a kernel must have an entry point called main");
  const parameters = main[1]!.replace(/@builtin\(\w+\)/g, "");
  const names = [...parameters.matchAll(/(\w+)\s*:/g)].map(([, name]) => name);
  const numbers = bindings.map(({ binding }) => binding);
  return `${text.replace(main[0], () => `fn uncounted_main(${parameters})`)}
@group(0) @binding(${bindings.length}) var<storage, read_write> accesses: array<atomic<u32>, ${COUNTERS}>;
${numbers.map((i) => `var<private> accesses${i}: u32;`).join("\n")}

${
    numbers.map((i) =>
      `fn counted${i}(index: u32) -> u32 {
  accesses${i}++;
  return index;
}`
    ).join("\n\n")
  }

${main[0]} {
  uncounted_main(${names.join(", ")});
${numbers.map((i) => `  atomicAdd(&accesses[${i}], accesses${i});`).join("\n")}
}
`;
}

/** The plan with kernels that count. */
function countingPlan(plan: Plan): Plan {
  const buffer = plan.buffers.length;
  const all = [...plan.blocks.values()].flatMap((block) => block.dispatches);
  const storage: Storage = {
    kind: "state",
    name: STORAGE,
    shape: [COUNTERS * Math.max(1, all.length)],
    dtype: "u32",
    category: "bench",
  };
  const bytes = 4 * storage.shape[0]!;
  let next = 0;
  const blocks = [...plan.blocks].map(([name, block]) => {
    const dispatches = block.dispatches.map((d) => ({
      ...d,
      wgsl: countingKernel(d.wgsl),
      bindings: [...d.bindings, { buffer, offset: 4 * COUNTERS * next++, bytes: 4 * COUNTERS }],
    }));
    return [name, { ...block, dispatches }] as const;
  });
  return {
    ...plan,
    blocks: new Map(blocks),
    buffers: [...plan.buffers, { label: STORAGE, category: "bench", bytes, storage }],
    storages: new Map([...plan.storages, [STORAGE, { ...storage, buffer, offset: 0, bytes }]]),
  };
}

/**
 * Runs a block of a plan once with counters and says what each of its dispatches has moved.
 *
 * @param fill Writes what the program's storages hold, before the block runs
 */
export async function countAccesses(
  gpu: Gpu,
  plan: Plan,
  block: string,
  fill: (executable: Executable) => void,
): Promise<Counted[]> {
  const executable = await compile(gpu, countingPlan(plan));
  try {
    fill(executable);
    const first = [...plan.blocks.keys()].indexOf(block);
    const before = [...plan.blocks.values()].slice(0, first).reduce((sum, b) => sum + b.dispatches.length, 0);
    executable.write(STORAGE, new Uint32Array(executable.plan.storages.get(STORAGE)!.shape[0]!));
    executable.run(block);
    const { data } = (await executable.read([STORAGE])).get(STORAGE)!;
    gpu.check();
    return plan.blocks.get(block)!.dispatches.map((dispatch, i) => {
      const sizes = elementBytes(dispatch.wgsl);
      const byBinding = new Map(
        parseBindings(dispatch.wgsl).filter((b) => b.group === 0).map(({ name, binding }) => [
          name,
          sizes.get(name)! * data[(before + i) * COUNTERS + binding]!,
        ]),
      );
      return { dispatch, bytes: [...byBinding.values()].reduce((a, b) => a + b, 0), byBinding };
    });
  } finally {
    executable.destroy();
  }
}
