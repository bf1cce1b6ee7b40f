/** The head of a run: its name, its state, what went wrong, what can be asked of it, and its numbers. */
import { fill, h } from "../dom.js";
import { likeRun } from "../form/kinds.js";
import { bytes, duration, ENDED, nameOf, number3 } from "../words.js";

/** The head of a run. */
export class Head {
  #session;
  #asked;
  #progress = h("progress", { "aria-label": "Steps done" });
  #numbers = h("dl", { class: "numbers" });
  #connection = h(
    "p",
    { class: "notice", role: "status", hidden: true },
    "The connection is lost; reading on as soon as the service answers.",
  );
  element = h("section", { class: "panel" });

  /** @param {(action: string) => void} asked pause, resume, cancel or remove */
  constructor(session, asked) {
    this.#session = session;
    this.#asked = asked;
  }

  /** Whether the stream of events is there. */
  set isConnected(yes) {
    this.#connection.hidden = yes;
  }

  /** Shows a run; what has the focus keeps it. */
  show(run, plan, pace) {
    const focused = this.element.contains(document.activeElement)
      ? document.activeElement.textContent
      : undefined;
    fill(
      this.element,
      h(
        "div",
        { class: "head" },
        h("div", {}, h("h1", {}, nameOf(run)), h("p", { class: "mono" }, run.id)),
        h(
          "div",
          { class: "actions" },
          ...this.#actions(run),
          this.#session.scope !== "read" &&
            h("a", { class: "button", href: likeRun(run) }, "New like this"),
        ),
      ),
      h(
        "p",
        { class: "state-line" },
        h("span", { class: "state", "data-state": run.state, role: "status" }, run.state),
      ),
      run.error && run.state === "failed" &&
        h(
          "div",
          { class: "notice bad", role: "alert" },
          h("p", {}, run.error.message),
          run.error.hint && h("p", { class: "hint" }, run.error.hint),
        ),
      this.#progress,
      this.#numbers,
      this.#connection,
    );
    if (focused) {
      [...this.element.querySelectorAll("button, a")].find((b) => b.textContent === focused)?.focus();
    }
    this.showNumbers(run, plan, pace);
  }

  /** Shows how far a run is. */
  showNumbers(run, plan, pace) {
    this.#progress.max = run.steps;
    this.#progress.value = run.step;
    this.#progress.hidden = ENDED.has(run.state);
    this.#numbers.replaceChildren(
      ...numbersOf(run, plan, pace).map(([name, value]) =>
        h("div", {}, h("dt", {}, name), h("dd", {}, value))
      ),
    );
  }

  #actions(run) {
    const { scope, name } = this.#session;
    const mayChange = scope === "admin" ||
      (scope === "submit" && run.owner === name && run.worker === "service");
    if (!mayChange) return [];
    const button = (label, kind = "") =>
      h(
        "button",
        { type: "button", class: kind, onclick: () => this.#asked(label.toLowerCase()) },
        label,
      );
    return [
      run.state === "running" && button("Pause"),
      ["paused", "interrupted", "failed"].includes(run.state) && button("Resume", "primary"),
      ["running", "queued", "paused", "interrupted"].includes(run.state) && button("Cancel", "danger"),
      !["running", "queued"].includes(run.state) && button("Remove", "danger quiet"),
    ];
  }
}

function numbersOf(run, plan, pace) {
  if (run.task !== "distill") {
    const { seconds, findings } = run.result ?? {};
    const { cache, caches = cache ? [cache] : [] } = findings ?? {};
    const { secondsLeft, bytesPerSecond, tokensPerSecond } = run.state === "running" ? pace ?? {} : {};
    return [
      ["Done", `${run.step} %`],
      seconds !== undefined && ["Took", duration(seconds)],
      ...caches.flatMap(({ teacher, samples, cacheBytes, bytesPerToken, heldOut }) => {
        const of = teacher === undefined ? "" : ` of ${teacher}`;
        return [
          [`Samples${of}`, samples.toLocaleString()],
          [`Kept${of || " of the teacher"}`, bytes(cacheBytes)],
          [`Bytes a token that counts${of}`, bytesPerToken.toLocaleString()],
          ...(heldOut ?? []).map(({ name, loss }) => [
            `${teacher === undefined ? "The teacher" : teacher}'s loss on ${name}`,
            number3(loss),
          ]),
        ];
      }),
      secondsLeft !== undefined && ["Time left, about", duration(secondsLeft)],
      bytesPerSecond !== undefined && ["Read a second", bytes(Math.round(bytesPerSecond))],
      tokensPerSecond !== undefined && ["Tokens a second", Math.round(tokensPerSecond).toLocaleString()],
    ].filter(Boolean);
  }
  const heldOut = run.result?.heldOut;
  const left = run.state === "running" && pace ? (run.steps - run.step) * pace.secondsPerStep : undefined;
  return [
    ["Steps", `${run.step} of ${run.steps}`],
    ["Training loss", number3(run.loss)],
    heldOut && ["Held out, before", number3(heldOut.before)],
    heldOut && ["Held out, after", number3(heldOut.after)],
    heldOut && ["Teacher", number3(heldOut.teacher)],
    heldOut && heldOut.gapClosed !== null && ["Gap closed", `${Math.round(100 * heldOut.gapClosed)} %`],
    !heldOut && pace && ["Tokens a second", Math.round(pace.tokensPerSecond).toLocaleString()],
    left !== undefined && ["Time left, about", duration(left)],
    plan && !heldOut && ["Memory on the GPU", bytes(plan.totalBytes)],
  ].filter(Boolean);
}
