/** Values in words. */

/** States that a run does not leave by itself any more. */
export const ENDED = new Set(["succeeded", "failed", "cancelled"]);

/** Bytes as people read them. */
export function bytes(count) {
  for (const [size, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (count >= size) return `${(count / size).toFixed(count / size < 10 ? 2 : 1)} ${unit}`;
  }
  return `${count} B`;
}

/** Seconds as `0:07` or `3:05:00`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** A loss; a dash where there is none. */
export function number3(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

/** Any number, with four digits that count; a dash where there is none. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (value !== 0 && size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e");
  return size >= 1000 ? Math.round(value).toLocaleString() : String(Number(value.toPrecision(4)));
}

/** A count in few characters, such as `15.2 M`; a dash where there is none. */
export function compact(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  return short(value);
}

/** What a run is called: what its owner calls it, else what it distils. */
export function nameOf(run) {
  return run.metadata.suffix ?? run.metadata.name ?? titleOf(run);
}

/** What a run distils, in a few words. */
function titleOf(run) {
  const { teacher, student } = run.recipe;
  const short = (name) => String(name).replace(/\.gguf$/, "");
  if (run.task !== "distill") return taskTitle(run, short);
  const taught = teacherTitle(teacher, short);
  if (student?.model === "teacher") {
    return student.layers ? `${taught}, ${student.layers.length} layers` : taught;
  }
  return teacher?.model === "student"
    ? `${short(student?.model)} by itself`
    : `${taught} → ${short(student?.model)}`;
}

/** What the teacher of a recipe is called; of several the first, and how many others there are. */
function teacherTitle(teacher, short) {
  if (!teacher?.teachers) return short(teacher?.model);
  const [first, ...others] = teacher.teachers;
  return `${first.name ?? short(first.model)} + ${others.length}`;
}

/** What a run does that distils nothing. */
function taskTitle({ task, recipe }, short) {
  if (task === "shrink") return `shrink ${short(recipe.model)}`;
  if (task === "evaluate") return `${recipe.models.map(({ model }) => short(model)).join(", ")} on tasks`;
  if (task === "extract") return `difference of ${short(recipe.tuned)} and ${short(recipe.base)}`;
  if (task === "merge-adapters") return `${recipe.adapters.length} adapters by ${recipe.method ?? "cat"}`;
  if (task === "export") return `${recipe.shape} of ${short(recipe.run)}`;
  if (task === "cache") return `cache of ${teacherTitle(recipe.recipe.teacher, short)}`;
  if (task === "residual") return `residual for ${short(recipe.newBase)}`;
  const names = (recipe.models ?? []).map(({ model }) => short(model));
  const method = recipe.method ?? recipe.merge_method;
  return names.length > 0 && names.length < 4 ? `${method} of ${names.join(" + ")}` : `${method} merge`;
}
