// What the kernels of attention have in common: their sizes.
struct Size {
  queries: u32, keys: u32, heads: u32, group: u32,
  vectors: u32, tiles: u32, total: u32, factor: f32, // D / 4; tiles of queries or keys; workgroups; scale * log2(e)
  scale: f32, blocks: u32,                           // blocks: of 16 queries, for gradients of keys
//#if SOFT_CAP
  inner: f32,                                        // scale / cap; factor is cap * log2(e)
//#end
}
//#if SOFT_CAP

// With a soft cap a score is cap * tanh(scale * q . k / cap): the product becomes the tanh, then meets its factor as without a cap; the
// gradient of a score is multiplied by 1 - tanh^2.
$TANH
//#end
