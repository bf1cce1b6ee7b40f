/** One run: its state, curves, samples, files, and a box to try what it made. */
import { api, ApiError } from "../api.js";
import { fill, h, toast } from "../dom.js";
import { ENDED, nameOf } from "../words.js";
import { Curves } from "./curves.js";
import { Evaluation } from "./evaluation.js";
import { showFiles } from "./files.js";
import { Head } from "./head.js";
import { Log } from "./log.js";
import { Samples } from "./samples.js";
import { hasShapes, Shapes } from "./shapes.js";
import { Teachers } from "./teachers.js";
import { tryBox } from "./try.js";

/** How long to wait before a stream is asked for again, milliseconds. */
const AGAIN_MS = 2000;

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
  #head;
  #curves = new Curves();
  /** Where the run can have some. */
  #shapes;
  #samples = new Samples();
  #teachers = new Teachers();
  #evaluation = new Evaluation();
  #log = new Log();
  #filesPanel = h("section", { class: "panel", hidden: true });
  #tryPanel = h("section", { class: "panel", hidden: true });

  constructor(main, id, session, refresh) {
    this.#main = main;
    this.#id = encodeURIComponent(id);
    this.#session = session;
    this.#refresh = refresh;
    this.#head = new Head(session, (action) => action === "remove" ? this.#remove() : this.#ask(action));
  }

  async begin() {
    try {
      await this.#load();
    } catch (error) {
      if (this.#ended) return;
      const text = error instanceof ApiError ? error.message : "The service cannot be reached.";
      fill(this.#main, h("section", { class: "empty" }, h("h1", {}, "No such run"), h("p", {}, text)));
      return;
    }
    if (this.#ended) return;
    document.title = `${nameOf(this.#run)} – Limbeck`;
    if (hasShapes(this.#run)) {
      this.#shapes = new Shapes(this.#id, { mayExport: this.#session.scope !== "read" });
    }
    fill(
      this.#main,
      this.#head.element,
      this.#shapes?.element,
      this.#evaluation.element,
      this.#teachers.element,
      this.#curves.element,
      this.#samples.element,
      this.#tryPanel,
      this.#filesPanel,
      this.#log.element,
      h(
        "details",
        { class: "panel" },
        h("summary", {}, "Recipe"),
        h("pre", { tabindex: 0 }, JSON.stringify(this.#run.recipe, null, 2)),
      ),
    );
    this.#showHead();
    await Promise.all([this.#readMetrics(), this.#shapes?.read()]);
    if (!this.#ended) this.#follow();
  }

  end() {
    this.#ended = true;
    this.#source?.close();
    this.#curves.destroy();
    this.#shapes?.destroy();
    this.#evaluation.destroy();
  }

  async #load() {
    this.#run = await api(`/v1/runs/${this.#id}`);
  }

  /** Long runs are drawn from points that the service has made of them; the stream then brings what is new. */
  async #readMetrics() {
    const { training, evaluations } = await api(`/v1/runs/${this.#id}/metrics?resolution=1000`);
    for (const point of training) this.#curves.metrics(point);
    for (const event of evaluations) this.#curves.evaluation(event);
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
    source.onopen = () => this.#head.isConnected = true;
    source.onerror = () => {
      // After the last event the service has no more to say.
      if (this.#readAll) return;
      this.#head.isConnected = false;
      // It gives up for good when it is answered with an error, such as by a proxy whose service is being started.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(() => !this.#ended && source === this.#source && this.#follow(), AGAIN_MS);
      }
    };
  }

  #show(event) {
    this.#log.add(event);
    // The run as it was read knows its earlier events already.
    const isNews = event.seq > this.#run.lastEvent;
    switch (event.type) {
      case "state":
        if (isNews) this.#run.state = event.state;
        this.#readAll = ENDED.has(event.state);
        if (event.state === this.#run.state) this.#stateChanged();
        break;
      case "plan":
        this.#plan = event;
        this.#showHead();
        break;
      case "teachers":
        this.#teachers.choose(event);
        break;
      case "metrics":
        this.#curves.metrics(event);
        this.#teachers.metrics(event);
        if (isNews) Object.assign(this.#run, { step: event.step, loss: event.loss });
        this.#pace = event;
        this.#head.showNumbers(this.#run, this.#plan, this.#pace);
        break;
      case "progress":
        if (isNews) this.#run.step = event.step;
        this.#pace = event;
        this.#head.showNumbers(this.#run, this.#plan, this.#pace);
        break;
      case "evaluation":
        this.#curves.evaluation(event);
        break;
      case "sample":
        this.#samples.add(event);
        break;
      case "shapes":
      case "result":
        if (isNews) this.#shapes?.read();
        break;
      case "rewind":
        if (isNews) this.#shapes?.read();
        this.#curves.rewind(event.step);
        this.#teachers.rewind(event.step);
        break;
      case "error":
        if (isNews) this.#run.error = event;
        break;
    }
  }

  #showHead() {
    this.#head.show(this.#run, this.#plan, this.#pace);
    this.#evaluation.show(this.#run.result);
  }

  async #stateChanged() {
    this.#showHead();
    this.#refresh();
    if (!ENDED.has(this.#run.state) && this.#run.state !== "paused") return;
    await this.#load().catch(() => {});
    this.#showHead();
    if (this.#run.state === "succeeded") this.#showTry();
    await this.#showFiles();
    // Written once the run is over.
    if (ENDED.has(this.#run.state)) setTimeout(() => !this.#ended && this.#showFiles(), 1500);
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
    await showFiles(this.#filesPanel, this.#id).catch(() => {});
  }

  #showTry() {
    if (!this.#tryPanel.hidden || this.#session.scope === "read") return;
    // A task may leave an adapter alone.
    if (this.#run.task !== "distill" && !this.#run.result?.paths.merged) return;
    fill(this.#tryPanel, ...tryBox(`run:${decodeURIComponent(this.#id)}`, this.#samples.prompt));
    this.#tryPanel.hidden = false;
  }
}
