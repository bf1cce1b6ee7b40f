/**
 * Units that multiply small matrices, for devices that have none.
 *
 * @module
 */

/**
 * The kernel of small matrices with its own ones written out: a factor is a place in a panel, a sum a number, and the lanes of a subgroup
 * share the values of a product. What is left as it is decides which values a matrix has, and where its sums go.
 */
export function writtenOut(wgsl: string): string {
  const [, n, m] = /subgroup_matrix_result<f32, (\d+), (\d+)>/.exec(wgsl)!;
  const [, k] = /subgroup_matrix_left<f\d+, (\d+), \d+>/.exec(wgsl)!;
  const values = Number(m) * Number(n);
  let sums = 0;
  const text = wgsl
    .replace("enable chromium_experimental_subgroup_matrix;\n", "")
    .replace(/(var sum\w+): subgroup_matrix_result<[^>]*>;/g, (_, sum) => `${sum} = ${sums++ * values}u;`)
    .replace(
      /subgroupMatrixLoad<subgroup_matrix_\w+<[^>]*>, (col|row)_major>\(&\w+, /g,
      (_, order) => `${order}_major(`,
    )
    .replaceAll("subgroupMatrixMultiplyAccumulate(", "multiply(subgroup, lane, ")
    .replace(
      /subgroupMatrixStore<row_major>\(&results, mine, (\w+), \d+u\);/g,
      "store(subgroup, lane, mine, $1);",
    );
  const each = sums * values;
  return `${text}
var<workgroup> sums: array<f32, ${4 * each}>;

// Where a matrix begins, and how far apart its rows and its columns are.
fn row_major(at: u32, stride: u32) -> vec3<u32> { return vec3(at, stride, 1u); }
fn col_major(at: u32, stride: u32) -> vec3<u32> { return vec3(at, 1u, stride); }

fn multiply(subgroup: u32, lane: u32, left: vec3<u32>, right: vec3<u32>, to: u32) -> u32 {
  for (var e = lane; e < ${values}u; e += 8u) {
    var sum = sums[subgroup * ${each}u + to + e];
    for (var l = 0u; l < ${k}u; l++) {
      sum += f32(xs[left.x + e / ${n}u * left.y + l * left.z]) * f32(ws[right.x + l * right.y + e % ${n}u * right.z]);
    }
    sums[subgroup * ${each}u + to + e] = sum;
  }
  return to;
}

fn store(subgroup: u32, lane: u32, at: u32, first: u32) {
  for (var e = lane; e < ${values}u; e += 8u) { results[at + e] = sums[subgroup * ${each}u + first + e]; }
}
`;
}
