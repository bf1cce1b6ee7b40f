/** The page: who one is, which view is shown, and the list of runs. */
import { api, ApiError } from "./api.js";
import { showComparison } from "./compare/compare.js";
import { fill, h, toast } from "./dom.js";
import { showForm } from "./form/form.js";
import { showTaskForm } from "./form/task_form.js";
import { showRun } from "./run/run.js";
import { comparisonOf, RunList } from "./run_list.js";
import { showSignIn } from "./sign_in.js";

const main = document.getElementById("main");
const side = document.getElementById("side");
const newRun = document.getElementById("new-link");
const service = document.getElementById("service");
const leave = document.getElementById("leave");
const list = new RunList(document.getElementById("runs"), (ids) => {
  if (document.body.dataset.view === "compare") location.hash = ids.length > 0 ? comparisonOf(ids) : "#/";
});

/** Ends what the shown view does in the background. */
let endView = () => {};
let session = { name: null, scope: null };

async function begin() {
  session = await api("/session");
  if (session.scope === null) return signIn();
  leave.hidden = !session.name;
  side.hidden = false;
  newRun.hidden = session.scope === "read";
  route();
  refresh();
}

/** Until someone is known there is nothing else to see or to do. */
function signIn(problem) {
  endView();
  endView = () => {};
  session = { name: null, scope: null };
  document.body.dataset.view = "sign-in";
  for (const element of [side, newRun, leave]) element.hidden = true;
  showSignIn(main, begin, problem);
}

leave.addEventListener("click", async () => {
  await api("/session", { method: "DELETE" });
  location.reload();
});

// The address says which view is shown, so the link may not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

function route() {
  if (session.scope === null) return;
  endView();
  endView = () => {};
  document.title = "Limbeck";
  const [, view, rest] = location.hash.split("/");
  const names = rest ? rest.split(",").map(decodeURIComponent) : [];
  document.body.dataset.view = view || "list";
  if (view === "compare") list.chosen = names;
  if (view === "runs" && names.length > 0) endView = showRun(main, names[0], { session, refresh });
  else if (view === "compare" && names.length > 0) endView = showComparison(main, names);
  else if (view === "new" && session.scope !== "read") endView = showForm(main, names[0]);
  else if (view === "task" && names.length > 0 && session.scope !== "read") {
    endView = showTaskForm(main, ...names);
  } else showWelcome();
  list.mark();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function showWelcome() {
  fill(
    main,
    h(
      "section",
      { class: "empty" },
      h("img", { src: "/page/icon.svg", width: 84, height: 84, alt: "" }),
      h("h1", {}, "Distil a model"),
      h(
        "p",
        {},
        "A smaller model learns what a larger one knows. Choose a run to watch it, or begin one: the example that comes with Limbeck takes a few minutes.",
      ),
      h(
        "p",
        { class: "actions" },
        session.scope !== "read" && h("a", { class: "button primary", href: "#/new" }, "New run"),
        h("a", { class: "button", href: "/tab" }, "Distil in this browser"),
      ),
    ),
  );
}

let timer;
let lost = false;

/** Reads the list of runs again and again; the shown run has a stream of its own. */
async function refresh() {
  clearTimeout(timer);
  try {
    const { data } = await api("/v1/runs?limit=50");
    if (session.scope === null) return;
    if (lost || service.textContent === "") await showService();
    lost = false;
    list.show(data);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return signIn("The session has ended.");
    lost = true;
    service.textContent = "The service cannot be reached; trying again.";
    service.className = "service lost";
  }
  // Another reading may have ended while this one went on.
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? 15_000 : 2_500);
}

async function showService() {
  service.className = "service";
  try {
    service.textContent = (await api("/readyz")).gpu;
  } catch (error) {
    service.textContent = error.message;
    service.classList.add("lost");
  }
}

addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && session.scope !== null) refresh();
});
begin().catch((error) => {
  toast(error.message);
  setTimeout(() => location.reload(), 5000);
});
