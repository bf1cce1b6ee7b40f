// A weight of 6-bit integers in blocks of 256, as f32: weight(i) is value i of w, row after row; with VALUES 4, values 4 i ... 4 i + 3.
// 105 words hold two blocks: their d of 16 bits, then for each 128 bytes of the lower four bits, 64 of the upper two, 16 signed scales.
// Half a block is four times 32 values: their lower bits are the low halves of 32 bytes, of the next 32, then the high halves; their upper
// bits are pairs of bits of the same 32 bytes, lowest first. Value: d * scale of its 16 * (integer - 32).
// Binding 1. Constants: VALUES (1, or 4 where rows are a multiple of 4).
@group(0) @binding(1) var<storage, read> w: array<u32>;

//#include half

//#if VALUES == 4
alias Weight = vec4<f32>;

fn weight(i: u32) -> Weight {
  let pair = i / 128u * 105u;
  let second = i / 64u % 2u;
  let block = pair + 1u + second * 52u;
  let part = i / 32u % 2u; // half of the block
  let quarter = i / 8u % 4u; // of the half
  let place = i % 8u; // word of the quarter
  let lower = w[block + part * 16u + quarter % 2u * 8u + place] >> (quarter / 2u * 4u);
  let upper = w[block + 32u + part * 8u + place] >> (quarter * 2u);
  let scales = w[block + 48u + part * 2u + quarter / 2u];
  let scale = bitcast<i32>(scales << (24u - (quarter % 2u * 16u + place / 4u * 8u))) >> 24u;
  let bits = vec4<u32>(lower, lower >> 8u, lower >> 16u, lower >> 24u) & vec4(15u);
  let more = (vec4<u32>(upper, upper >> 8u, upper >> 16u, upper >> 24u) & vec4(3u)) << vec4(4u);
  return half(w[pair] >> (second * 16u)) * f32(scale) * vec4<f32>(vec4<i32>(bits | more) - 32);
}
//#else
alias Weight = f32;

fn weight(i: u32) -> Weight {
  let pair = i / 512u * 105u;
  let second = i / 256u % 2u;
  let block = pair + 1u + second * 52u;
  let part = i / 128u % 2u;
  let quarter = i / 32u % 4u;
  let place = i / 4u % 8u;
  let byte = i % 4u * 8u;
  let lower = w[block + part * 16u + quarter % 2u * 8u + place] >> (quarter / 2u * 4u + byte);
  let upper = w[block + 32u + part * 8u + place] >> (quarter * 2u + byte);
  let scales = w[block + 48u + part * 2u + quarter / 2u];
  let scale = bitcast<i32>(scales << (24u - (quarter % 2u * 16u + place / 4u * 8u))) >> 24u;
  return half(w[pair] >> (second * 16u)) * f32(scale) * f32(i32((lower & 15u) | ((upper & 3u) << 4u)) - 32);
}
//#end
