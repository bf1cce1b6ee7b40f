// A weight of 4-bit integers in blocks of 256, as f32: weight(i) is value i of w, row after row; with VALUES 4, values 4 i ... 4 i + 3.
// A block has 36 words: d and dmin of 16 bits; 8 scales and 8 minima of 6 bits in 12 bytes; 128 bytes, whose low halves are 32 values and
// high halves the next 32. Value: d * scale of its 32 * half byte - dmin * minimum of its 32. Both products are exact.
// Binding 1. Constants: VALUES (1, or 4 where rows are a multiple of 4).
@group(0) @binding(1) var<storage, read> w: array<u32>;

//#include half

// Factor and offset of 32 values: d * scale, dmin * minimum.
fn scale_of(block: u32, part: u32) -> vec2<f32> {
  let shift = part % 4u * 8u;
  let scales = w[block + 1u] >> shift;
  let minima = w[block + 2u] >> shift;
  let upper = w[block + 3u] >> shift;
  let later = part >= 4u;
  let scale = select(scales & 63u, (upper & 15u) | ((scales >> 2u) & 48u), later);
  let minimum = select(minima & 63u, ((upper >> 4u) & 15u) | ((minima >> 2u) & 48u), later);
  let d = w[block];
  return vec2<f32>(half(d) * f32(scale), half(d >> 16u) * f32(minimum));
}

//#if VALUES == 4
alias Weight = vec4<f32>;

fn weight(i: u32) -> Weight {
  let block = i / 64u * 36u;
  let place = i % 64u;
  let part = place / 8u;
  let bytes = w[block + 4u + part / 2u * 8u + place % 8u] >> (part % 2u * 4u);
  let scale = scale_of(block, part);
  return scale.x * vec4<f32>(vec4<u32>(bytes, bytes >> 8u, bytes >> 16u, bytes >> 24u) & vec4(15u)) - scale.y;
}
//#else
alias Weight = f32;

fn weight(i: u32) -> Weight {
  let block = i / 256u * 36u;
  let place = i % 256u;
  let part = place / 32u;
  let bytes = w[block + 4u + part / 2u * 8u + place % 32u / 4u];
  let scale = scale_of(block, part);
  return scale.x * f32((bytes >> (place % 4u * 8u + part % 2u * 4u)) & 15u) - scale.y;
}
//#end
