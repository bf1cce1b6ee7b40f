// Gradient of a norm's weight: dw[h] = sum_t dy[t, h] * x[t, h] * scale[t], in two levels. With CENTRED for x the rest over its mean[t].
//
// Level 1 sums blocks of 32 rows: block_sums[b, h], 32 b <= t < 32 (b + 1). Bindings: x [T, H], dy [T, H], scale [T], with CENTRED
// mean [T], block_sums [blocks, H]. Level 2 sums the blocks. Bindings: block_sums [blocks, H], dw [H].
// A workgroup of 64 handles 64 columns of one block. Constants: LEVEL, CENTRED.

struct Size { rows: u32, width: u32, columns: u32, groups: u32 }

//#if LEVEL == 1
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
//#if CENTRED
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
//#else
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//#end
//#else
@group(0) @binding(0) var<storage, read> block_sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups) { return; }
  let h = (index % size.columns) * 64u + thread;
  let block = index / size.columns;
  if (h >= size.width) { return; }
  var sum = 0.0;
//#if LEVEL == 1
  let first = block * 32u;
  let end = min(first + 32u, size.rows);
//#else
  let first = 0u;
  let end = size.rows;
//#end
  for (var t = first; t < end; t++) {
//#if LEVEL == 1 && CENTRED
    sum += (x[t * size.width + h] - mean[t]) * scale[t] * dy[t * size.width + h];
//#else
//#if LEVEL == 1
    sum += x[t * size.width + h] * scale[t] * dy[t * size.width + h];
//#else
    sum += block_sums[t * size.width + h];
//#end
//#end
  }
  out[block * size.width + h] = sum;
}
