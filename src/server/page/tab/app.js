/** The page that trains in this tab: what to do, and the run that does it. */
import { fill, h, toast } from "../dom.js";
import { Engine } from "./engine.js";
import { runForm } from "./form.js";
import { keptRuns } from "./kept_runs.js";
import { RunView } from "./run_view.js";
import { offered } from "./sources.js";

const main = document.getElementById("main");
const service = document.getElementById("service");

function notice(title, ...texts) {
  return h(
    "section",
    { class: "panel" },
    h("h1", {}, title),
    h("div", { class: "notice bad", role: "alert" }, ...texts.map((text) => text && h("p", {}, text))),
  );
}

/** What is missing in this browser; undefined where nothing is. */
function missing() {
  if (!globalThis.isSecureContext) {
    return "The page came over plain http from another machine, and browsers give no WebGPU to such pages: use https, or a tunnel to localhost.";
  }
  if (!("gpu" in navigator)) {
    return "This browser has no WebGPU. Recent versions of Chrome, Edge, Safari and Firefox have it on most systems; on Linux it may have to be switched on (chrome://flags, Unsafe WebGPU).";
  }
  if (!globalThis.indexedDB || !navigator.locks) {
    return "This browser keeps nothing for pages, as in some private windows: a run could not save its checkpoints.";
  }
  return undefined;
}

let view;
const engine = missing() === undefined ? new Engine() : undefined;

async function begin() {
  const lack = missing();
  if (lack) return fill(main, notice("Distil in this tab", lack));
  try {
    const { name, software } = await engine.ask({ type: "device" });
    service.textContent = software ? `${name}: a CPU that plays a GPU, so it is slow` : name;
  } catch (error) {
    return fill(main, notice("Distil in this tab", error.message, error.hint));
  }
  await showForm();
}

async function showForm() {
  view?.destroy();
  view = undefined;
  const [choices, runs] = await Promise.all([offered(), engine.ask({ type: "runs" })]);
  fill(
    main,
    h("h1", {}, "Distil in this tab"),
    h(
      "p",
      { class: "lead" },
      "The student learns here, on the GPU of this device. Models and texts are read where they lie, checkpoints and the adapter stay in this browser: nothing is sent anywhere.",
    ),
    choices.isSignedOut &&
      h(
        "p",
        { class: "notice" },
        "The service's models are shown to those who have signed in on its own page.",
      ),
    keptRuns(runs, asked),
    runForm(choices, (order) => {
      const steps = Number(order.sets.findLast((set) => /^train\.steps\s*=/.test(set))?.split("=")[1]);
      work(order.id, steps, { type: "start", order });
    }),
  );
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function asked(what, run, picked) {
  if (what === "remove") {
    await engine.ask({ type: "remove", id: run.id }).catch((error) => toast(error.message));
    return await showForm();
  }
  if (what === "resume") return await work(run.id, run.steps, { type: "resume", id: run.id, picked });
  await show(run.id, run.steps);
  await view.end({ status: "succeeded" });
}

/** Shows a run with what it has said so far. */
async function show(id, steps) {
  view?.destroy();
  view = new RunView(engine, id, steps, showForm);
  fill(main, view.element);
  scrollTo(0, 0);
  for (const event of await engine.ask({ type: "events", id })) view.add(event);
}

async function work(id, steps, request) {
  await show(id, steps);
  engine.onEvent = (event) => view.add(event);
  addEventListener("beforeunload", warn);
  // A browser may refuse both: it may then throw checkpoints away when the disk is full, and a phone may go to sleep.
  navigator.storage.persist?.().catch(() => {});
  const awake = await navigator.wakeLock?.request("screen").catch(() => undefined);
  try {
    await view.end(await engine.ask(request));
  } catch (error) {
    view.fail(error);
  } finally {
    removeEventListener("beforeunload", warn);
    await awake?.release();
  }
}

/** A tab that is closed in the middle loses what its run did since the last checkpoint. */
function warn(event) {
  event.preventDefault();
}

begin().catch((error) => fill(main, notice("Distil in this tab", error.message, error.hint)));
