// Chooses the rows of this tile and their expert, and leaves where there is none, or none whose weights are bound, or no token's row.
// Tiles are numbered columns first: those that share an expert's weight are neighbours.
//
// For TN chooses the expert whose gradient this tile is a part of, and the rows that are summed: there may be none.
//
// Constants: ROWS of a tile; THREAD is 0 in one thread of the workgroup.
//#if ORIENTATION == TN
  let expert = tile / (size.tiles_m * size.tiles_n);
  let row = tile / size.tiles_n % size.tiles_m * $(ROWS)u;
  if ($THREAD == 0u) { own_rows = expert_rows[expert]; }
  let range = workgroupUniformLoad(&own_rows);
  let first_row = u32(range.x);
  expert_begin = first_row * size.n;
//#else
  let row = tile / size.tiles_n * $(ROWS)u;
  if ($THREAD == 0u) { own_rows = expert_rows[row / 32u]; }
  let tile_rows = workgroupUniformLoad(&own_rows);
  let expert = tile_rows.x - i32(size.first_expert);
  if (expert < 0 || expert >= i32(size.experts) || i32(row % 32u) >= tile_rows.y) { return; }
  expert_begin = u32(expert) * size.expert_values + size.expert_offset;
//#end
