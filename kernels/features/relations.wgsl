// Relations of each position to others of its sample, in two models, compared: one value a position and head; no [T, T] matrix.
//
//   a[i, j] = x_scale * x[i, h] . x[j, h],  b[i, j] = y_scale * y[i, h] . y[j, h]   for the keys j of i
//   RELATION = softmax: values[h, i] = KL(softmax_j b || softmax_j a), stats[h, i] = (log sum_j exp a, log sum_j exp b)
//   RELATION = cosine:  values[h, i] = 1 - cos(a[i], b[i]), stats[h, i] = its derivative's factors of (a, b)
//
// Keys are start[i] <= j < end[i]; CAUSAL: and j <= i; MASKED: and keys[j] != 0. Without keys value and stats are 0, as is the value where
// all of a[i] or of b[i] is 0. Sums are online (Milakov and Gimelshein, arXiv 1805.02867).
//
// Bindings: x [T, heads * dx], y [T, heads * dy], start and end i32 [T], keys i32 [T] where MASKED, values [heads, T], stats [heads, T] of 2.
// A workgroup of THREADS makes 4 rows of one head, a thread every THREADSth key; the 4 rows are the lanes of a vector.
// Constants: THREADS, RELATION, CAUSAL, MASKED, VECTOR (4; or 1, where dx or dy is not a multiple of 4).

//#include relations_size

@group(0) @binding(0) var<storage, read> x: array<Unit>;
@group(0) @binding(1) var<storage, read> y: array<Unit>;
@group(0) @binding(2) var<storage, read> start: array<i32>;
@group(0) @binding(3) var<storage, read> end: array<i32>;
//#if MASKED
@group(0) @binding(4) var<storage, read> keys: array<i32>;
@group(0) @binding(5) var<storage, read_write> values: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<vec2<f32>>;
//#else
@group(0) @binding(4) var<storage, read_write> values: array<f32>;
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

//#for n in 0..5
var<workgroup> partial$n: array<vec4<f32>, $THREADS>;
//#end

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= size.total) { return; }
  // The z is always 0. A loop bound that is plainly a uniform makes Mesa compile the kernel anew for each value of it.
  let x_units = size.x_units + group.z;
  let y_units = size.y_units + group.z;
  let head = tile / size.tiles;
  let row = tile % size.tiles * 4u;

  var first = vec4<i32>(0x7fffffff);
  var last = vec4<i32>(0);
//#for r in 0..4
  if (row + $(r)u < size.rows) {
    let from_key = max(start[row + $(r)u], 0);
//#if CAUSAL
    let to_key = min(end[row + $(r)u], i32(row + $(r + 1)u));
//#else
    let to_key = min(end[row + $(r)u], i32(size.rows));
//#end
    if (from_key < to_key) {
      first[$r] = from_key;
      last[$r] = to_key;
    }
  }
  let at$r = min(row + $(r)u, size.rows - 1u) * size.heads + head;
//#end
  let lowest = min(min(first.x, first.y), min(first.z, first.w));
  let highest = max(max(last.x, last.y), max(last.z, last.w));

//#if RELATION == softmax
  var a_top = vec4<f32>(-1e30);
  var a_sum = vec4<f32>();
  var b_top = vec4<f32>(-1e30);
  var b_sum = vec4<f32>();
  var gap = vec4<f32>(); // sum of exp(b - b_top) (b - a)
//#else
  var ab = vec4<f32>();
  var aa = vec4<f32>();
  var bb = vec4<f32>();
//#end
  for (var j = lowest + i32(thread); j < highest; j += $(THREADS)) {
    let key = u32(j) * size.heads + head;
//#include relations_products
//#if MASKED
    let seen = (vec4<i32>(j) >= first) & (vec4<i32>(j) < last) & vec4<bool>(keys[j] != 0);
//#else
    let seen = (vec4<i32>(j) >= first) & (vec4<i32>(j) < last);
//#end
//#if RELATION == softmax
    let a_now = select(a_top, max(a_top, a), seen);
    a_sum = a_sum * exp(a_top - a_now) + select(vec4<f32>(), exp(a - a_now), seen);
    a_top = a_now;
    let b_now = select(b_top, max(b_top, b), seen);
    let weight = select(vec4<f32>(), exp(b - b_now), seen);
    b_sum = b_sum * exp(b_top - b_now) + weight;
    gap = gap * exp(b_top - b_now) + weight * (b - a);
    b_top = b_now;
//#else
    ab += select(vec4<f32>(), a * b, seen);
    aa += select(vec4<f32>(), a * a, seen);
    bb += select(vec4<f32>(), b * b, seen);
//#end
  }

//#include turns
  let broken = vec4<f32>(bitcast<f32>(0x7fc00000u + group.z));
//#if RELATION == softmax
  gap = select(broken, gap, alive == 1u);
  partial0[thread] = a_top;
  partial1[thread] = a_sum;
  partial2[thread] = b_top;
  partial3[thread] = b_sum;
  partial4[thread] = gap;
//#else
  ab = select(broken, ab, alive == 1u);
  partial0[thread] = ab;
  partial1[thread] = aa;
  partial2[thread] = bb;
//#end
  workgroupBarrier();
  if (thread != 0u) { return; }
//#if RELATION == softmax
  for (var i = 1u; i < $(THREADS)u; i++) {
    let a_now = max(a_top, partial0[i]);
    a_sum = a_sum * exp(a_top - a_now) + partial1[i] * exp(partial0[i] - a_now);
    a_top = a_now;
    let b_now = max(b_top, partial2[i]);
    let mine = exp(b_top - b_now);
    let other = exp(partial2[i] - b_now);
    b_sum = b_sum * mine + partial3[i] * other;
    gap = gap * mine + partial4[i] * other;
    b_top = b_now;
  }
  let any_key = b_sum > vec4<f32>();
  let a_log = select(vec4<f32>(), a_top + log(a_sum), any_key);
  let b_log = select(vec4<f32>(), b_top + log(b_sum), any_key);
  let value = select(vec4<f32>(), gap / b_sum + (a_log - b_log), any_key);
  let stat0 = a_log;
  let stat1 = b_log;
//#else
  for (var i = 1u; i < $(THREADS)u; i++) {
    ab += partial0[i];
    aa += partial1[i];
    bb += partial2[i];
  }
  let compared = (aa > vec4<f32>()) & (bb > vec4<f32>());
  let inverse = 1.0 / (sqrt(aa) * sqrt(bb));
  let value = select(vec4<f32>(), 1.0 - ab * inverse, compared);
  let stat0 = select(vec4<f32>(), ab * inverse / aa, compared);
  let stat1 = select(vec4<f32>(), -inverse, compared);
//#end
//#for r in 0..4
  if (row + $(r)u < size.rows) {
    values[head * size.rows + row + $(r)u] = value[$r];
    stats[head * size.rows + row + $(r)u] = vec2<f32>(stat0[$r], stat1[$r]);
  }
//#end
}
