// A weight in its storage, as f32: weight(i) is value i of w, row after row; with VALUES 4, values 4 i ... 4 i + 3.
// Binding 1. Constants: WEIGHT (f32, f16, bf16), VALUES (1, or 4 where rows are a multiple of 4).
//#if VALUES == 4
alias Weight = vec4<f32>;
//#else
alias Weight = f32;
//#end
//#if WEIGHT == f32
@group(0) @binding(1) var<storage, read> w: array<Weight>;

fn weight(i: u32) -> Weight {
  return w[i];
}
//#else
//#if VALUES == 4
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>;

fn weight(i: u32) -> Weight {
  let p = w[i];
//#if WEIGHT == f16
  return vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y));
//#else
  return bitcast<vec4<f32>>(vec4<u32>(p.x << 16u, p.x & 0xffff0000u, p.y << 16u, p.y & 0xffff0000u));
//#end
}
//#else
@group(0) @binding(1) var<storage, read> w: array<u32>;

fn weight(i: u32) -> Weight {
  let p = w[i / 2u];
//#if WEIGHT == f16
  return unpack2x16float(p)[i % 2u];
//#else
  return bitcast<f32>(select(p << 16u, p & 0xffff0000u, i % 2u == 1u));
//#end
}
//#end
//#end
