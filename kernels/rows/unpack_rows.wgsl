// Values of rows that are stored in BITS bits, two or four of them in a word, the first in the lowest bits: out[r, c].
// 16 bits are bf16, the upper half of an f32; 8 bits are an integer in two's complement, times the row's scale.
//
// Bindings: packed u32 [R, words], for 8 bits scales f32 [R, 1], out f32 [R, W]; words = ceil(W * BITS / 32). A workgroup of 64
// handles 64 values. Constants: BITS (8 or 16).

struct Size { elements: u32, groups: u32, width: u32, words: u32 }

@group(0) @binding(0) var<storage, read> packed: array<u32>;
//#if BITS == 8
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
//#else
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
//#end
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let place = (group.x + group.y * groups.x) * 64u + thread;
  if (place >= size.elements) { return; }
  let row = place / size.width;
  let column = place - row * size.width;
//#if BITS == 8
  let word = packed[row * size.words + (column >> 2u)];
  let code = bitcast<i32>(word << (24u - 8u * (column & 3u))) >> 24u;
  out[place] = f32(code) * scales[row];
//#else
  let word = packed[row * size.words + (column >> 1u)];
  out[place] = bitcast<f32>(select(word << 16u, word & 0xffff0000u, (column & 1u) == 1u));
//#end
}
