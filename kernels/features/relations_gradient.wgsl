// Gradient of the comparison of relations with respect to x (see relations.wgsl; y is constant), without a [T, T] matrix or atomics.
//
// A position takes part as the one that is compared and as a key of others. With a[i, j] = a[j, i] both need the same products:
//   dx[i, h] = x_scale * sum_j (above[h, i] slope[i, j] + above[h, j] slope[j, i]) x[j, h],  each where j is a key of i, or i of j;
//   slope[i, j] = exp(a - stats[h, i].x) - exp(b - stats[h, i].y)  for RELATION = softmax,
//                 stats[h, i].x a + stats[h, i].y b                for RELATION = cosine.
//
// All positions of a sample have one range start ... end, so it holds all that matter to one of them.
//
// Bindings: x [T, heads * dx], y [T, heads * dy], start and end i32 [T], keys i32 [T] where MASKED, stats [heads, T] of 2,
// above [heads, T], dx as x. A workgroup of THREADS makes 4 rows of one head, THREADS keys at a time: first a thread a key, then a thread
// every THREADSth column. Constants: as in relations.wgsl.

//#include relations_size

@group(0) @binding(0) var<storage, read> x: array<Unit>;
@group(0) @binding(1) var<storage, read> y: array<Unit>;
@group(0) @binding(2) var<storage, read> start: array<i32>;
@group(0) @binding(3) var<storage, read> end: array<i32>;
//#if MASKED
@group(0) @binding(4) var<storage, read> keys: array<i32>;
@group(0) @binding(5) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read> above: array<f32>;
@group(0) @binding(7) var<storage, read_write> dx: array<Unit>;
//#else
@group(0) @binding(4) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read> above: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<Unit>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

var<workgroup> weights: array<vec4<f32>, $THREADS>; // of a key in the 4 rows
var<workgroup> hull: vec2<i32>;

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
  var stat0 = vec4<f32>();
  var stat1 = vec4<f32>();
  var upper = vec4<f32>();
  var is_key = vec4<bool>();
//#for r in 0..4
  if (row + $(r)u < size.rows) {
    let from_key = max(start[row + $(r)u], 0);
    let to_key = min(end[row + $(r)u], i32(size.rows));
    if (from_key < to_key) {
      first[$r] = from_key;
      last[$r] = to_key;
    }
    let stat = stats[head * size.rows + row + $(r)u];
    stat0[$r] = stat.x;
    stat1[$r] = stat.y;
    upper[$r] = above[head * size.rows + row + $(r)u];
//#if MASKED
    is_key[$r] = keys[row + $(r)u] != 0;
//#else
    is_key[$r] = true;
//#end
  }
  let at$r = min(row + $(r)u, size.rows - 1u) * size.heads + head;
//#end
  if (thread == 0u) {
    hull = vec2<i32>(min(min(first.x, first.y), min(first.z, first.w)), max(max(last.x, last.y), max(last.z, last.w)));
  }
  let range = workgroupUniformLoad(&hull);

  for (var u = thread; u < x_units; u += $(THREADS)u) {
//#for r in 0..4
    if (row + $(r)u < size.rows) { dx[at$r * size.x_units + u] = Unit(); }
//#end
  }
  for (var base = range.x; base < range.y; base += $(THREADS)) {
    let j = base + i32(thread);
    var w = vec4<f32>();
    if (j < range.y) {
      let key = u32(j) * size.heads + head;
//#include relations_products
      let stat = stats[head * size.rows + u32(j)];
      let inside = (vec4<i32>(j) >= first) & (vec4<i32>(j) < last);
//#if MASKED
      let j_is_key = vec4<bool>(keys[j] != 0);
//#else
      let j_is_key = vec4<bool>(true);
//#end
//#if CAUSAL
      let i = vec4<i32>(i32(row)) + vec4<i32>(0, 1, 2, 3);
      let as_row = inside & j_is_key & (vec4<i32>(j) <= i);
      let as_key = inside & is_key & (i <= vec4<i32>(j));
//#else
      let as_row = inside & j_is_key;
      let as_key = inside & is_key;
//#end
//#if RELATION == softmax
      let row_slope = exp(a - stat0) - exp(b - stat1);
      let key_slope = exp(a - stat.x) - exp(b - stat.y);
//#else
      let row_slope = stat0 * a + stat1 * b;
      let key_slope = stat.x * a + stat.y * b;
//#end
      w = select(vec4<f32>(), upper * row_slope, as_row);
      w += select(vec4<f32>(), above[head * size.rows + u32(j)] * key_slope, as_key);
    }
    weights[thread] = w * size.x_scale;
    workgroupBarrier();
    let count = u32(min(range.y - base, $(THREADS)));
    for (var u = thread; u < x_units; u += $(THREADS)u) {
//#for r in 0..4
      var sum$r = Unit();
//#end
      for (var k = 0u; k < count; k++) {
        let value = x[((u32(base) + k) * size.heads + head) * size.x_units + u];
        let weight = weights[k];
//#for r in 0..4
        sum$r += weight[$r] * value;
//#end
      }
//#for r in 0..4
      if (row + $(r)u < size.rows) { dx[at$r * size.x_units + u] += sum$r; }
//#end
    }
    workgroupBarrier();
  }

//#include turns
  for (var u = thread; u < x_units && alive == 0u; u += $(THREADS)u) {
//#for r in 0..4
    if (row + $(r)u < size.rows) { dx[at$r * size.x_units + u] = Unit(bitcast<f32>(0x7fc00000u + group.z)); }
//#end
  }
}
