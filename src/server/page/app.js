/** The page: who one is, which run is shown, and the list of runs. */
import { api, ApiError, fill, h, titleOf, toast } from "./dom.js";
import { showForm } from "./form.js";
import { showRun } from "./run.js";

const main = document.getElementById("main");
const list = document.getElementById("runs");
const service = document.getElementById("service");
const leave = document.getElementById("leave");

/** Ends what the shown view does in the background. */
let endView = () => {};
let session = { name: null, scope: null };

async function begin() {
  session = await api("/session");
  leave.hidden = !session.name;
  if (session.scope === null) return showLogin();
  document.getElementById("new-link").hidden = session.scope === "read";
  route();
  refresh();
}

function showLogin(problem) {
  endView();
  const token = h("input", {
    type: "password",
    id: "token",
    autocomplete: "current-password",
    required: true,
  });
  const wrong = h("p", { class: "wrong", role: "alert" }, problem ?? "");
  main.replaceChildren(h(
    "section",
    { class: "panel login" },
    h("h1", {}, "Sign in"),
    h(
      "form",
      {
        async onsubmit(event) {
          event.preventDefault();
          try {
            await api("/session", { method: "POST", body: { token: token.value } });
            await begin();
          } catch (error) {
            showLogin(error instanceof ApiError ? error.message : "The service cannot be reached.");
          }
        },
      },
      h(
        "div",
        { class: `field${problem ? " invalid" : ""}` },
        h("label", { for: "token" }, "Token"),
        token,
        wrong,
      ),
      h("button", { class: "primary" }, "Sign in"),
    ),
  ));
  token.focus();
}

leave.addEventListener("click", async () => {
  await api("/session", { method: "DELETE" });
  location.reload();
});

function route() {
  endView();
  endView = () => {};
  const [, view, id] = location.hash.split("/");
  document.body.dataset.view = view || "list";
  if (view === "runs" && id) {
    endView = showRun(main, decodeURIComponent(id), { session, refresh: refreshNow });
  } else if (view === "new") endView = showForm(main, id ? decodeURIComponent(id) : undefined);
  else showWelcome();
  for (const link of list.querySelectorAll("a")) mark(link);
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
      session.scope !== "read" && h("a", { class: "button primary", href: "#/new" }, "New run"),
    ),
  );
}

function mark(link) {
  if (link.getAttribute("href") === location.hash) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

let timer;
let lost = false;

/** Reads the list of runs again and again; the shown run has a stream of its own. */
async function refresh() {
  clearTimeout(timer);
  try {
    const { data } = await api("/v1/runs?limit=50");
    if (lost || service.textContent === "") await showService();
    lost = false;
    showRuns(data);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return showLogin("The session has ended.");
    lost = true;
    service.textContent = "The service cannot be reached; trying again.";
    service.className = "service lost";
  }
  timer = setTimeout(refresh, document.hidden ? 15_000 : 2_500);
}

function refreshNow() {
  return refresh();
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

/** Cards are changed in place, so that the focus stays where it is. */
function showRuns(runs) {
  const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const items = runs.map((run) => {
    const item = known.get(run.id) ?? newCard(run);
    fillCard(item, run);
    return item;
  });
  const same = items.length === list.children.length && items.every((item, i) => list.children[i] === item);
  if (!same) list.replaceChildren(...items);
  if (runs.length === 0) list.replaceChildren(h("li", { class: "sub" }, "None yet."));
}

function newCard(run) {
  const link = h(
    "a",
    { class: "run-card", href: `#/runs/${run.id}` },
    h("div", { class: "row" }, h("span", { class: "title" }), h("span", { class: "state" })),
    h("div", { class: "sub" }),
    h("progress", { max: 1, value: 0, "aria-label": "Steps done" }),
  );
  mark(link);
  return h("li", { "data-id": run.id }, link);
}

function fillCard(item, run) {
  const name = run.metadata.suffix ?? run.metadata.name;
  item.querySelector(".title").textContent = name ?? titleOf(run);
  const state = item.querySelector(".state");
  state.textContent = run.state;
  state.dataset.state = run.state;
  const loss = run.result?.heldOut.after ?? run.loss;
  item.querySelector(".sub").textContent =
    `${new Date(run.createdAt).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` +
    (loss === null || loss === undefined ? "" : ` · loss ${loss.toFixed(3)}`);
  const progress = item.querySelector("progress");
  progress.max = run.steps;
  progress.value = run.step;
  progress.hidden = run.state === "succeeded" || run.state === "cancelled";
}

addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && session.scope !== null) refresh();
});
begin().catch((error) => {
  toast(error.message);
  setTimeout(() => location.reload(), 5000);
});
