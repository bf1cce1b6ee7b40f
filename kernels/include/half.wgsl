// The f16 in the lower half of a word, exactly: a conversion of the device may take its smallest numbers for zero. It is finite.
fn half(word: u32) -> f32 {
  let magnitude = word & 0x7fffu;
  let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
  let value = select(normal, f32(magnitude) * 0x1p-24, magnitude < 0x400u);
  return bitcast<f32>(bitcast<u32>(value) | ((word & 0x8000u) << 16u));
}
