// Rotary position embedding (Su et al., arXiv 2104.09864) with pairs (i, i + d/2) within a head of width d, as Hugging Face has it:
//
//   out[t, i]       = x[t, i]       * cos - x[t, i + d/2] * sin
//   out[t, i + d/2] = x[t, i + d/2] * cos + x[t, i]       * sin      with cos, sin = table[positions[t], i], [.., i + d/2]
//
// With sign = -1 the rotation goes the other way: the backward pass. A position outside the table gives NaN.
//
// Bindings: x [T, heads * (d + rest)], positions i32 [T], table [P, d] (d/2 cosines, then d/2 sines), out as x.
// A workgroup of THREADS makes one row.
//
// Constants: THREADS, HALF (units in d/2), REST (units of a head that follow the d rotated columns; usually 0), VECTOR (4: a unit is four
// elements; 1, where d/2 or the rest is not a multiple of 4).

struct Size { rows: u32, pairs: u32, positions: u32, sign: f32, nan: f32 }

//#if VECTOR == 4
alias Unit = vec4<f32>;
//#else
alias Unit = f32;
//#end

@group(0) @binding(0) var<storage, read> x: array<Unit>;
@group(0) @binding(1) var<storage, read> positions: array<i32>;
@group(0) @binding(2) var<storage, read> table: array<Unit>;
@group(0) @binding(3) var<storage, read_write> out: array<Unit>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= size.rows) { return; }
  let position = bitcast<u32>(positions[row]);
  let sign = select(size.sign, size.nan, position >= size.positions);
  let angles = min(position, size.positions - 1u) * $(2 * HALF)u;
  // `pairs` units of this row are the first of their pair, over all heads.
  for (var p = thread; p < size.pairs; p += $(THREADS)u) {
    let i = p % $(HALF)u;
//#if REST > 0
    let at = (row * size.pairs + p - i) / $(HALF)u * $(2 * HALF + REST)u + i;
//#else
    let at = row * 2u * size.pairs + (p - i) * 2u + i;
//#end
    let cosine = table[angles + i];
    let sine = sign * table[angles + $(HALF)u + i];
    let a = x[at];
    let b = x[at + $(HALF)u];
    out[at] = a * cosine - b * sine;
    out[at + $(HALF)u] = b * cosine + a * sine;
  }
//#if REST > 0
  // What follows the rotated part of a head, d to d + REST, passes through; it is NaN too where the position is outside the table.
  let heads = size.pairs / $(HALF)u;
  for (var p = thread; p < heads * $(REST)u; p += $(THREADS)u) {
    let at = (row * heads + p / $(REST)u) * $(2 * HALF + REST)u + $(2 * HALF)u + p % $(REST)u;
    out[at] = x[at] * (sign * sign);
  }
//#end
}
