// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in the order of operations of torch.optim.AdamW:
//
//   g = gradient * min(1, clip / (norm + 1e-6))
//   p = p * (1 - lr * decay)
//   m = m + (1 - beta1) * (g - m)
//   v = beta2 * v + (1 - beta2) * g^2
//   p = p - lr / bias1 * m / (sqrt(v) / sqrt(bias2) + epsilon)
//
// lr = learning rate * ratio; bias1 and bias2 are 1 - beta1^t and 1 - beta2^t, all three numbers of
// this step. Nothing is written where the flag beside the norm is set.
//
// Bindings: parameters, gradients, m, v (vectors of four, the same part of four flat buffers), norm (norm, flag).
// A workgroup of 64 handles 256 vectors. Constant: CLIP (1: gradients are clipped).

struct Size {
  elements: u32, groups: u32, learning_rate: u32, bias1: u32,
  bias2: u32, ratio: f32, decay: f32, clip: f32,
  one_minus_beta1: f32, beta2: f32, one_minus_beta2: f32, epsilon: f32,
}

@group(0) @binding(0) var<storage, read_write> parameters: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> norm: array<f32>;
@group(1) @binding(0) var<uniform> size: Size;
@group(1) @binding(1) var<uniform> step: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let index = group.x + group.y * groups.x;
  if (index >= size.groups || norm[1] != 0.0) { return; }
  let lr = step[size.learning_rate / 4u][size.learning_rate % 4u] * size.ratio;
  let step_size = lr / step[size.bias1 / 4u][size.bias1 % 4u];
  let root_bias2 = sqrt(step[size.bias2 / 4u][size.bias2 % 4u]);
//#if CLIP
  let factor = min(1.0, size.clip / (norm[0] + 1e-6));
//#else
  let factor = 1.0;
//#end
//#for part in 0..4
  {
    let i = index * 256u + $(part * 64)u + thread;
    if (4u * i < size.elements) {
      let g = gradients[i] * factor;
      let old_p = parameters[i];
      let old_m = m[i];
      let old_v = v[i];
      let new_m = old_m + size.one_minus_beta1 * (g - old_m);
      let new_v = size.beta2 * old_v + size.one_minus_beta2 * g * g;
      let new_p = old_p * (1.0 - lr * size.decay) - step_size * new_m / (sqrt(new_v) / root_bias2 + size.epsilon);
      // The last vector may reach into what follows this range.
      let inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(size.elements);
      m[i] = select(old_m, new_m, inside);
      v[i] = select(old_v, new_v, inside);
      parameters[i] = select(old_p, new_p, inside);
    }
  }
//#end
}
