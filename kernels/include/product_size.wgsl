// Sizes and numbers of one launch of a matrix product.
struct Size {
  m: u32, n: u32, k: u32, k2: u32,
  x_stride: u32, x_column: u32, out_stride: u32, out_column: u32,
  tiles_m: u32, tiles: u32, has_addend: u32, accumulate: u32,
  keep: u32, factor: f32, ratio: f32, part_depth: u32, // of a part, where K is split between workgroups
//#if EXPERTS
  first_expert: u32, experts: u32, expert_values: u32, expert_offset: u32, // of those bound; of each; of where k begins
  tiles_n: u32,
//#end
}

@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;
