// Weights of several experts, one after another: weight(i) is value i of the expert that expert_tile chose; VALUES as in stored_weights.
// For TN, where w are rows of activations, it is value i from the first row of that expert on.
//#include stored_weights

var<private> expert_begin: u32;

fn weight(i: u32) -> Weight {
  return stored_weight(i + expert_begin / $(VALUES)u);
}

//#if ORIENTATION == TN
// Of every expert: the first of its rows, and how many they are.
//#else
// Of every 32 rows of x: the expert whose they are, -1 for none, and how many of them, from the first on, are a token's.
//#end
@group(0) @binding(4) var<storage, read> expert_rows: array<vec2<i32>>;
var<workgroup> own_rows: vec2<i32>;
