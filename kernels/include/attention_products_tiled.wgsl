// 32 x 32 products for hardware GPUs: OUT[r][c] += row ty * 4 + r of LEFT . row tx * 4 + c of RIGHT, 16 dimensions at a time.
//
// The 32 rows of LEFT begin at left_row and go no further than left_last, of left_heads heads the one of left_head; those of RIGHT
// likewise. Sums: OUT0 ... OUT3, a row each.
    for (var t = 0u; t < vectors; t += 4u) {
      // A block of 4 rows x 4 dimensions a thread, turned: the first 32 threads the left operand, the others the right one.
      {
        let d = thread % 4u;
        let r = thread / 4u % 8u * 4u;
//#for i in 0..4
        var a$i = vec4<f32>();
//#end
        if (t + d < size.vectors) {
          if (thread < 32u) {
//#for i in 0..4
            a$i = $LEFT[(min(left_row + r + $(i)u, left_last) * left_heads + left_head) * size.vectors + t + d];
//#end
          } else {
//#for i in 0..4
            a$i = $RIGHT[(min(right_row + r + $(i)u, right_last) * right_heads + right_head) * size.vectors + t + d];
//#end
          }
        }
        let at = thread / 32u * 144u + d * 36u + r / 4u;
//#for x in 0..4
        slices[at + $(x * 9)u] = vec4<f32>(a0[$x], a1[$x], a2[$x], a3[$x]);
//#end
      }
      workgroupBarrier();
//#for d in 0..16
      {
        let a = slices[$(d * 9)u + ty];
        let b = slices[$(144 + d * 9)u + tx];
//#for r in 0..4
        $OUT$r += a[$r] * b;
//#end
      }
//#end
      workgroupBarrier();
    }
