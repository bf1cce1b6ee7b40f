// Weighted sums for hardware GPUs: OUT[c][r] += sum_j weights[j][ty * 4 + r] row j of RIGHT, of its columns part + c * ACROSS + tx.
//
// The sum over the BLOCK rows is made on its own: one long sum rounds each product to the size of all before it. HELD rows at a time lie in
// `slices`. RIGHT and its rows as in attention_products_tiled. Sums: OUT0_0 ... of COLUMNS vectors of four columns and 4 rows.
//#for c in 0..COLUMNS
//#for r in 0..4
    var fresh_$OUT$(c)_$r = vec4<f32>();
//#end
    for (var first = 0u; first < depth; first += $(HELD)u) {
//#for i in 0..4 * HELD / ROWS
      {
        let r = ty + $(i * (ROWS / 4))u;
        let t = part + $(c * ACROSS)u + tx;
        var value = vec4<f32>();
        if (t < size.vectors) {
          value = $RIGHT[(min(right_row + first + r, right_last) * right_heads + right_head) * size.vectors + t];
        }
        slices[r * $(ACROSS)u + tx] = value;
      }
//#end
      workgroupBarrier();
      for (var j = 0u; j < $(HELD)u + group.z; j += 4u) {
//#for jj in 0..4
        {
          let a = weights[(first + j + $(jj)u) * $(ROWS / 4 + 1)u + ty];
          let b = slices[(j + $(jj)u) * $(ACROSS)u + tx];
//#for r in 0..4
          fresh_$OUT$(c)_$r += a[$r] * b;
//#end
        }
//#end
      }
      workgroupBarrier();
    }
//#for r in 0..4
    $OUT$(c)_$r += fresh_$OUT$(c)_$r;
//#end
//#end
