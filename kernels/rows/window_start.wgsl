// Where a query's range of keys begins when it sees the last `window` of them at most: out[t] = max(start[t], end[t] - window).
//
// Bindings: start and end i32 [T], out i32 [T]. A workgroup of 64 handles 64 queries.

struct Size { queries: u32, groups: u32, window: i32 }

@group(0) @binding(0) var<storage, read> start: array<i32>;
@group(0) @binding(1) var<storage, read> end: array<i32>;
@group(0) @binding(2) var<storage, read_write> out: array<i32>;
@group(1) @binding(0) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let t = (group.x + group.y * groups.x) * 64u + thread;
  if (t >= size.queries) { return; }
  out[t] = max(start[t], end[t] - size.window);
}
