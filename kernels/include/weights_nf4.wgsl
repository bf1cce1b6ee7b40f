// A weight of 4-bit codes for normally distributed values (NF4: Dettmers et al., arXiv 2305.14314), as f32: weight(i) is value i of w, row
// after row; with VALUES 4, values 4 i ... 4 i + 3. Blocks of 64 values run across the ends of rows.
// nf4: 9 words hold a block: its largest magnitude, f32, then 32 bytes of two codes, the first in the upper half. Value: NF4[code] * magnitude.
// Else, quantised twice: 266 words hold 32 blocks: a factor and an offset, f32; a byte for each block, whose dynamic value times the factor
// plus the offset is the block's magnitude; then the codes of all.
// Binding 1. Constants: WEIGHT (nf4, nf4-double), VALUES (1, or 4 where rows are a multiple of 4).
@group(0) @binding(1) var<storage, read> w: array<u32>;

// Not a constant: indexed by a variable, that would be copied each time.
var<private> NF4: array<f32, 16> = array<f32, 16>(
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
  -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
);

//#if WEIGHT == nf4
// The magnitude of a block.
fn magnitude_of(block: u32) -> f32 {
  return bitcast<f32>(w[block * 9u]);
}

// Where a word of a block's codes is.
fn codes_at(block: u32, word: u32) -> u32 {
  return block * 9u + 1u + word;
}
//#else
// A boundary of the dynamic map: 0.1 + 0.9 i / n, n a power of two with the given inverse, from the nearer end. 0.9 in two parts, so that
// products are exact.
fn boundary(i: u32, n: u32, inverse: f32) -> f32 {
  let near = 2u * i <= n;
  let steps = select(f32(i) - f32(n), f32(i), near) * inverse;
  return (select(1.0, 0.1, near) + 0.00009763240814208984 * steps) + 0.89990234375 * steps;
}

// The value of a code of the signed dynamic map: between 10^(e-7) and 10^(e-6), the middles of 2^e equal parts; 0 and 1. That map is made
// with roundings of its own: four codes differ from this by one unit.
fn dynamic(code: u32) -> f32 {
  let place = i32(code) - 127;
  let size = u32(abs(place));
  let e = firstLeadingBit(max(size, 1u));
  let n = 1u << e;
  let inverse = bitcast<f32>((127u - e) << 23u);
  let middle = 0.5 * (boundary(size - n, n, inverse) + boundary(size - n + 1u, n, inverse));
  let power = select(
    select(select(1e-3, 1e-2, e == 4u), select(1e-1, 1.0, e == 6u), e >= 5u),
    select(select(1e-6, 1e-5, e == 1u), 1e-4, e == 2u),
    e < 3u,
  );
  let unit = select(0, 1, size == 40u) - select(0, 1, size == 43u || size == 47u || size == 93u);
  let value = bitcast<f32>(bitcast<i32>(power * middle) + unit);
  let whole = select(value, f32(size / 128u), size == 0u || size == 128u);
  return select(whole, -whole, place < 0);
}

fn magnitude_of(block: u32) -> f32 {
  let group = block / 32u * 266u;
  let place = block % 32u;
  let code = (w[group + 2u + place / 4u] >> (place % 4u * 8u)) & 255u;
  return dynamic(code) * bitcast<f32>(w[group]) + bitcast<f32>(w[group + 1u]);
}

fn codes_at(block: u32, word: u32) -> u32 {
  return block / 32u * 266u + 10u + block % 32u * 8u + word;
}
//#end

//#if VALUES == 4
alias Weight = vec4<f32>;

fn weight(i: u32) -> Weight {
  let block = i / 16u;
  let place = i % 16u;
  let bytes = w[codes_at(block, place / 2u)] >> (place % 2u * 16u);
  let codes = vec4<u32>(bytes >> 4u, bytes, bytes >> 12u, bytes >> 8u) & vec4(15u);
  return magnitude_of(block) * vec4<f32>(NF4[codes.x], NF4[codes.y], NF4[codes.z], NF4[codes.w]);
}
//#else
alias Weight = f32;

fn weight(i: u32) -> Weight {
  let block = i / 64u;
  let place = i % 64u;
  let bytes = w[codes_at(block, place / 8u)];
  return magnitude_of(block) * NF4[(bytes >> ((place ^ 1u) % 8u * 4u)) & 15u];
}
//#end
