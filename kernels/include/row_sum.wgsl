// Sum over the threads of a workgroup that makes one row; every thread gets it. SUM is its type: f32 or a vector of several sums.
// Without subgroups there are 2^LEVELS = THREADS.
//#if SUBGROUP
fn sum_over_threads(value: $SUM, thread: u32) -> $SUM { return subgroupAdd(value); }
//#else
var<workgroup> shared_sums: array<$SUM, $THREADS>;

fn sum_over_threads(value: $SUM, thread: u32) -> $SUM {
  shared_sums[thread] = value;
  workgroupBarrier();
//#for level in 0..LEVELS
  if (thread < ($(THREADS / 2)u >> $(level)u)) { shared_sums[thread] += shared_sums[thread + ($(THREADS / 2)u >> $(level)u)]; }
  workgroupBarrier();
//#end
  return shared_sums[0];
}
//#end
