// Philox 4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011); the same as in src/base/random.ts.

// Both halves of a 32 x 32 bit product: (high, low).
fn multiply(a: u32, b: u32) -> vec2<u32> {
  let a0 = a & 0xffffu;
  let a1 = a >> 16u;
  let b0 = b & 0xffffu;
  let b1 = b >> 16u;
  let low = a0 * b0;
  let middle1 = a1 * b0 + (low >> 16u);
  let middle2 = a0 * b1 + (middle1 & 0xffffu);
  return vec2<u32>(a1 * b1 + (middle1 >> 16u) + (middle2 >> 16u), a * b);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
  var c = counter;
  var k = key;
//#for round in 0..10
  {
    let p = multiply(0xd2511f53u, c.x);
    let q = multiply(0xcd9e8d57u, c.z);
    c = vec4<u32>(q.x ^ c.y ^ k.x, q.y, p.x ^ c.w ^ k.y, p.y);
    k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
//#end
  return c;
}
