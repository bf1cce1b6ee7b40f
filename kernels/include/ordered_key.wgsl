// An integer that is larger where z is; both zeros are one.
fn key_of(z: f32) -> u32 {
  let bits = bitcast<u32>(select(z, 0.0, z == 0.0));
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
