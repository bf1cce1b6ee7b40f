/** The tiles that attention may be made of fit the device they are offered to. */
// @ts-types="../../types/std_assert.d.ts"
import { assert, assertEquals } from "@std/assert";
import { DEFAULT_DEVICE, type DeviceDescription } from "../../src/gpu/description.ts";
import {
  type AttentionPart,
  attentionVariants,
  tiledLayout,
} from "../../src/tensor/ops/attention/variants.ts";
import { attention } from "../../src/tensor/ops/attention.ts";
import { gradients } from "../../src/tensor/differentiate.ts";
import { plan, Program } from "../../src/tensor/plan.ts";

const PARTS: readonly AttentionPart[] = ["attention", "attention dq", "attention dk dv"];
const LARGE: DeviceDescription = { ...DEFAULT_DEVICE, maxWorkgroupMemory: 32_768, maxInvocations: 1024 };

const shapeOf = (tokens: number, heads: number, keyValueHeads: number, headDim: number) => ({
  ...{ queries: tokens, keys: tokens, heads, keyValueHeads, headDim, capped: false },
});

/** Kernels of attention and its gradients by part. */
function kernelsOf(
  { queries, heads, keyValueHeads, headDim }: ReturnType<typeof shapeOf>,
  device: DeviceDescription,
) {
  const program = new Program();
  const graph = program.block("some");
  const wide = (name: string) => graph.input(name, [queries, heads * headDim], "f32");
  const narrow = (name: string) => graph.input(name, [queries, keyValueHeads * headDim], "f32");
  const ranges = { start: graph.input("start", [queries], "i32"), end: graph.input("end", [queries], "i32") };
  const [q, k, v] = [wide("q"), narrow("k"), narrow("v")];
  const y = attention(q, k, v, ranges, { heads, keyValueHeads, headDim, scale: 1 });
  [y, ...gradients(graph, [[y, wide("dy")]], [q, k, v])].forEach((t, i) => graph.output(`y${i}`, t!));
  const { dispatches } = plan(program, device).blocks.get("some")!;
  return new Map(
    PARTS.map((part) => [
      part,
      dispatches.find((d) => new RegExp(`^${part} \\d`).test(d.kernel))!,
    ]),
  );
}

/** Bytes of workgroup memory that a kernel declares. */
function workgroupBytes(wgsl: string): number {
  const words: Readonly<Record<string, number>> = { "": 1, vec2: 2, vec4: 4 };
  return [...wgsl.matchAll(/^var<workgroup> \w+: (?:array<)?(?:(vec[24])<)?\w+>?(?:, (\d+)>)?;/gm)]
    .reduce((sum, [, vector = "", length = "1"]) => sum + 4 * words[vector]! * Number(length), 0);
}

for (const device of [DEFAULT_DEVICE, LARGE]) {
  const memory = device.maxWorkgroupMemory / 1024;
  Deno.test(`tiles of attention fit ${memory} KiB, and say how much they take`, () => {
    for (
      const [heads, keyValueHeads, headDim] of [[2, 1, 20], [14, 2, 64], [12, 2, 128], [8, 4, 256]] as const
    ) {
      const shape = shapeOf(300, heads, keyValueHeads, headDim);
      const names = PARTS.map((part) => {
        const variants = attentionVariants(part);
        return variants.candidates(shape, device).map((v) => [variants.name(v), v] as const);
      });
      for (let i = 0; i < Math.max(...names.map((n) => n.length)); i++) {
        const chosen = names.map((n) => n[i % n.length]!);
        const kernels = Object.fromEntries(
          PARTS.map((part, p) => [`${part} ${attentionVariants(part).shapeClass(shape)}`, chosen[p]![0]]),
        );
        const kernelOf = kernelsOf(shape, { ...device, kernels });
        PARTS.forEach((part, p) => {
          const [name, variant] = chosen[p]!;
          assert(variant.family === "tiled");
          const { wgsl, groups } = kernelOf.get(part)!;
          const layout = tiledLayout(part, variant, headDim)!;
          assertEquals(workgroupBytes(wgsl), layout.bytes, `${part}, ${name}`);
          assert(layout.bytes <= device.maxWorkgroupMemory, `${part}, ${name}`);
          const threads = Number(/@workgroup_size\((\d+)\)/.exec(wgsl)![1]);
          assert(threads === variant.threads && threads <= device.maxInvocations);
          const made = part === "attention dk dv" && !variant.apart ? keyValueHeads : heads;
          assertEquals(
            groups[0] * groups[1],
            Math.ceil(300 / variant.rows) * made * variant.parts,
            `${part}, ${name}`,
          );
        });
      }
    }
  });
}

Deno.test("the scores of a head are made once, in 16 KiB too", () => {
  for (const headDim of [64, 128, 192, 256]) {
    for (const part of PARTS) {
      for (const device of [DEFAULT_DEVICE, LARGE]) {
        const [first] = attentionVariants(part).candidates(shapeOf(2048, 8, 4, headDim), device);
        assert(first!.family === "tiled");
        assertEquals(first.parts, 1, `${part} of heads of ${headDim}`);
      }
    }
  }
});

Deno.test("heads of a group are made apart only where workgroups are few, and their sums count", () => {
  const { candidates, traffic } = attentionVariants("attention dk dv");
  const apartOf = (tokens: number, heads: number, keyValueHeads: number) =>
    candidates(shapeOf(tokens, heads, keyValueHeads, 64), LARGE).filter((v) =>
      v.family === "tiled" && v.apart
    );
  const few = shapeOf(2048, 14, 2, 64);
  assert(apartOf(2048, 14, 2).length > 0);
  assertEquals(apartOf(2048, 14, 14), []);
  assertEquals(apartOf(65_536, 14, 2), [], "bytes of gradients apart are bounded");
  for (const v of apartOf(2048, 14, 2)) {
    assert(v.family === "tiled");
    const { apart: _, ...together } = v;
    // Seven heads are written, read and summed into one, of either gradient; each head's workgroups look for their queries.
    const sums = 4 * 2 * 2048 * 2 * 64 * (7 + 7 + 1 - 1);
    const looks = 4 * 2 * 128 * Math.ceil(2048 / v.rows) * (14 - 2) * v.parts;
    assertEquals(traffic(few, v) - traffic(few, together), sums + looks);
  }
});

Deno.test("larger tiles move fewer bytes, and parts of a head more", () => {
  const shape = shapeOf(2048, 8, 4, 256);
  for (const part of PARTS) {
    const { traffic } = attentionVariants(part);
    const tile = (rows: number, block: number, parts: number) =>
      traffic(shape, { family: "tiled", rows, block, threads: 128, parts });
    assert(tile(64, 32, 1) < tile(32, 32, 1) && tile(32, 64, 1) < tile(32, 32, 1));
    assert(tile(64, 32, 2) > 1.2 * tile(64, 32, 1));
  }
});

Deno.test("a processor's order begins with the tiles that take it fewest instructions, and leaves a GPU's alone", () => {
  const shape = shapeOf(256, 8, 4, 8);
  const software = { ...LARGE, software: true };
  for (const part of PARTS) {
    const { candidates, cost, name } = attentionVariants(part);
    const order = (device: DeviceDescription) =>
      candidates(shape, device).toSorted((a, b) => cost(shape, a, device) - cost(shape, b, device)).map(name);
    assertEquals(candidates(shape, software).map(name), candidates(shape, LARGE).map(name), "what there is");
    // What bench/tuner.ts finds on Mesa's llvmpipe: threads that make two vectors of scores of each row.
    assert(order(software)[0]!.startsWith("tiled 64x32 by 64"), `${part}: ${order(software)}`);
    assert(order(LARGE)[0] !== order(software)[0], `${part}: a GPU's order`);
  }
});
