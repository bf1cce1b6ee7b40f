// Products for hardware GPUs: OUT[r][v] += row ty * 4 + r of LEFT . four rows from (v * ACROSS + tx) * 4 on of RIGHT, SLICE dimensions at a time.
//
// The ROWS rows of LEFT begin at left_row and go no further than left_last, of left_heads heads the one of left_head; the BLOCK rows of
// RIGHT likewise. Sums: OUT0_0 ... of 4 rows and VECTORS vectors.
    for (var t = 0u; t < vectors; t += $(SLICE / 4)u) {
      // Pieces of 4 rows x 4 dimensions, turned: first those of the left operand, then those of the right one.
//#for turn in 0..((ROWS + BLOCK) / 4 * SLICE / 4 + THREADS - 1) / THREADS
      {
        let piece = thread + $(turn * THREADS)u;
        let d = piece % $(SLICE / 4)u;
        let r = piece / $(SLICE / 4)u * 4u;
//#for i in 0..4
        var a$i = vec4<f32>();
//#end
        if (t + d < size.vectors) {
          if (r < $(ROWS)u) {
//#for i in 0..4
            a$i = $LEFT[(min(left_row + r + $(i)u, left_last) * left_heads + left_head) * size.vectors + t + d];
//#end
          } else if (r < $(ROWS + BLOCK)u) {
            let other = right_row + r - $(ROWS)u;
//#for i in 0..4
            a$i = $RIGHT[(min(other + $(i)u, right_last) * right_heads + right_head) * size.vectors + t + d];
//#end
          }
        }
        if (r < $(ROWS)u) {
          let at = d * $(4 * (ROWS / 4 + 1))u + r / 4u;
//#for x in 0..4
          slices[at + $(x * (ROWS / 4 + 1))u] = vec4<f32>(a0[$x], a1[$x], a2[$x], a3[$x]);
//#end
        } else if (r < $(ROWS + BLOCK)u) {
          let at = $(SLICE * (ROWS / 4 + 1))u + d * $(4 * (BLOCK / 4 + 1))u + (r - $(ROWS)u) / 4u;
//#for x in 0..4
          slices[at + $(x * (BLOCK / 4 + 1))u] = vec4<f32>(a0[$x], a1[$x], a2[$x], a3[$x]);
//#end
        }
      }
//#end
      workgroupBarrier();
//#for d in 0..SLICE
      {
        let a = slices[$(d * (ROWS / 4 + 1))u + ty];
//#for v in 0..VECTORS
        let b$v = slices[$(SLICE * (ROWS / 4 + 1) + d * (BLOCK / 4 + 1) + v * ACROSS)u + tx];
//#for r in 0..4
        $OUT$(r)_$v += a[$r] * b$v;
//#end
//#end
      }
//#end
      workgroupBarrier();
    }
