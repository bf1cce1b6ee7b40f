/** One run: its state, curves, samples, files, and a box to try what it made. */
import { api, ApiError, bytes, duration, fill, h, number3, titleOf, toast } from "./dom.js";
import { Chart } from "./charts.js";
import { tryBox } from "./try.js";

const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const COLORS = ["--teacher", "--good", "--wait", "--bad", "--muted"];
const MOST_LINES = 400;
/** How long to wait before a stream is asked for again, milliseconds. */
const AGAIN_MS = 2000;
const HELD_OUT_KL = "KL to the teacher, held out";

/** Shows a run and follows it; returns how to stop. */
export function showRun(main, id, { session, refresh }) {
  const view = new RunView(main, id, session, refresh);
  view.begin();
  return () => view.end();
}

class RunView {
  #main;
  #id;
  #session;
  #refresh;
  #run;
  #source;
  #ended = false;
  #last = 0;
  /** Whether the event of the run's end was read. */
  #readAll = false;
  #plan;
  #pace;
  #samples = new Map();
  #losses = new Chart("Losses over steps", [
    { name: "training", color: "--accent" },
    { name: "held out", color: "--teacher", points: true },
  ]);
  #parts = new Chart("Parts of the objective over steps", []);
  #head = h("section", { class: "panel" });
  #partsPanel = h(
    "section",
    { class: "panel", hidden: true },
    h("h2", {}, "Parts of the objective, and KL to the teacher, nats a token"),
  );
  #samplesList = h("div", { class: "samples" });
  #samplesPanel = h("section", { class: "panel", hidden: true }, h("h2", {}, "Samples"), this.#samplesList);
  #filesPanel = h("section", { class: "panel", hidden: true });
  #tryPanel = h("section", { class: "panel", hidden: true });
  #log = h("ol", { class: "log", tabindex: 0, "aria-label": "What the run said" });

  constructor(main, id, session, refresh) {
    this.#main = main;
    this.#id = id;
    this.#session = session;
    this.#refresh = refresh;
  }

  async begin() {
    this.#partsPanel.append(this.#parts.element);
    try {
      await this.#load();
    } catch (error) {
      if (this.#ended) return;
      const text = error instanceof ApiError ? error.message : "The service cannot be reached.";
      this.#main.replaceChildren(
        h("section", { class: "empty" }, h("h1", {}, "No such run"), h("p", {}, text)),
      );
      return;
    }
    if (this.#ended) return;
    this.#main.replaceChildren(
      this.#head,
      h("section", { class: "panel" }, h("h2", {}, "Loss, nats a token"), this.#losses.element),
      this.#partsPanel,
      this.#samplesPanel,
      this.#tryPanel,
      this.#filesPanel,
      h("section", { class: "panel" }, h("h2", {}, "Log"), this.#log),
      h(
        "details",
        { class: "panel" },
        h("summary", {}, "Recipe"),
        h("pre", {}, JSON.stringify(this.#run.recipe, null, 2)),
      ),
    );
    this.#showHead();
    await this.#readMetrics();
    this.#follow();
  }

  end() {
    this.#ended = true;
    this.#source?.close();
    this.#losses.destroy();
    this.#parts.destroy();
  }

  async #load() {
    this.#run = await api(`/v1/runs/${encodeURIComponent(this.#id)}`);
  }

  /** Long runs are drawn from points that the service has made of them; the stream then brings what is new. */
  async #readMetrics() {
    const { training, evaluations } = await api(`/v1/runs/${this.#id}/metrics?resolution=1000`);
    for (const point of training) this.#metrics(point);
    for (const event of evaluations) this.#evaluation(event);
  }

  #follow() {
    const source = this.#source = new EventSource(`/v1/runs/${this.#id}/events?after=${this.#last}`);
    source.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      // After the connection was lost, the service goes on after the last one.
      if (event.seq <= this.#last) return;
      this.#last = event.seq;
      this.#show(event);
    };
    source.onopen = () => this.#connected(true);
    source.onerror = () => {
      // After the last event the service has no more to say.
      if (this.#readAll) return;
      this.#connected(false);
      // It gives up for good when it is answered with an error, such as by a proxy whose service is being started.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(() => !this.#ended && source === this.#source && this.#follow(), AGAIN_MS);
      }
    };
  }

  #connected(yes) {
    const note = this.#head.querySelector(".connection");
    if (note) note.hidden = yes;
  }

  #show(event) {
    switch (event.type) {
      case "state":
        this.#run.state = event.state;
        this.#readAll = ENDED.has(event.state);
        if (event.message) this.#line(event, `${event.state}: ${event.message}`);
        else this.#line(event, event.state);
        this.#stateChanged();
        break;
      case "plan":
        this.#plan = event;
        this.#line(event, `${event.adapterName}, ${bytes(event.totalBytes)} on the GPU`);
        this.#showHead();
        break;
      case "stage":
        this.#line(event, event.message);
        break;
      case "metrics":
        this.#metrics(event);
        this.#run.step = event.step;
        this.#run.loss = event.loss;
        this.#pace = event;
        this.#showNumbers();
        break;
      case "evaluation":
        this.#evaluation(event);
        this.#line(
          event,
          `held-out loss of the ${event.model} after step ${event.step}: ${number3(event.loss)}`,
        );
        break;
      case "sample":
        this.#sample(event);
        break;
      case "checkpoint":
        this.#line(event, `checkpoint after step ${event.step}${event.best ? ", the best so far" : ""}`);
        break;
      case "rewind":
        this.#losses.rewind(event.step);
        this.#parts.rewind(event.step);
        this.#line(event, `continuing after step ${Math.max(0, event.step)}`);
        break;
      case "warning":
      case "error":
        this.#line(event, event.hint ? `${event.message} – ${event.hint}` : event.message);
        if (event.type === "error") this.#run.error = event;
        break;
    }
  }

  async #stateChanged() {
    this.#showHead();
    this.#refresh();
    if (!ENDED.has(this.#run.state) && this.#run.state !== "paused") return;
    await this.#load().catch(() => {});
    this.#showHead();
    if (this.#run.state === "succeeded") this.#showTry();
    await this.#showFiles().catch(() => {});
    // Written once the run is over.
    if (ENDED.has(this.#run.state)) setTimeout(() => !this.#ended && this.#showFiles().catch(() => {}), 1500);
  }

  #metrics({ step, loss, losses }) {
    this.#losses.set(step, "training", loss);
    const names = Object.keys(losses);
    if (names.length < 2) return;
    for (const [i, name] of names.entries()) {
      this.#parts.add({ name, color: COLORS[i % COLORS.length] });
      this.#parts.set(step, name, losses[name]);
    }
    this.#partsPanel.hidden = false;
  }

  #evaluation({ step, model, loss, losses }) {
    if (model !== "student") return;
    this.#losses.set(step, "held out", loss);
    const divergence = losses["forward-kl"];
    if (divergence === undefined) return;
    this.#parts.add({ name: HELD_OUT_KL, color: "--accent", points: true });
    this.#parts.set(step, HELD_OUT_KL, divergence);
    this.#partsPanel.hidden = false;
  }

  #sample(event) {
    const key = `${event.model} ${event.prompt} ${
      event.model === "teacher" || event.step === 0 ? 0 : "later"
    }`;
    this.#samples.set(key, event);
    this.#samplesList.replaceChildren(
      ...[...this.#samples.values()].map(({ model, step, prompt, text }) =>
        h(
          "div",
          { class: `sample ${model}` },
          h(
            "div",
            { class: "who" },
            model === "teacher" ? "teacher" : step === 0 ? "student before" : `student after step ${step}`,
          ),
          h("p", {}, h("span", { class: "prompt" }, prompt), text),
        )
      ),
    );
    this.#samplesPanel.hidden = false;
  }

  #line(event, text) {
    const time = new Date(event.time).toLocaleTimeString([], { hour12: false });
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
    this.#log.append(
      h("li", {}, h("time", { datetime: event.time }, time), h("span", { class: `is-${event.type}` }, text)),
    );
    if (this.#log.children.length > MOST_LINES) this.#log.firstChild.remove();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #showHead() {
    const run = this.#run;
    const mayChange = this.#session.scope === "admin" ||
      (this.#session.scope === "submit" && run.owner === this.#session.name && run.worker === "service");
    const button = (label, action, kind = "") =>
      h("button", { type: "button", class: kind, onclick: () => this.#ask(action) }, label);
    const actions = mayChange
      ? [
        run.state === "running" && button("Pause", "pause"),
        ["paused", "interrupted", "failed"].includes(run.state) && button("Resume", "resume", "primary"),
        ["running", "queued", "paused", "interrupted"].includes(run.state) &&
        button("Cancel", "cancel", "danger"),
        !["running", "queued"].includes(run.state) &&
        h("button", { type: "button", class: "danger quiet", onclick: () => this.#remove() }, "Remove"),
      ]
      : [];
    const focused = this.#head.contains(document.activeElement)
      ? document.activeElement.textContent
      : undefined;
    fill(
      this.#head,
      h(
        "div",
        { class: "head" },
        h(
          "div",
          {},
          h("h1", {}, run.metadata.suffix ?? run.metadata.name ?? titleOf(run)),
          h("p", { class: "mono" }, run.id),
        ),
        h(
          "div",
          { class: "actions" },
          ...actions,
          this.#session.scope !== "read" &&
            h("a", { class: "button", href: `#/new/${run.id}` }, "New like this"),
        ),
      ),
      h(
        "p",
        { class: "state-line" },
        h("span", { class: "state", "data-state": run.state, role: "status" }, run.state),
      ),
      h("progress", {
        max: run.steps,
        value: run.step,
        "aria-label": "Steps done",
        hidden: ENDED.has(run.state),
      }),
      h("dl", { class: "numbers" }),
      run.error && run.state === "failed" &&
        h(
          "div",
          { class: "notice bad", role: "alert" },
          h("p", {}, run.error.message),
          run.error.hint && h("p", { class: "hint" }, run.error.hint),
        ),
      h(
        "p",
        { class: "notice connection", hidden: true },
        "The connection is lost; reading on as soon as the service answers.",
      ),
    );
    if (focused) [...this.#head.querySelectorAll("button")].find((b) => b.textContent === focused)?.focus();
    this.#showNumbers();
  }

  #showNumbers() {
    const run = this.#run;
    const heldOut = run.result?.heldOut;
    const left = run.state === "running" && this.#pace
      ? (run.steps - run.step) * this.#pace.secondsPerStep
      : null;
    const numbers = [
      ["Steps", `${run.step} of ${run.steps}`],
      ["Training loss", number3(run.loss)],
      heldOut && ["Held out, before", number3(heldOut.before)],
      heldOut && ["Held out, after", number3(heldOut.after)],
      heldOut && ["Teacher", number3(heldOut.teacher)],
      heldOut?.gapClosed !== null && heldOut && ["Gap closed", `${Math.round(100 * heldOut.gapClosed)} %`],
      !heldOut && this.#pace && ["Tokens a second", Math.round(this.#pace.tokensPerSecond).toLocaleString()],
      left !== null && ["Time left, about", duration(left)],
      this.#plan && !heldOut && ["Memory on the GPU", bytes(this.#plan.totalBytes)],
    ];
    this.#head.querySelector(".numbers").replaceChildren(
      ...numbers.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
    const progress = this.#head.querySelector("progress");
    progress.value = run.step;
  }

  async #ask(action) {
    try {
      this.#run = { ...this.#run, ...await api(`/v1/runs/${this.#id}/${action}`, { method: "POST" }) };
      this.#showHead();
      if (action === "pause" || action === "cancel") {
        toast("It saves a checkpoint first; that may take a moment.");
      }
      // A stream that has ended does not begin again by itself.
      if (action === "resume") {
        this.#source?.close();
        this.#follow();
      }
    } catch (error) {
      toast(error.message);
    }
  }

  async #remove() {
    if (!confirm("Remove this run and all that it made?")) return;
    try {
      await api(`/v1/runs/${this.#id}`, { method: "DELETE" });
      location.hash = "#/";
      this.#refresh();
    } catch (error) {
      toast(error.message);
    }
  }

  async #showFiles() {
    const { data } = await api(`/v1/runs/${this.#id}/artifacts`);
    if (data.length === 0) return;
    const important = data.filter(({ name }) => /^(adapter\/|report\.html)/.test(name));
    const others = data.filter((file) => !important.includes(file));
    const item = ({ name, bytes: size, url }) =>
      h(
        "li",
        {},
        h("a", { href: url, download: name.endsWith(".html") ? undefined : name.split("/").pop() }, name),
        h("span", {}, bytes(size)),
      );
    fill(
      this.#filesPanel,
      h("h2", {}, "Files"),
      h("ul", { class: "files" }, ...important.map(item)),
      others.length > 0 &&
        h(
          "details",
          {},
          h("summary", {}, `${others.length} more`),
          h("ul", { class: "files" }, ...others.map(item)),
        ),
    );
    this.#filesPanel.hidden = false;
  }

  #showTry() {
    if (!this.#tryPanel.hidden || this.#session.scope === "read") return;
    const [first] = this.#samples.values();
    fill(this.#tryPanel, ...tryBox(`run:${this.#id}`, first?.prompt));
    this.#tryPanel.hidden = false;
  }
}
