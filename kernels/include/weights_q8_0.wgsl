// A weight of 8-bit integers, as f32: weight(i) is value i of w, row after row; with VALUES 4, values 4 i ... 4 i + 3.
// 17 words hold 64 values: two scales of 16 bits, then 64 signed bytes. Value: scale of its 32 times byte.
// Binding 1. Constants: VALUES (1, or 4 where rows are a multiple of 4).
@group(0) @binding(1) var<storage, read> w: array<u32>;

//#include half

//#if VALUES == 4
alias Weight = vec4<f32>;

fn weight(i: u32) -> Weight {
  let block = i / 16u * 17u;
  let place = i % 16u;
  let bytes = w[block + 1u + place];
  let scale = half(w[block] >> (place / 8u * 16u));
  return scale * vec4<f32>(vec4<i32>(vec4<u32>(bytes << 24u, bytes << 16u, bytes << 8u, bytes)) >> vec4(24u));
}
//#else
alias Weight = f32;

fn weight(i: u32) -> Weight {
  let block = i / 64u * 17u;
  let place = i % 64u;
  let bytes = w[block + 1u + place / 4u];
  let scale = half(w[block] >> (place / 32u * 16u));
  return scale * f32(bitcast<i32>(bytes << (24u - place % 4u * 8u)) >> 24u);
}
//#end
