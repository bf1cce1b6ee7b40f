// Chooses the expert of the rows from `row` on, and leaves where there is none, or none whose weights are bound, or no token's row.
// The workgroup's first thread is the one whose THREAD is 0.
  if ($THREAD == 0u) { expert_of_rows = expert_tiles[row / 32u]; }
  let expert_rows = workgroupUniformLoad(&expert_of_rows);
  let expert = expert_rows.x - i32(size.first_expert);
  if (expert < 0 || expert >= i32(size.experts) || i32(row % 32u) >= expert_rows.y) { return; }
  expert_begin = u32(expert) * size.expert_values + size.expert_offset;
