// Brings a thread's units of the slice at k0 of both operands. Constants as in the kernel; X_UNIT, W_UNIT: what reads them; END of K.
//#for i in 0..X_UNITS
//#if ORIENTATION == TN
//#if LANES > 0
      x_unit$i = $X_UNIT(x_r, k0 + x_k + $(i * LANES * 4 / ROWS_EACH)u, $END);
//#else
      x_unit$i = $X_UNIT(x_r, k0 + x_k + $(i * THREADS * 4 / ROWS)u, $END);
//#end
//#else
//#if LANES > 0
      x_unit$i = $X_UNIT(x_r + $(i * LANES * 4 / DEPTH)u, k0 + x_k, $END);
//#else
      x_unit$i = $X_UNIT(x_r + $(i * THREADS * 4 / DEPTH)u, k0 + x_k, $END);
//#end
//#end
//#end
//#for i in 0..COLUMNS * DEPTH / 4 / THREADS
//#if ROPE
      w_unit$i = $W_UNIT(w_row$i, k0 + w_k, $END);
//#else
//#if ORIENTATION == NT
      w_unit$i = $W_UNIT(column + w_r + $(i * THREADS * 4 / DEPTH)u, k0 + w_k, $END);
//#else
      w_unit$i = $W_UNIT(column + w_r, k0 + w_k + $(i * THREADS * 4 / COLUMNS)u, $END);
//#end
//#end
//#end
