/**
 * Why some mistakes in kernels of matrix products have no effect.
 *
 * @module
 */
import type { Equivalent } from "./mutants.ts";

/** Mistakes that change nothing that anybody could see, and why. */
export const PRODUCT_REASONS: readonly Equivalent[] = [
  {
    mistake:
      /: (always|at the edge|one bound alone): [xw]2?_unit: |: term dropped: [xw]2?_unit: r \+ #u in if/,
    because: "what lies beyond an edge of one factor is never stored, or meets a 0 of the other",
  },
  {
    mistake: /, odd, nf4(-double)?: .*: term dropped: w_unit: k \+ #u in if/,
    because:
      "these weights hold nothing but numbers, so what lies beyond an edge meets a 0 of the other factor",
  },
  {
    mistake: /^(?!.*\bodd\b).*: one more: ([xw]2?_unit: let i|main: let ([xw]_[kr]|column|k#|begin)) =/,
    because: "four neighbours are read and stored together, by the first of them",
  },
  {
    mistake: /^(?!.*\bodd\b).*: other size: (main: size.k#? in let end|[xw]2?_unit: size.[mn] |put: size.n )/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake: /: (left out: main: x_base = size.x_column|term dropped: put: .*out_column in let at)/,
    because: "only a product that is cut along it begins elsewhere than at 0",
  },
  {
    mistake:
      /: (zero: main: let x_column =|term dropped: main: .*(x_column in var [xw]i#|out_column in var at) =)/,
    because: "only a product that is cut along it begins elsewhere than at 0",
  },
  {
    mistake: / TN.*: \w+( \w+)*: main: (let x_(stride|column) =|size.[\w#]+ in let x_(stride|column) =)/,
    because: "a product of this orientation reads x by the width of the output alone",
  },
  {
    mistake:
      /: one more: main: let x_column =|: other size: main: (size.k#? in let depth|size.n in if \(column)/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake: /^(?!.*\bodd\b).*few rows.*: other size: main: size.k#? in (for|let [ab])/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake: /few rows.*: (always|at the edge): main: lane < reach in if/,
    because: "what the other lanes add is read by nobody",
  },
  {
    mistake:
      /subgroup8 32x.*: (zero: main: let own_k|term dropped: main: (.*own_k \* x_step in var xi|lane % #u in var xi|lane \/ #u in let own_k))/,
    because: "a load of all lanes brings 32 rows of one k",
  },
  {
    mistake:
      /: [^:]*: main: (size.has_addend.*|at) in (if|value \+=).*addend|: left out: main: value \+= addend/,
    because: "what memory holds is added to without another addend",
  },
  {
    mistake: /: (never|at the edge): main: tile >= size.tiles /,
    because: "tiles beyond the last have columns beyond the edge",
  },
  {
    mistake:
      /: (one more: main: let slices#? =|term dropped: main: (\(end#? .*\) \/ #u|end - begin) in let slices#?)/,
    because: "slices beyond the last hold zeros",
  },
  {
    mistake: /: (always|at the edge): main: slice > #u /,
    because: "workgroup memory begins as zeros",
  },
  {
    mistake: /matmul (NN|TN).*: (zero|one more): main: let turn = /,
    because: "only what lies along K is spread over the banks of workgroup memory",
  },
  {
    mistake: /, 4x[48] each.*: term dropped: main: (r % #u|.* r \/ #u \* #u) in let m = /,
    because: "a thread has four rows side by side, and no others",
  },
  {
    mistake:
      / parts, .*: matmul (NN|NT|TN).*: put: (.*(addend|keep|accumulate)|value \+= out|at in value \+= out)/,
    because: "what parts give is added to what is there by the kernel that sums them",
  },
  {
    mistake: / parts, .*: at the edge: main: part == #u in let end#/,
    because: "the second product is made by one of two parts either way",
  },
  {
    mistake: / of several: .*\b(x_begin|w_begin|out_begin|[xw]_base = size|out_base = size)/,
    because:
      "one product alone begins at 0; tests/tensor/together_test.ts plants these where several are made",
  },
  {
    mistake: /subgroup8 .* of several: left out: begin_product: size = sizes\[member\]/,
    because: "the kernel reads its sizes where it begins, and has no other function",
  },
  {
    mistake: / of several: .*(size.has_addend|addend\[at\])/,
    because: "no product that is made with others has an addend",
  },
  {
    mistake: / parts, .*: term dropped: main: group.x \+ group.y \* groups.x in let launched/,
    because: "so few workgroups are never folded",
  },
  {
    mistake: /^(?!.*\bodd\b).* parts, .*: other size: main: size.part_depth in let end/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake:
      /^TN.*subgroup8 .*: (always|at the edge|term dropped): main: r \+ #u( < rows)? in if \(r \+ #u < rows/,
    because: "sizes are multiples of four there, and so is what is held to them",
  },
  {
    mistake: /: matmul parts: ((never|at the edge): (put: (m|n) >=|main: i >=))/,
    because: "what comes after the last is refused twice, by its number and by its row",
  },
  {
    mistake: /^(?!.*\bodd\b).*: matmul parts: one more: main: let first = i/,
    because: "four neighbours are read and stored together, by the first of them",
  },
  {
    mistake:
      / parts, (?!132x196).*: main: (.* in if \(part \* size.part_depth >=|part \* size.part_depth >=)/,
    because: "no workgroup is launched beyond the last part, but for one of the kernels",
  },
  {
    mistake: / parts, .*: other size: main: size.k in if \(part \* size.part_depth >=/,
    because: "no part but one beyond the last begins at the last value",
  },
  {
    mistake: /subgroup-matrix .*: no barrier: main: before (for \(var e = lane|subgroupMatrixStore|$)/,
    because:
      "each subgroup has a place of its own for what it stores, and its lanes go in step on a software device",
  },
  {
    mistake: /: row scales: one more: main: let values = /,
    because: "a number a bit larger has the same power of two, or is one, and half of its scale does as well",
  },
  {
    mistake: /: row scales: one more: main: let shift = /,
    because: "the largest of a row has room for one more power of two",
  },
  {
    mistake: /: row scales: (always|at the edge): main: thread < reach /,
    because: "the other threads add what is of the same row to what nobody reads",
  },
  {
    mistake: /: row scales: never: main: thread > #u /,
    because: "all threads know the largest of all by then",
  },
  {
    mistake:
      / in f16.*: (first choice: main: min\((m|x_r \+ #u), size.m - #u\)|term dropped: main: size.m - #u) in (let back|let x_scale#|put\(m, n)/,
    because: "a row beyond the last is never stored",
  },
  {
    mistake: / in f16: .*: term dropped: w_unit: k \+ #u in if/,
    because: "what lies beyond an edge of w is cut to what f16 holds, and meets a 0 of x",
  },
  {
    mistake: / in f16: .*: term dropped: main: group.x \+ group.y \* groups.x in let (tile|launched)/,
    because: "there are more rows than tiles, so that scales are made by a folded grid, and products are not",
  },
];
