/**
 * Making one launch of several that are small and need nothing of each other; see `together.ts` for how they come to stand side by side.
 *
 * The workgroups of each member are those of one z. Operands that differ lie somewhere in one buffer, so what is bound for all members is
 * the least range that holds them, and a size word says where in it a member's own begins.
 *
 * @module
 */
import { parseBindings } from "../gpu/bindings.ts";
import type { DeviceDescription } from "../gpu/description.ts";
import { type Dispatch, MOST_TOGETHER, type SizeWord } from "./op.ts";
import { cover, isSameRange, overlaps, type Range } from "./range.ts";

/** A launch, what it binds, and the bytes of each of its operands, bound alone. */
export interface Launch {
  readonly dispatch: Dispatch;
  readonly bindings: readonly Range[];
  readonly bytes: number;
}

/** A launch that stands alone. Where others may join it, it is one of one. */
export function alone(dispatch: Dispatch, bindings: readonly Range[]): Launch {
  return { dispatch, bindings, bytes: bindings.reduce((sum, b) => sum + b.bytes, 0) };
}

/**
 * One launch for all of several, which need nothing of each other, or undefined where they cannot be one: their kernels differ, what they
 * read or write is not in one buffer or too far apart for one binding, or something would be bound to be read within what is written.
 */
export function join(members: readonly Launch[], device: DeviceDescription): Launch | undefined {
  const { dispatch: first, bindings: own } = members[0]!;
  const { begins, wgsl, size } = first;
  if (!begins || members.length < 2 || members.length > MOST_TOGETHER) return undefined;
  const fits = members.every(({ dispatch: d }) =>
    d.begins !== undefined && d.wgsl === wgsl && d.size.length === size.length
  );
  if (!fits) return undefined;

  const covers: Range[] = [];
  for (const i of own.keys()) {
    const ranges = members.map((m) => m.bindings[i]!);
    if (begins[i] === undefined && ranges.some((r) => !isSameRange(r, own[i]!))) return undefined;
    const whole = cover(ranges);
    if (!whole || whole.bytes > device.maxBindingSize) return undefined;
    covers.push(whole);
  }
  for (const { binding: i } of parseBindings(wgsl).filter((b) => b.group === 0 && b.kind === "read_write")) {
    if (covers.some((other, j) => j !== i && overlaps(covers[i]!, other))) return undefined;
    const written = members.map((m) => m.bindings[i]!);
    if (written.some((r, j) => written.some((other, k) => k < j && overlaps(r, other)))) return undefined;
  }

  const sum = (of: (m: Launch) => number) => members.reduce((total, m) => total + of(m), 0);
  const most = (axis: 0 | 1) => Math.max(...members.map(({ dispatch: { groups } }) => groups[axis]));
  return {
    dispatch: {
      ...first,
      kernel: `${first.kernel}, several`,
      size: members.flatMap(({ dispatch, bindings }) => {
        const words: SizeWord[] = [...dispatch.size];
        begins.forEach((word, i) => {
          if (word !== undefined) words[word] = (bindings[i]!.offset - covers[i]!.offset) / 4;
        });
        return words;
      }),
      // Each finds its workgroups by their number, and those beyond its own do nothing.
      groups: [most(0), most(1), members.length],
      flops: sum(({ dispatch }) => dispatch.flops ?? 0),
      traffic: sum(({ dispatch, bytes }) => dispatch.traffic ?? bytes),
    },
    bindings: covers,
    bytes: sum((m) => m.bytes),
  };
}
