/**
 * The page and its files. They hold no data: the script reads all it shows from the routes that programs use.
 *
 * @module
 */
import uplotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import uplotScript from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import app from "../page/app.js" with { type: "text" };
import charts from "../page/charts.js" with { type: "text" };
import dom from "../page/dom.js" with { type: "text" };
import fields from "../page/fields.js" with { type: "text" };
import form from "../page/form.js" with { type: "text" };
import icon from "../page/icon.svg" with { type: "text" };
import page from "../page/index.html" with { type: "text" };
import run from "../page/run.js" with { type: "text" };
import tryBox from "../page/try.js" with { type: "text" };
import style from "../page/style.css" with { type: "text" };
import type { App } from "../http/app_env.ts";

const SCRIPT = "text/javascript; charset=utf-8";
const STYLE = "text/css; charset=utf-8";

const FILES: Readonly<Record<string, readonly [type: string, text: string]>> = {
  "app.js": [SCRIPT, app],
  "charts.js": [SCRIPT, charts],
  "dom.js": [SCRIPT, dom],
  "fields.js": [SCRIPT, fields],
  "form.js": [SCRIPT, form],
  "run.js": [SCRIPT, run],
  "try.js": [SCRIPT, tryBox],
  "uplot.js": [SCRIPT, uplotScript],
  "uplot.css": [STYLE, uplotStyle],
  "style.css": [STYLE, style],
  "icon.svg": ["image/svg+xml", icon],
};

/** Adds the routes. */
export function addPageRoutes(app: App): void {
  app.get("/", (c) => c.html(page, 200, { "Cache-Control": "no-cache" }));
  for (const [name, [type, text]] of Object.entries(FILES)) {
    app.get(`/page/${name}`, (c) => c.body(text, 200, { "Content-Type": type, "Cache-Control": "no-cache" }));
  }
}
