/** Signing in: a token is exchanged for a cookie that scripts cannot read. */
import { api, ApiError } from "./api.js";
import { fill, h } from "./dom.js";

/** Shows the form, with what was wrong where something was; `done` once a token was right. */
export function showSignIn(main, done, problem = "") {
  document.title = "Sign in – Limbeck";
  const token = h("input", {
    ...{ type: "password", id: "token", autocomplete: "current-password", required: true },
    "aria-describedby": "token-wrong",
    "aria-invalid": problem !== "" && "true",
  });
  fill(
    main,
    h(
      "section",
      { class: "panel sign-in" },
      h("h1", {}, "Sign in"),
      h(
        "form",
        {
          async onsubmit(event) {
            event.preventDefault();
            try {
              await api("/session", { method: "POST", body: { token: token.value } });
              await done();
            } catch (error) {
              const text = error instanceof ApiError ? error.message : "The service cannot be reached.";
              showSignIn(main, done, text);
            }
          },
        },
        h(
          "div",
          { class: `field${problem ? " invalid" : ""}` },
          h("label", { for: "token" }, "Token"),
          token,
          h("p", { class: "wrong", id: "token-wrong", role: "alert" }, problem),
        ),
        h("button", { class: "primary" }, "Sign in"),
      ),
    ),
  );
  token.focus();
}
