// Weighted sums for hardware GPUs: OUT[c][r] += sum_j weights[j][ty * 4 + r] row j of RIGHT, of its columns part + 8 c + tx.
//
// The sum over these 32 rows is made on its own: one long sum rounds each product to the size of all before it.
// RIGHT and its rows as in attention_products_tiled. Sums: OUT0_0 ... of COLUMNS / 32 columns and 4 rows.
//#for c in 0..COLUMNS / 32
    for (var i = 0u; i < 4u; i++) {
      let r = ty + i * 8u;
      let t = part + $(c * 8)u + tx;
      var value = vec4<f32>();
      if (t < size.vectors) {
        value = $RIGHT[(min(right_row + r, right_last) * right_heads + right_head) * size.vectors + t];
      }
      values[r * 8u + tx] = value;
    }
    workgroupBarrier();
//#for r in 0..4
    var fresh_$OUT$(c)_$r = vec4<f32>();
//#end
    for (var j = 0u; j < depth; j += 4u) {
//#for jj in 0..4
      {
        let a = weights[(j + $(jj)u) * 9u + ty];
        let b = values[(j + $(jj)u) * 8u + tx];
//#for r in 0..4
        fresh_$OUT$(c)_$r += a[$r] * b;
//#end
      }
//#end
    }
//#for r in 0..4
    $OUT$(c)_$r += fresh_$OUT$(c)_$r;
//#end
    workgroupBarrier();
//#end
