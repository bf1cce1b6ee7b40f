// Relations of the key at j to 4 rows, in both models: a = x_scale * x . x[key], b = y_scale * y . y[key], a row a lane. The rows lie at
// at0 ... at3.
//#for r in 0..4
    var a$r = Unit();
    var b$r = Unit();
//#end
    for (var u = 0u; u < x_units; u++) {
      let k = x[key * size.x_units + u];
//#for r in 0..4
      a$r += x[at$r * size.x_units + u] * k;
//#end
    }
    for (var u = 0u; u < y_units; u++) {
      let k = y[key * size.y_units + u];
//#for r in 0..4
      b$r += y[at$r * size.y_units + u] * k;
//#end
    }
    let a = size.x_scale * vec4<f32>(total(a0), total(a1), total(a2), total(a3));
    let b = size.y_scale * vec4<f32>(total(b0), total(b1), total(b2), total(b3));
