/**
 * A row of logits sorted whole, largest first: WGSL for row losses. A radix sort by the row's own workgroup, 8 bits of the logit at a time
 * with 8 lanes, 4 bits with 128.
 *
 * Each lane counts the digits of a contiguous share of the row, in a column of its own; the running sum of the counts, digit by digit and
 * within a digit lane by lane, is where each lane's entries of each digit go. So the sort is stable, without atomics, and the same
 * every time.
 *
 * @module
 */

/** Words that sorting both models' rows takes for each entry of the vocabulary. */
export const PER_ENTRY = 3;
/** Counters: a column for each lane that sorts, a row for each digit. */
const COUNTERS = 2048;
/** Lanes that sort; a row loss of more lanes lets the others wait. */
const MOST_LANES = 128;
/** Words of the workgroup's memory: counters, and a sum for each lane. */
export const WORKGROUP = COUNTERS + MOST_LANES;
/**
 * Entries of a turn. Mesa's software driver ends all loops after 65,535 turns of a thread, and eight lanes go over their shares eight
 * times for each model: 16 entries a turn is enough for vocabularies of 350,000.
 */
const UNROLL = 16;

const KEYS = `
    const $SORTERS = min(LANES, ${MOST_LANES}u);
    const $DIGITS = ${COUNTERS}u / $SORTERS;
    const $BITS = countOneBits($DIGITS - 1u);
    // An integer that is smaller where z is larger; both zeros are one.
    fn $key_of(z: f32) -> u32 {
      let bits = bitcast<u32>(select(z, 0.0, z == 0.0));
      return select(bits ^ 0x7fffffffu, bits, (bits & 0x80000000u) != 0u);
    }
    fn $logit_of(key: u32) -> f32 {
      return bitcast<f32>(select(key ^ 0x7fffffffu, key, (key & 0x80000000u) != 0u));
    }
    // Each counter becomes the sum of those before it.
    fn $add_up() {
      let begin = lane * $DIGITS;
      var sum = 0u;
      if (lane < $SORTERS) {
        for (var d = 0u; d < $DIGITS; d++) { sum += row_shared[begin + d]; }
        row_shared[${COUNTERS}u + lane] = sum;
      }
      row_barrier();
      if (lane < $SORTERS) {
        sum = 0u;
        for (var other = 0u; other < lane; other++) { sum += row_shared[${COUNTERS}u + other]; }
        for (var d = 0u; d < $DIGITS; d++) {
          let count = row_shared[begin + d];
          row_shared[begin + d] = sum;
          sum += count;
        }
      }
      row_barrier();
    }`;

/**
 * WGSL of `fn $sort_student(first: u32, second: u32) -> u32`, and the same for the teacher: sorts the row by way of the stored words from
 * `first` and from `second` on, and returns the one of the two where the result is. Call it in uniform control flow. Of the student the ids
 * are sorted, of equal logits the lower one first; of the teacher keys that `$logit_of` makes logits again.
 */
export const ROW_SORTS = `${KEYS}${rowSort("student", "id")}${rowSort("teacher", "key")}`;

/**
 * The same of rows of two vocabularies. @param logits Functions that give the logits which are sorted, `student` and `teacher` or others
 */
export function groupSorts(logits: { readonly student: string; readonly teacher: string }): string {
  const student = rowSort("student", "id", logits.student);
  return `${KEYS}${student}${rowSort("teacher", "key", logits.teacher, "row_teacher_vocabulary")}`;
}

function rowSort(
  side: "student" | "teacher",
  keep: "id" | "key",
  logit: string = side,
  count = "row_vocabulary",
): string {
  const key = keep === "id" ? `$key_of(${logit}(item))` : "item";
  const start = keep === "id" ? "i" : `$key_of(${logit}(i))`;
  const item = (u: number) => `$item_${side}(i + ${u}u, source, shift)`;
  const digit = `((${key} >> shift) & ($DIGITS - 1u)) * $SORTERS + lane`;
  const turns = (count: number, body: (u: number) => string) => `
        for (; i + ${count}u <= end; i += ${count}u) {
          ${Array.from({ length: count }, (_, u) => `{ ${body(u)} }`).join("\n          ")}
        }`;
  const share = (body: (u: number) => string) => `
        i = begin;
        if (LANES <= 8u) {${turns(UNROLL, body)}}
        ${turns(1, body)}`;
  return `
    fn $item_${side}(i: u32, source: u32, shift: u32) -> u32 {
      if (shift == 0u) { return ${start}; }
      return $load(source + i);
    }
    fn $sort_${side}(first: u32, second: u32) -> u32 {
      let share = (${count} + $SORTERS - 1u) / $SORTERS;
      let begin = min(lane * share, ${count});
      let end = select(begin, min(begin + share, ${count}), lane < $SORTERS);
      var source = second;
      var to = first;
      var i = 0u;
      for (var shift = 0u; shift < 32u; shift += $BITS) {
        if (lane < $SORTERS) {
          for (var d = 0u; d < $DIGITS; d++) { row_shared[d * $SORTERS + lane] = 0u; }
        }
        ${share((u) => `let item = ${item(u)}; row_shared[${digit}] += 1u;`)}
        row_barrier();
        $add_up();
        ${
    share((u) =>
      `let item = ${item(u)}; let place = ${digit}; let slot = row_shared[place];
            row_shared[place] = slot + 1u; $store(to + slot, item);`
    )
  }
        row_barrier();
        let done = source;
        source = to;
        to = done;
      }
      return source;
    }`;
}
