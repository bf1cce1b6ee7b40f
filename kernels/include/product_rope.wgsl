// What becomes of sums of products that rotary position embedding turns before anybody reads them, by the expressions of rope.wgsl.
//
// The columns that are turned together lie half of a head apart, so tiles take columns by pairs: pair P of the output is the one numbered P
// over all heads, and a thread that makes one of its columns makes the other too. Which row of w a thread multiplies by costs it nothing.
// Columns of a head that are not turned make pairs of their own, behind the others. Heads have an even number of columns.
//
// Constants: TABLE, OUT, POSITIONS, BIAS_AT: bindings; REST (whether a head has columns that are not turned), BIAS (none; f32, f16, bf16: how
// the row is stored that is added to each row before).
@group(0) @binding($TABLE) var<storage, read> table: array<f32>;
@group(0) @binding($OUT) var<storage, read_write> out: array<f32>;
@group(0) @binding($POSITIONS) var<storage, read> positions: array<i32>;
//#if BIAS != none
//#include bias with WEIGHT = BIAS, VALUES = 1
//#end

struct Pair {
  first: u32, second: u32, // columns of the output
  angle: u32, // within a head
//#if BIAS != none
  bias: vec2<f32>,
//#end
}

// The row of w, and column of the output, that is one side of a pair: its first column or its second.
fn pair_column(pair: u32, side: u32) -> u32 {
  let i = pair % size.head_pairs;
  let first = 2u * (pair - i) + i;
//#if REST
  if (i >= size.half) { return first + size.half + side * (size.head_pairs - size.half); }
//#end
  return first + side * size.half;
}

fn pair_of(pair: u32) -> Pair {
  let first = pair_column(pair, 0u);
  let second = pair_column(pair, 1u);
//#if BIAS != none
  return Pair(first, second, pair % size.head_pairs, vec2<f32>(bias_value(first), bias_value(second)));
//#else
  return Pair(first, second, pair % size.head_pairs);
//#end
}

struct Turn {
  angles: u32, // where those of the row's position begin
  sign: f32, // 1, or NaN where the table has no such position
}

fn turn_of(m: u32) -> Turn {
  let position = bitcast<u32>(positions[min(m, size.m - 1u)]);
  let sign = select(1.0, size.nan, position >= size.positions);
  return Turn(min(position, size.positions - 1u) * 2u * size.half, sign);
}

// Stores both values of a pair in row m.
fn put_pair(m: u32, pair: Pair, turn: Turn, first: f32, second: f32) {
  if (m >= size.m || pair.first >= size.n) { return; }
  let begin = m * size.out_stride;
  var a = first * size.factor;
  var b = second * size.factor;
  if (size.accumulate == 2u) {
    a += out[begin + pair.first];
    b += out[begin + pair.second];
  }
//#if BIAS != none
  a += pair.bias.x;
  b += pair.bias.y;
//#end
//#if REST
  if (pair.angle >= size.half) {
    out[begin + pair.first] = a * (turn.sign * turn.sign);
    out[begin + pair.second] = b * (turn.sign * turn.sign);
    return;
  }
//#end
  let cosine = table[turn.angles + pair.angle];
  let sine = turn.sign * table[turn.angles + size.half + pair.angle];
  out[begin + pair.first] = a * cosine - b * sine;
  out[begin + pair.second] = b * cosine + a * sine;
}
