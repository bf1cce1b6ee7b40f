// Sum of one or two matrix products, plus an addend or onto what is there already, by units that multiply small matrices; any size.
//
// Sizes, orientations, rounding to f16 and splitting of K are those of tiled.wgsl. A workgroup of four subgroups makes a tile of 64 x 64
// values, each subgroup 32 x 32 of them, from slices of 16 along K whose values lie in workgroup memory one by one, in the order in which
// memory has them: matrices are read from there by rows or by columns.
//
// It needs an extension of WGSL that is no part of WebGPU yet, as the Tint of 2026 spells it.
//
// Constants: ORIENTATION, MATRIX_M, MATRIX_N, MATRIX_K (a unit's product is [M, K] by [K, N]; they divide 32, 32 and 16), COMPONENT (of the
// factors: f32, f16), SUBGROUP (its lanes), THREADS, X_UNITS, SPLIT, TERMS, WEIGHT, XV, WV, SV; ROWS and COLUMNS are 64, DEPTH is 16, LANES
// is 0, OV is 1.

//#if COMPONENT == f16
enable f16;
//#end
enable chromium_experimental_subgroup_matrix;

//#include product_size
//#include product_operands
//#include product_store with ADDEND = 2, OUT = 3
//#if COMPONENT == f16

// Of each row of x: what it is multiplied by, and the inverse of that and of what w is multiplied by.
@group(0) @binding(4) var<storage, read> row_scales: array<vec2<f32>>;
//#end

var<workgroup> xs: array<$COMPONENT, $(ROWS * DEPTH)>;
var<workgroup> ws: array<$COMPONENT, $(COLUMNS * DEPTH)>;
var<workgroup> results: array<f32, $(4 * MATRIX_M * MATRIX_N)>; // of each subgroup, one at a time

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let thread = subgroup * $(SUBGROUP)u + lane;
  let launched = group.x + group.y * groups.x;
//#if SPLIT
  let tile = launched % size.tiles;
  let part = launched / size.tiles;
  if (part * size.part_depth >= size.k) { return; }
  out_base = part * size.m * size.n;
  let begin = part * size.part_depth;
  let end = min(begin + size.part_depth, size.k);
//#if TERMS == 2
  let end2 = select(0u, size.k2, part == 0u);
//#end
//#else
  let tile = launched;
  if (tile >= size.tiles) { return; }
  let begin = 0u;
  let end = size.k;
//#if TERMS == 2
  let end2 = size.k2;
//#end
//#end
  let row = (tile % size.tiles_m) * $(ROWS)u;
  let column = (tile / size.tiles_m) * $(COLUMNS)u;
  x_base = size.x_column;
  let row_within = subgroup / 2u * 32u;
  let column_within = subgroup % 2u * 32u;

//#if ORIENTATION == TN
  let x_r = row + thread % $(ROWS / 4)u * 4u;
  let x_k = thread / $(ROWS / 4)u;
//#else
  let x_r = row + thread / $(DEPTH / 4)u;
  let x_k = thread % $(DEPTH / 4)u * 4u;
//#if COMPONENT == f16
//#for i in 0..X_UNITS
  let x_scale$i = row_scales[min(x_r + $(i * THREADS * 4 / DEPTH)u, size.m - 1u)].x;
//#end
//#end
//#end
//#if ORIENTATION == NT
  let w_r = thread / $(DEPTH / 4)u;
  let w_k = thread % $(DEPTH / 4)u * 4u;
//#else
  let w_r = thread % $(COLUMNS / 4)u * 4u;
  let w_k = thread / $(COLUMNS / 4)u;
//#end

//#for i in 0..32 / MATRIX_M
//#for j in 0..32 / MATRIX_N
  var sum$(i)_$j: subgroup_matrix_result<f32, $MATRIX_N, $MATRIX_M>;
//#end
//#end
//#if TERMS == 2
  let slices2 = (end2 + $(DEPTH - 1)u) / $(DEPTH)u;
//#else
  let slices2 = 0u;
//#end
  let slices = slices2 + (end - begin + $(DEPTH - 1)u) / $(DEPTH)u;
  for (var slice = 0u; slice < slices; slice++) {
//#for i in 0..X_UNITS
    var x_unit$i: vec4<f32>;
    var w_unit$i: vec4<f32>;
//#end
//#if TERMS == 2
    if (slice < slices2) {
      let k0 = slice * $(DEPTH)u;
//#include product_units with X_UNIT = x2_unit, W_UNIT = w2_unit, END = end2
//#for i in 0..X_UNITS
      x_unit$i *= size.ratio;
//#end
    } else {
      let k0 = begin + (slice - slices2) * $(DEPTH)u;
//#include product_units with X_UNIT = x_unit, W_UNIT = w_unit, END = end
    }
//#else
    let k0 = begin + slice * $(DEPTH)u;
//#include product_units with X_UNIT = x_unit, W_UNIT = w_unit, END = end
//#end
    workgroupBarrier();
//#for i in 0..X_UNITS
    {
//#if COMPONENT == f16
      let x_value = vec4<f16>(x_unit$i * x_scale$i);
      let w_value = vec4<f16>(clamp(w_unit$i * 64.0, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
//#else
      let x_value = x_unit$i;
      let w_value = w_unit$i;
//#end
//#for e in 0..4
//#if ORIENTATION == TN
      xs[(thread + $(i * THREADS)u) * 4u + $(e)u] = x_value[$e];
//#else
      xs[(x_r - row + $(i * THREADS * 4 / DEPTH)u) * $(DEPTH)u + x_k + $(e)u] = x_value[$e];
//#end
//#if ORIENTATION == NT
      ws[(w_r + $(i * THREADS * 4 / DEPTH)u) * $(DEPTH)u + w_k + $(e)u] = w_value[$e];
//#else
      ws[(thread + $(i * THREADS)u) * 4u + $(e)u] = w_value[$e];
//#end
//#end
    }
//#end
    workgroupBarrier();
//#for k in 0..DEPTH / MATRIX_K
    {
//#for i in 0..32 / MATRIX_M
//#if ORIENTATION == TN
      let x_at$i = $(k * MATRIX_K * ROWS)u + row_within + $(i * MATRIX_M)u;
      let left$i = subgroupMatrixLoad<subgroup_matrix_left<$COMPONENT, $MATRIX_K, $MATRIX_M>, col_major>(&xs, x_at$i, $(ROWS)u);
//#else
      let x_at$i = (row_within + $(i * MATRIX_M)u) * $(DEPTH)u + $(k * MATRIX_K)u;
      let left$i = subgroupMatrixLoad<subgroup_matrix_left<$COMPONENT, $MATRIX_K, $MATRIX_M>, row_major>(&xs, x_at$i, $(DEPTH)u);
//#end
//#end
//#for j in 0..32 / MATRIX_N
      {
//#if ORIENTATION == NT
        let w_at = (column_within + $(j * MATRIX_N)u) * $(DEPTH)u + $(k * MATRIX_K)u;
        let right = subgroupMatrixLoad<subgroup_matrix_right<$COMPONENT, $MATRIX_N, $MATRIX_K>, col_major>(&ws, w_at, $(DEPTH)u);
//#else
        let w_at = $(k * MATRIX_K * COLUMNS)u + column_within + $(j * MATRIX_N)u;
        let right = subgroupMatrixLoad<subgroup_matrix_right<$COMPONENT, $MATRIX_N, $MATRIX_K>, row_major>(&ws, w_at, $(COLUMNS)u);
//#end
//#for i in 0..32 / MATRIX_M
        sum$(i)_$j = subgroupMatrixMultiplyAccumulate(left$i, right, sum$(i)_$j);
//#end
      }
//#end
    }
//#end
  }

  let mine = subgroup * $(MATRIX_M * MATRIX_N)u;
//#for i in 0..32 / MATRIX_M
//#for j in 0..32 / MATRIX_N
  subgroupMatrixStore<row_major>(&results, mine, sum$(i)_$j, $(MATRIX_N)u);
  workgroupBarrier();
  for (var e = lane; e < $(MATRIX_M * MATRIX_N)u; e += $(SUBGROUP)u) {
    let m = row + row_within + $(i * MATRIX_M)u + e / $(MATRIX_N)u;
    let n = column + column_within + $(j * MATRIX_N)u + e % $(MATRIX_N)u;
//#if COMPONENT == f16
    put(m, n, results[mine + e] * row_scales[min(m, size.m - 1u)].y);
//#else
    put(m, n, results[mine + e]);
//#end
  }
  workgroupBarrier();
//#end
//#end
}
