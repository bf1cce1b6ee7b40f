// Chooses the rows of this tile and their expert, and leaves where there is none, or none whose weights are bound, or no token's row.
// Tiles are numbered columns first: those that share an expert's weight are neighbours.
//
// Constants: ROWS of a tile; THREAD is 0 in one thread of the workgroup.
  let row = tile / size.tiles_n * $(ROWS)u;
  if ($THREAD == 0u) { expert_of_rows = expert_tiles[row / 32u]; }
  let expert_rows = workgroupUniformLoad(&expert_of_rows);
  let expert = expert_rows.x - i32(size.first_expert);
  if (expert < 0 || expert >= i32(size.experts) || i32(row % 32u) >= expert_rows.y) { return; }
  expert_begin = u32(expert) * size.expert_values + size.expert_offset;
