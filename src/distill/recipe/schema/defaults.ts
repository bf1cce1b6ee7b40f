/**
 * What depends on another field and was left out.
 *
 * @module
 */
import { isObject } from "../../../base/json.ts";
import { setName, withNames, withSetNames } from "../data_sets.ts";

const OPTIONAL_SECTIONS = ["objective", "adapter", "train", "samples", "evaluate", "output", "limits"];

/** Fills in what depends on another field and was left out, before the rules are checked. */
export function deriveDefaults(value: unknown): unknown {
  if (!isObject(value)) return value;
  const derived: Record<string, unknown> = { ...value };
  // A section all of whose lines are commented out reads as null in YAML.
  for (const name of OPTIONAL_SECTIONS) if (derived[name] === null) delete derived[name];
  if (isObject(value.data)) derived.data = withSetNames(value.data);
  const adapter = section(value, "adapter");
  if (adapter) derived.adapter = twiceTheRank(adapter);
  const { teacher } = value;
  if (isObject(teacher)) {
    derived.teacher = {
      ...firstOfTeachers(teacher),
      ...(isObject(teacher.adapter) ? { adapter: twiceTheRank(teacher.adapter) } : {}),
      ...cacheOfHidden(teacher),
    };
  }
  if (isObject(teacher) && isObject(teacher.align) && derived.objective === undefined) {
    derived.objective = [
      { loss: "cross-entropy", weight: 0.5 },
      { loss: "universal-logit-groups", weight: 0.5 },
    ];
  }
  const train = section(value, "train");
  if (train) {
    const filled = { ...train };
    if (filled.divergence === null) delete filled.divergence;
    const context = section(value, "data")?.contextLength;
    if (train.tokensPerMicroBatch === undefined && typeof context === "number" && context > 1024) {
      filled.tokensPerMicroBatch = context;
    }
    const { steps = 200 } = train;
    if (train.warmup === undefined && typeof steps === "number") filled.warmup = Math.floor(0.05 * steps);
    const shaped = section(value, "student")?.shapes !== undefined;
    if (shaped && filled.oneForAll === undefined) filled.oneForAll = {};
    if (shaped && derived.objective === undefined) {
      derived.objective = [{ loss: lossOfWhole(filled.oneForAll) }];
    }
    derived.train = filled;
  }
  return derived;
}

/** A teacher with what stands for several: names for each, and the first one's model. */
function firstOfTeachers(teacher: Record<string, unknown>): Record<string, unknown> {
  const { teachers } = teacher;
  if (!Array.isArray(teachers)) return teacher;
  const named = withNames(teachers.map(namedAsServed)).map((one) =>
    isObject(one) ? { ...one, ...cacheOfHidden(one) } : one
  );
  const [first] = named;
  const model = isObject(first) && teacher.model === undefined ? { model: first.model } : {};
  return { ...model, ...teacher, teachers: named };
}

/** One behind a server is called what the server calls it. */
function namedAsServed(teacher: unknown): unknown {
  if (!isObject(teacher) || teacher.name !== undefined || teacher.model !== "server") return teacher;
  const served = isObject(teacher.server) ? teacher.server.model : undefined;
  return typeof served === "string" && served !== "" ? { ...teacher, name: setName(served, true) } : teacher;
}

/** What is kept of a teacher, where that are hidden states: in bf16 when nothing else is said. */
function cacheOfHidden({ cache }: Record<string, unknown>): { cache?: unknown } {
  return isObject(cache) && cache.payload === "hidden" ? { cache: { precision: "bf16", ...cache } } : {};
}

/** What the whole model learns by where the objective is absent: the data, or what the other shapes learn from too. */
function lossOfWhole(oneForAll: unknown): unknown {
  if (!isObject(oneForAll) || oneForAll.target !== "teacher") return "cross-entropy";
  return oneForAll.loss ?? "soft-cross-entropy";
}

/** An adapter whose alpha, where it is absent, follows from its rank. */
function twiceTheRank(adapter: Record<string, unknown>): Record<string, unknown> {
  const { rank, alpha } = adapter;
  return typeof rank === "number" && rank > 0 && alpha === undefined
    ? { ...adapter, alpha: 2 * rank }
    : adapter;
}

/** A section that may be left out; undefined where something else stands in its place. */
function section(value: Record<string, unknown>, name: string): Record<string, unknown> | undefined {
  const found = value[name] ?? {};
  return isObject(found) ? found : undefined;
}
