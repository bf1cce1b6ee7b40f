// Rotary position embedding (Su et al., arXiv 2104.09864) with pairs (i, i + d/2) within a head of width d, as Hugging Face has it:
//
//   out[t, i]       = x[t, i]       * cos - x[t, i + d/2] * sin
//   out[t, i + d/2] = x[t, i + d/2] * cos + x[t, i]       * sin      with cos, sin = table[positions[t], i], [.., i + d/2]
//
// With sign = -1 the rotation goes the other way: the backward pass. A position outside the table gives NaN.
//
// Bindings: positions i32 [T], table [P, d] (d/2 cosines, then d/2 sines), x0 [T, heads * (d + rest)], out0 as x0, and with TENSORS 2 x1 and
// out1, which may have another number of heads. A workgroup of THREADS makes ROWS rows.
//
// Constants: TENSORS (1, 2), THREADS, ROWS, HALF (units in d/2), REST (units of a head that follow the d rotated columns; usually 0), VECTOR
// (4: a unit is four elements; 1, where d/2 or the rest is not a multiple of 4).

struct Size { rows: u32, positions: u32, sign: f32, nan: f32, pairs0: u32, pairs1: u32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> positions: array<i32>;
@group(0) @binding(1) var<storage, read> table: array<Unit>;
//#for n in 0..TENSORS
@group(0) @binding($(2 + 2 * n)) var<storage, read> x$n: array<Unit>;
@group(0) @binding($(3 + 2 * n)) var<storage, read_write> out$n: array<Unit>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
//#if ROWS == 1
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  {
//#else
  let begin = (group.x + group.y * groups.x) * $(ROWS)u;
  let end = min(begin + $(ROWS)u, size.rows);
  for (var row = begin; row < end; row++) {
//#end
    let position = bitcast<u32>(positions[row]);
    let sign = select(size.sign, size.nan, position >= size.positions);
    let angles = min(position, size.positions - 1u) * $(2 * HALF)u;
//#for n in 0..TENSORS
    // These are the units of the row that are the first of their pair, over all heads.
    for (var p = thread; p < size.pairs$n; p += $(THREADS)u) {
      let i = p % $(HALF)u;
//#if REST > 0
      let at = (row * size.pairs$n + p - i) / $(HALF)u * $(2 * HALF + REST)u + i;
//#else
      let at = row * 2u * size.pairs$n + (p - i) * 2u + i;
//#end
      let cosine = table[angles + i];
      let sine = sign * table[angles + $(HALF)u + i];
      let a = x$n[at];
      let b = x$n[at + $(HALF)u];
      out$n[at] = a * cosine - b * sine;
      out$n[at + $(HALF)u] = b * cosine + a * sine;
    }
//#if REST > 0
    // What follows the rotated part of a head, d to d + REST, passes through; it is NaN too where the position is outside the table.
    let heads$n = size.pairs$n / $(HALF)u;
    for (var p = thread; p < heads$n * $(REST)u; p += $(THREADS)u) {
      let at = (row * heads$n + p / $(REST)u) * $(2 * HALF + REST)u + $(2 * HALF)u + p % $(REST)u;
      out$n[at] = x$n[at] * (sign * sign);
    }
//#end
//#end
  }
}
