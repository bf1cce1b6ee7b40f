// Multiplies the slice of both operands that the panel `before`, and with LANES the registers of the subgroup, hold. Constants as in the kernel.
//#if LANES > 0
//#for q in 0..DEPTH / 4
        {
          let turn = $(q * (32 / DEPTH))u;
          let w_from = before * $(COLUMNS * DEPTH / 4)u + $(q * COLUMNS)u;
//#if ORIENTATION == NT
//#for j in 0..COLUMNS_EACH
          let b$j = ws[w_from + ((tx + $(j * LANES)u) ^ turn)];
//#end
//#else
//#for kk in 0..4
//#for c in 0..COLUMNS_EACH / 4
          let b$(kk)_$c = ws[w_from + tx + $(kk * (COLUMNS / 4) + c * LANES)u];
//#end
//#end
//#end
//#for kk in 0..4
//#for c in 0..COLUMNS_EACH / 4
//#if ORIENTATION == NT
          let w$(kk)_$c = vec4<f32>(b$(c * 4)[$kk], b$(c * 4 + 1)[$kk], b$(c * 4 + 2)[$kk], b$(c * 4 + 3)[$kk]);
//#else
          let w$(kk)_$c = b$(kk)_$c;
//#end
//#end
//#for r in 0..ROWS_EACH
          {
//#if ORIENTATION == TN
            let a = subgroupBroadcast(mine$((q * ROWS_EACH + kk * ROWS_EACH / 4 + r / 4) / LANES)[$(r % 4)], $((q * ROWS_EACH + kk * ROWS_EACH / 4 + r / 4) % LANES)u);
//#else
            let a = subgroupBroadcast(mine$((r * DEPTH / 4 + q) / LANES)[$kk], $((r * DEPTH / 4 + q) % LANES)u);
//#end
//#for c in 0..COLUMNS_EACH / 4
            acc$(r)_$c += a * w$(kk)_$c;
//#end
          }
//#end
//#end
        }
//#end
//#else
//#if GROUPS < DEPTH / 4
        for (var q0 = 0u; q0 < $(DEPTH / 4)u; q0 += $(GROUPS)u) {
//#else
        {
          let q0 = 0u;
//#end
//#for g in 0..GROUPS
          {
            let q = q0 + $(g)u;
            let turn = q * $(32 / DEPTH)u;
            let x_from = before * $(ROWS * DEPTH / 4)u + q * $(ROWS)u;
            let w_from = before * $(COLUMNS * DEPTH / 4)u + q * $(COLUMNS)u;
//#if ORIENTATION == TN
//#for kk in 0..4
//#for r in 0..ROWS_EACH / 4
            let a$(kk)_$r = vec4<f32>(xs[x_from + ty + $(kk * (ROWS / 4) + r * (ROWS / ROWS_EACH))u]);
//#end
//#end
//#else
//#for r in 0..ROWS_EACH
            let a$r = vec4<f32>(xs[x_from + ((ty + $(r * (ROWS / ROWS_EACH))u) ^ turn)]);
//#end
//#end
//#if ORIENTATION == NT
//#for j in 0..COLUMNS_EACH
            let b$j = vec4<f32>(ws[w_from + ((tx + $(j * (COLUMNS / COLUMNS_EACH))u) ^ turn)]);
//#end
//#else
//#for kk in 0..4
//#for c in 0..COLUMNS_EACH / 4
            let b$(kk)_$c = vec4<f32>(ws[w_from + tx + $(kk * (COLUMNS / 4) + c * (COLUMNS / COLUMNS_EACH))u]);
//#end
//#end
//#end
//#for kk in 0..4
//#for c in 0..COLUMNS_EACH / 4
//#if ORIENTATION == NT
            let w$(kk)_$c = vec4<f32>(b$(c * 4)[$kk], b$(c * 4 + 1)[$kk], b$(c * 4 + 2)[$kk], b$(c * 4 + 3)[$kk]);
//#else
            let w$(kk)_$c = b$(kk)_$c;
//#end
//#for r in 0..ROWS_EACH
//#if ORIENTATION == TN
            acc$(r)_$c += a$(kk)_$(r / 4)[$(r % 4)] * w$(kk)_$c;
//#else
            acc$(r)_$c += a$r[$kk] * w$(kk)_$c;
//#end
//#end
//#end
//#end
          }
//#end
        }
//#end
