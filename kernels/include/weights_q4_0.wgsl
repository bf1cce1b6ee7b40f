// A weight of 4-bit integers, as f32: weight(i) is value i of w, row after row; with VALUES 4, values 4 i ... 4 i + 3.
// 9 words hold 64 values: two scales of 16 bits, then twice 16 bytes. Of 32 values, the first 16 are low halves of bytes, the others high
// ones. Value: scale of its 32 times (half byte - 8).
// Binding 1. Constants: VALUES (1, or 4 where rows are a multiple of 4).
@group(0) @binding(1) var<storage, read> w: array<u32>;

//#include half

//#if VALUES == 4
alias Weight = vec4<f32>;

fn weight(i: u32) -> Weight {
  let block = i / 16u * 9u;
  let place = i % 16u;
  let second = place / 8u;
  let bytes = w[block + 1u + second * 4u + place % 4u] >> (place / 4u % 2u * 4u);
  let scale = half(w[block] >> (second * 16u));
  return scale * vec4<f32>(vec4<i32>(vec4<u32>(bytes, bytes >> 8u, bytes >> 16u, bytes >> 24u) & vec4(15u)) - 8);
}
//#else
alias Weight = f32;

fn weight(i: u32) -> Weight {
  let block = i / 64u * 9u;
  let place = i % 64u;
  let second = place / 32u;
  let bytes = w[block + 1u + second * 4u + place % 16u / 4u];
  let scale = half(w[block] >> (second * 16u));
  return scale * f32(i32((bytes >> (place % 4u * 8u + place / 16u % 2u * 4u)) & 15u) - 8);
}
//#end
