/** Mistakes that are planted by rule in every kernel of attention and its gradients, each of which has to be noticed. */
// @ts-types="../../types/std_assert.d.ts"
import { assert } from "@std/assert";
import { countAccesses, type Counted } from "../../bench/counted.ts";
import { DEFAULT_DEVICE, type KernelFamily } from "../../src/gpu/description.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { compile, type Executable } from "../../src/tensor/executable.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { attentionGradientOp, attentionOp } from "../../src/tensor/ops/attention.ts";
import {
  type AttentionPart,
  type AttentionVariant,
  attentionVariants,
} from "../../src/tensor/ops/attention/variants.ts";
import { type Case, makeCase, oracle, packed, shape, valuesOf } from "./attention_cases.ts";
import { type Plan, plan, Program } from "../../src/tensor/plan.ts";
import { freeing, gpuTest, testGpu, type Value } from "./harness.ts";
import { type Equivalent, type Hunt, Hunters, isWithin } from "./mutants.ts";
import { plant } from "./planted.ts";

/** Mistakes that change nothing that anybody could see, and why. */
const EQUIVALENT: readonly Equivalent[] = [
  {
    mistake: /: (never|at the edge): main: tile >= size.total in /,
    because: "workgroups beyond the last make again what others have made",
  },
  {
    mistake: /: term dropped: main: .*\+ group.z in /,
    because: "the z of a workgroup is 0",
  },
  {
    mistake: /: (second choice: main: select\(.*alive == #u\)|zero: main: let broken) /,
    because: "so short a loop ends; one that does not has a test of its own",
  },
  {
    mistake:
      /: (first choice|term dropped): main: (min\(.*|size.(keys|queries)) - #u\)? in |: first choice: main: min\(.*(left|right)_last\)/,
    because: "rows beyond the last are made of whatever is read there, and masked or never stored",
  },
  {
    mistake: /: one more: main: let (left|right)_last = /,
    because: "rows beyond the last are made of whatever is read there, and masked or never stored",
  },
  {
    mistake: /: (always|at the edge): main: t < size.vectors in if/,
    because: "columns beyond the last are never stored",
  },
  {
    mistake:
      /: (always|at the edge|term dropped): main: row .*in if \(row.* \{ (let from_row|let from_key|let known|words) /,
    because: "there is no range beyond the last query, or it is that of a row which is never stored",
  },
  {
    mistake: /: (always|at the edge): main: from_(row|key) < to_(row|key) in /,
    because: "an empty range lets no key through",
  },
  {
    mistake: /: at the edge: main: (last > first|range#.x < range#.y) in let any_key/,
    because: "the bounds of an empty range are never equal",
  },
  {
    mistake: /: zero: main: let from_key = /,
    because: "keys that nobody sees are masked",
  },
  {
    mistake:
      /: (always|at the edge|one bound alone): main: (part|tx) == #u .*in if .*logsumexp|: (always|at the edge): main: part == #u in if/,
    because: "all parts of a head, and all threads of a row, have its denominator",
  },
  {
    mistake: /: (always|at the edge): main: thread == #u in if .*hull/,
    because: "any thread finds the same hull",
  },
  {
    mistake: /: (always|at the edge): main: thread < #u in if/,
    because: "what the other threads bring is put beyond what is read",
  },
  {
    mistake: /: (always|at the edge): main: r < #u in else if/,
    because: "what comes after the last row is put into the padding",
  },
  {
    mistake: /: one more: main: let (vectors|depth) = /,
    because: "beyond a head's width zeros are loaded, and beyond workgroup memory they are read",
  },
  {
    mistake: /^(?!.* parts).*: (term dropped: main: tile \/ size.tiles % |zero: main: let part = )/,
    because: "a workgroup has all columns of a head",
  },
  {
    mistake: /dk dv .*: (always|at the edge|one bound alone): main: range.[xy] [<>] /,
    because: "queries that see none of the keys have no weight",
  },
  {
    mistake: /attention rows: (left out|one more): main: .*firsts\[thread\] = first/,
    because: "queries that see none of the keys have no weight",
  },
  {
    mistake:
      /dk dv tiled .*: left out: main: from_blocks\[thread\] = |dk dv tiled .*: one more: main: thread in (from|to)_blocks/,
    because: "queries that see none of the keys have no weight",
  },
  {
    mistake:
      /dk dv tiled .*: (second choice: main: min\(from_block, b\)|a turn less: main: i < #u \+ group.z in for)/,
    because: "there are fewer blocks of queries than threads",
  },
  {
    mistake:
      /attention rows: (one bound alone|at the edge|other size): .*in if \(head == #u|: main: head == #u && /,
    because: "all heads find the same blocks, and those beyond the last are not written",
  },
  {
    mistake: /^heads of 8: .*: (zero|one more|other size): main: (let vectors|size.vectors in let vectors) /,
    because: "heads that stay in registers are not looped over",
  },
  {
    mistake: /^heads of 8: .*(zero: main: let part|in let part)/,
    because: "a workgroup has all columns of a head",
  },
  {
    mistake: /^(?!.* parts).*: term dropped: main: .*\+ part in let at/,
    because: "a workgroup has all columns of a head",
  },
  {
    mistake:
      /tiled (32x32 by 64|64x32 by 128|32x64 by 128|64x64 by 256|128x32 by 256)\b.*: second choice: main: max\(highest#, /,
    because: "a thread has one vector of scores of a row",
  },
  {
    mistake: /^heads of 8: .*one more: main: let part/,
    because: "a workgroup has all columns of a head",
  },
  {
    mistake: /: left out: main: value_sum# \*= whole/,
    because: "so short a loop ends; one that does not has a test of its own",
  },
  {
    mistake:
      /tiled (32x32 by 64|64x32 by 64|64x32 by 128|128x32 by 128|128x32 by 256|128x64 by 128)\b.*: term dropped: main: right_row \+ first in value/,
    because: "a whole block lies in workgroup memory at once",
  },
  {
    mistake:
      /, capped: .*: (first choice|second choice|left out): main: (max\(.*(highest#|maximum) =|partial\[thread\] = .*highest)/,
    because: "capped scores are so near each other that no maximum has to be exact",
  },
  {
    mistake:
      /attention tiled .*: one more: main: i in hull = vec4<i32>\(min\(hull.x, bounds\[i\].x\), max\(hull.y, bounds\[i\].y\)\);$/,
    because: "what stands behind the last row begins at 0: the hull is wider, which a test below counts",
  },
  {
    mistake: /dk dv tiled .*: one more: main: i in to_block = max\(to_block, to_blocks\[i\]\)/,
    because: "two blocks of queries are taken at a time, so that the second is there all the same",
  },
  {
    mistake: /tiled .*: other size: main: size.vectors in let vectors/,
    because: "a slice has four vectors, and the last of them is not the first of a slice",
  },
  {
    mistake: /heads apart: .*: term dropped: main: group.x \+ group.y \* groups.x in/,
    because: "so few workgroups are never folded",
  },
  {
    mistake: /dk dv tiled 64x.*: term dropped: main: tile \/ size.tiles in let (kv_head|member) = /,
    because: "where tiles are odd in number and heads are two, the workgroups are the same in another order",
  },
  {
    mistake: /^(?!.* parts).*: term dropped: main: tile \/ size.tiles \/ kv_heads % size.group/,
    because: "a workgroup has all columns of a head",
  },
  {
    mistake: /tiled (128x32 by 128|64x32 by 64)\b.*: (always|at the edge|term dropped): main: t \+ d /,
    because:
      "threads bring both sides in different turns: what lies beyond a head's width meets a 0 of the other",
  },
  {
    mistake:
      /^heads of (64|128|256): .*: (always|at the edge|term dropped): main: (t \+ d|t|part \+ .*) .*in if \(/,
    because: "so wide a head is made of whole slices and parts",
  },
  {
    mistake: /subgroup8 8x.*: (first|second) choice: main: min\(part \+ #u, vectors\) in for/,
    because: "a workgroup has all columns of a head",
  },
  {
    mistake: /: sum rows: (never|at the edge): main: index >= size.groups /,
    because: "what lies beyond the last workgroup lies beyond the last column",
  },
  {
    mistake:
      /: sum rows: (second choice: main: min\(block \+ #u, size.rows\)|other size: main: size.rows in for)/,
    because: "a group has fewer heads than a block has rows",
  },
  {
    mistake: /, capped: .*attention apart: one more: main: lane in partial\[lane\] = maximum/,
    because: "capped scores are so near each other that no maximum has to be exact",
  },
  {
    mistake:
      /attention apart: (second choice: main: select\(#u, last, lane < size.vectors\)|at the edge: main: lane < size.vectors in let sums|term dropped: main: size.vectors - #u in let column#)/,
    because: "columns beyond the last are never stored",
  },
  {
    mistake:
      /attention apart: (always|at the edge): main: lane \+ #u < size.vectors in if .*query\[lane|attention apart: (always|at the edge): main: lane == #u in if .*range = /,
    because: "there is room for more of a query than it has, and all lanes know the same range",
  },
  {
    mistake:
      /attention apart: (term dropped: main: bounds.y - key|second choice: main: min\(.*) in let last = /,
    because: "keys beyond the range have a weight of 0",
  },
  {
    mistake:
      /^heads of (64|256): .*attention apart: (always|at the edge|term dropped): main: lane \+ #u .*in if \(/,
    because: "so wide a head is made of whole slices and parts",
  },
  {
    mistake:
      /attention apart: (first choice: main: min\(key#, bounds.y - #\)|term dropped: main: bounds.y - # in let k#) /,
    because: "the score of a key beyond the range is masked",
  },
  {
    mistake: /attention apart: (always|at the edge): main: lane == #u in if .*logsumexp/,
    because: "all lanes know the denominator",
  },
];

const PARTS: readonly AttentionPart[] = ["attention", "attention dq", "attention dk dv"];

/** So many that the last ones are brought by the last of what is unrolled, and that of a tile's queries only those that see all keys see the last block. */
function keysFor(queries: number, family: KernelFamily): number {
  return queries + (family === "subgroup8" ? 64 : 108);
}

/**
 * Short ranges in every place of a block, but for some queries that see all keys: without each of them, keys that a tile has to go through, or
 * queries that it has to, would be missing. They stand where a kernel could lose them.
 */
function spreadOut(part: AttentionPart, { family }: AttentionVariant, rows: number): [number, number][] {
  const queries = family === "subgroup8" ? 156 : rows + 12;
  const keys = keysFor(queries, family);
  const seers = family === "subgroup8"
    // In each place of a lane's four rows, and once as the last of sixteen.
    ? [15, 12, 17, 14].map((at, tile) => 32 * tile + at % rows)
    : part === "attention dk dv"
    ? [31]
    // The last row of a tile.
    : [rows - 1];
  // The first row of a tile, or the second of a block of queries, which is the last.
  seers.push(queries - (part === "attention dq" ? 12 : 11));
  return Array.from({ length: queries }, (_, i): [number, number] => {
    if (seers.includes(i)) return [1, keys];
    // The last key of a block, which begins at the first that a neighbour sees.
    if (family === "subgroup8" && (seers.includes(i - 1) || seers.includes(i + 1))) return [32, 40];
    const tile = Math.floor(i / rows);
    // What the second tile of a device for hardware would lose lies behind the keys that all of it see.
    const from = family === "subgroup8" ? rows + 8 + tile * 32 % 96 : tile === 0 ? rows + 8 : 8;
    const start = from + i * 5 % 32;
    return [start, start + 1 + i * 3 % 11];
  });
}

/** Four of each in turn: ranges that begin or end where no keys are, that are empty, turned round or outside, and of all keys; then two samples. */
function edges(keys: number): [number, number][] {
  const kinds: [number, number][] = [
    ...[[-4, 9], [keys - 5, keys + 7], [5, 5], [keys - 3, 8], [keys + 2, keys + 9], [-9, -2], [
      0,
      keys,
    ]] as const,
  ].map(([from, to]) => [from, to]);
  return [...kinds.flatMap((range) => [range, range, range, range]), ...packed([4, 15])];
}

/** What all kernels of a variant have to get right, in one program. Heads share keys in all: where they do not, there are fewer variants. */
function casesOf(part: AttentionPart, variant: AttentionVariant, headDim: number, softCap?: number): Case[] {
  const made = (heads: number, keyValueHeads: number) => ({
    ...shape(heads, keyValueHeads, headDim),
    ...(softCap ? { softCap } : {}),
  });
  const rows = variant.family === "tiled"
    ? Math.max(variant.rows, variant.block)
    : Math.max(8 * variant.own, variant.spread);
  const spread = spreadOut(part, variant, rows);
  return [
    makeCase(
      part === "attention dk dv" ? made(8, 4) : made(2, 1),
      keysFor(spread.length, variant.family),
      spread,
    ),
    makeCase(made(4, 2), 51, edges(51)),
    // Scores in the thousands; forward, of so many keys that the largest is met in any place.
    part === "attention"
      ? makeCase(
        made(4, 2),
        117,
        Array.from({ length: 17 }, (_, i) => [i % 3, 114 - i % 7]),
        80 * (headDim / 8) ** -0.5,
      )
      : makeCase(made(4, 2), 21, packed([9, 8]), 40 * (headDim / 8) ** -0.5),
  ];
}

/** What a part makes, and how far its numbers may be off. */
const MADE = {
  "attention": [["out", 2e-6], ["logsumexp", 4e-6]],
  "attention dq": [["dq", 8e-6]],
  "attention dk dv": [["dk", 8e-6], ["dv", 8e-6]],
} as const;

/** Mistakes in one kernel of a part, and in the others that the part brings along. */
function huntIn(
  hunters: Hunters,
  gpu: Gpu,
  part: AttentionPart,
  variant: AttentionVariant,
  { headDim, softCap, withRows, share }: Omit<Kernel, "part" | "variant"> & { share?: Hunt["share"] },
): Promise<void> {
  const { family } = variant;
  const variants = attentionVariants(part);
  const cases = casesOf(part, variant, headDim, softCap);
  const right = cases.map((c) => oracle(c));
  const keys = cases.map((c) =>
    `${part} ${variants.shapeClass({ ...c.shape, ...c, capped: softCap !== undefined })}`
  );
  const values = cases.flatMap((c, i) => {
    const [queries, heads] = [c.queries, c.shape.heads];
    const { out, logsumexp } = right[i]!;
    const known: Value[] = [
      { shape: [queries, heads * headDim], data: Float32Array.from(out) },
      { shape: [heads, queries], data: Float32Array.from(logsumexp) },
    ];
    return [...valuesOf(c), ...(part === "attention" ? [] : known)];
  });
  const each = values.length / cases.length;
  return hunters.hunt(`heads of ${headDim}${softCap ? ", capped" : ""}: ${part} ${variants.name(variant)}`, {
    gpu,
    values,
    ...(share ? { share } : {}),
    // What others bring along is tested with them; what is known of the queries, once.
    kernels: (kernel) =>
      kernel.startsWith(`${part} `) && /\d/.test(kernel) || (kernel === "attention rows" && withRows) ||
      (kernel === "sum rows" && headDim === 28),
    device: {
      ...gpu.description,
      // Heads of 28 are cut into parts by software devices that have so little.
      maxWorkgroupMemory: family === "subgroup8" ? 2048 : 32_768,
      maxWorkgroupsPerDimension: gridOf(part, variant, cases),
      kernels: Object.fromEntries(keys.map((key) => [key, variants.name(variant)])),
    },
    build: (graph, plant, ...inputs) =>
      cases.flatMap(({ shape }, i) => {
        const [q, k, v, start, end, dout, out, logsumexp] = inputs.slice(
          i * each,
          (i + 1) * each,
        ) as Tensor[];
        const operands = [q!, k!, v!, start!, end!];
        const made = part === "attention" ? graph.add(attentionOp, operands, shape) : graph.add(
          attentionGradientOp,
          [...operands, out!, logsumexp!, dout!],
          { ...shape, queries: part === "attention dq" || withRows, keys: part === "attention dk dv" },
        );
        plant(made[0]!);
        return made;
      }),
    isRight: (results) =>
      right.every((expected, i) => {
        const times = i < 2 ? 1 : part === "attention" ? 4000 : 400;
        const made = withRows ? [...MADE["attention dq"], ...MADE[part]] : MADE[part];
        return made.every(([name, limit], j) =>
          isWithin(results[made.length * i + j]!, expected[name], times * limit)
        );
      }),
  });
}

/** Mistakes in the kernel for single queries whose ranges lie apart. */
function huntApart(
  hunters: Hunters,
  gpu: Gpu,
  { headDim, softCap, share }: { headDim: number; softCap?: number; share?: Hunt["share"] },
): Promise<void> {
  const made = { ...shape(4, 2, headDim), ...(softCap ? { softCap } : {}) };
  const cases = [
    // One key more or less than a block of either family, and each in an order of its own.
    makeCase(made, 190, [[0, 133], [140, 141], [50, 190], [3, 67], [100, 164], [9, 26], [60, 125]]),
    makeCase(made, 51, edges(51)),
    makeCase(
      made,
      117,
      // So many that the largest score is met in any place.
      Array.from({ length: 40 }, (_, i) => [i % 3, 114 - i % 7]),
      80 * (headDim / 8) ** -0.5,
    ),
  ];
  const right = cases.map((c) => oracle(c));
  const each = valuesOf(cases[0]!).length;
  return hunters.hunt(`heads of ${headDim}${softCap ? ", capped" : ""}: ranges apart`, {
    gpu,
    values: cases.flatMap(valuesOf),
    ...(share ? { share } : {}),
    device: { ...gpu.description, maxWorkgroupsPerDimension: 20 },
    build: (graph, plant, ...inputs) =>
      cases.flatMap(({ shape }, i) => {
        const made = graph.add(attentionOp, inputs.slice(i * each, i * each + 5), { ...shape, apart: true });
        plant(made[0]!);
        return made;
      }),
    isRight: (results) =>
      right.every((expected, i) =>
        MADE["attention"].every(([name, limit], j) =>
          isWithin(results[2 * i + j]!, expected[name], (i < 2 ? 1 : 4000) * limit)
        )
      ),
  });
}

/** The most workgroups along a dimension: fewer than there are in all, and no fewer than their root. */
function gridOf(part: AttentionPart, variant: AttentionVariant, cases: readonly Case[]): number {
  const keyed = part === "attention dk dv";
  if (variant.family === "subgroup8") return keyed ? 13 : 8;
  const { rows, parts, apart } = variant;
  const counts = cases.map(({ queries, keys, shape: { heads, keyValueHeads, headDim } }) => {
    const tiles = Math.ceil((keyed ? keys : queries) / rows) * (keyed && !apart ? keyValueHeads : heads) *
      parts;
    // What is known of the queries is gathered by few workgroups, and gradients of heads apart are summed by many.
    return Math.max(tiles, Math.ceil(queries / 64) * heads, apart ? keys * keyValueHeads * headDim / 64 : 0);
  });
  return Math.ceil(Math.sqrt(Math.max(...counts)));
}

/** Every kernel takes many minutes, and runs where it is asked for; else the one of each part that compiles soonest. */
const ALL = Deno.env.get("LIMBECK_ALL_VARIANTS") === "1";

/** Of their mistakes one in so many: a run by tiles takes a software device twenty times as long. */
const SHARE = { subgroup8: 8, tiled: 16 } as const;

gpuTest(
  `a mistake in ${ALL ? "any" : "some"} kernel of attention is noticed, wherever it is`,
  async (gpu, family) => {
    const hunters = new Hunters(EQUIVALENT);
    let at = 0;
    for (const { part, variant, ...others } of ALL ? everyKernel(family) : someKernels(family)) {
      const share = ALL ? undefined : { of: SHARE[family], at: at++ };
      await huntIn(hunters, gpu, part, variant, { ...others, ...(share ? { share } : {}) });
    }
    const apart = family === "tiled" ? [] : [[28, 5]] as const;
    for (const [headDim, softCap] of ALL ? [[28], [64], [256], [28, 5]] as const : apart) {
      const share = ALL ? undefined : { of: SHARE[family], at: at++ };
      await huntApart(hunters, gpu, {
        headDim,
        ...(softCap ? { softCap } : {}),
        ...(share ? { share } : {}),
      });
    }
    hunters.end(ALL);
  },
);

interface Kernel {
  readonly part: AttentionPart;
  readonly variant: AttentionVariant;
  readonly headDim: number;
  readonly softCap?: number;
  /** Whether what is known of the queries gets mistakes too. */
  readonly withRows: boolean;
}

/** Every variant, at the first of these heads for which it is one, and of software devices also where heads stay in registers; then with a soft cap. */
function* everyKernel(family: KernelFamily): Generator<Kernel> {
  const tried = new Set<string>();
  for (const [headDim, softCap] of [[28], [8], [68], [132], [252], [64], [128], [256], [28, 5]] as const) {
    if (headDim === 8 && family === "tiled") continue;
    for (const part of PARTS) {
      const variants = attentionVariants(part);
      const shape = { queries: 150, keys: 160, heads: 4, keyValueHeads: 2, headDim, capped: false };
      const device = { ...DEFAULT_DEVICE, family, maxWorkgroupMemory: 32_768 };
      const found = variants.candidates(shape, device);
      for (const variant of softCap ? found.slice(0, 1) : found) {
        const kind = `${part} ${variants.name(variant)} ${headDim === 8} ${softCap}`;
        if (tried.has(kind)) continue;
        tried.add(kind);
        // Of both families one is the same, and small tiles say most about it.
        const withRows = family === "subgroup8" && part === "attention dk dv" && variant === found[0] &&
          headDim === 28 && !softCap;
        yield { part, variant, headDim, ...(softCap ? { softCap } : {}), withRows };
      }
    }
  }
}

function* someKernels(family: KernelFamily): Generator<Kernel> {
  for (const part of PARTS) {
    const withRows = part === "attention dk dv";
    if (family === "tiled") {
      const variant = { family, rows: 32, block: 32, threads: 64, parts: 1 };
      yield { part, variant, headDim: 28, softCap: 5, withRows: false };
    } else {
      const variant = { family, own: 4, spread: 16 } as const;
      yield { part, variant, headDim: 28, softCap: 5, withRows };
      yield { part, variant, headDim: 8, withRows: false };
    }
  }
}

Deno.test({
  name: "a hull that begins at the first key, where it should not, brings more keys and nothing else",
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const gpu = await testGpu("tiled");
    const c = makeCase(shape(2, 1, 8), 128, Array.from({ length: 40 }, (_, i) => [70 + i % 9, 90 + i]));
    const values = valuesOf(c).slice(0, 5);
    const planned = (wrong: string) => {
      const program = new Program();
      const graph = program.block("test");
      const inputs = values.map(({ shape, dtype = "f32" }, i) =>
        graph.use({ kind: "input", name: `x${i}`, shape, dtype, category: "test" })
      );
      const [out] = graph.add(attentionOp, inputs, c.shape);
      graph.output("y", plant(out!, "min(hull.x, bounds[i].x)", wrong));
      return plan(program, gpu.description);
    };
    const write = (executable: Executable) => values.forEach((v, i) => executable.write(`x${i}`, v.data));
    const bytesOfKeys = async (made: Plan) => {
      const [{ byBinding }] = await countAccesses(gpu, made, "test", write) as [Counted];
      return byBinding.get("k")!;
    };
    const [right, wide] = ["min(hull.x, bounds[i].x)", "min(hull.x, bounds[i + 1u].x)"].map(planned) as [
      Plan,
      Plan,
    ];
    await freeing(gpu, async () => {
      const bytes = [await bytesOfKeys(right), await bytesOfKeys(wide)] as const;
      assert(bytes[1] > 1.5 * bytes[0], `${bytes[1]} bytes of keys, and ${bytes[0]}`);
      const executable = await compile(gpu, wide);
      write(executable);
      executable.run("test");
      const { data } = (await executable.read(["y"], "test")).get("y")!;
      executable.destroy();
      assert(isWithin(data, oracle(c).out, 2e-6));
    });
  },
});
