// Sizes and numbers of one launch of a matrix product; with TOGETHER > 0 of several products, at most so many, of which each z makes one.
struct Size {
  m: u32, n: u32, k: u32, k2: u32,
  x_stride: u32, x_column: u32, out_stride: u32, out_column: u32,
  tiles_m: u32, tiles: u32, has_addend: u32, accumulate: u32,
  keep: u32, factor: f32, ratio: f32, part_depth: u32, // of a part, where K is split between workgroups
//#if TOGETHER > 0
  x_begin: u32, w_begin: u32, out_begin: u32, spare: u32, // where this product's operands begin in what is bound for all
//#end
//#if ROPE
  half: u32, head_pairs: u32, positions: u32, nan: f32, // pairs of a head that are turned, and all; positions that have angles
//#end
//#if EXPERTS
  first_expert: u32, experts: u32, expert_values: u32, expert_offset: u32, // of those bound; of each; of where k begins
  tiles_n: u32,
//#end
}

//#if TOGETHER > 0
@group(1) @binding(0) var<uniform> sizes: array<Size, $TOGETHER>;
var<private> size: Size; // for functions: those of main shadow it, which the compiler knows to be the same in all threads

fn begin_product(member: u32) {
  size = sizes[member];
}
//#else
@group(1) @binding(0) var<uniform> size: Size;
//#end
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;
