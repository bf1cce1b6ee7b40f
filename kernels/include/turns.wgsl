// Mesa's software driver ends all loops of a thread after 65,535 turns, without a word. Then this one has no second turn, alive is not 1,
// and what is left of the sums must not pass for a result.
  var alive = 0u;
  for (var turn = 0u; turn < 2u + group.z; turn++) { alive = turn; }
