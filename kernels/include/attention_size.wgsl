// What the kernels of attention have in common: their sizes.
struct Size {
  queries: u32, keys: u32, heads: u32, group: u32,
  vectors: u32, tiles: u32, total: u32, factor: f32, // D / 4; tiles of queries or keys; workgroups; scale * log2(e)
  scale: f32, blocks: u32,                           // blocks: of 16 queries, for gradients of keys
}
