/**
 * The page and its files. They hold no data: the scripts read all they show from the routes that programs use.
 *
 * @module
 */
import uplotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import uplotScript from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import api from "../page/api.js" with { type: "text" };
import app from "../page/app.js" with { type: "text" };
import baseStyle from "../page/base.css" with { type: "text" };
import chart from "../page/charts/chart.js" with { type: "text" };
import chartStyle from "../page/charts/charts.css" with { type: "text" };
import chartsFrontier from "../page/charts/frontier.js" with { type: "text" };
import chartsLegend from "../page/charts/legend.js" with { type: "text" };
import chartsLineStyles from "../page/charts/line_styles.js" with { type: "text" };
import chartsReliability from "../page/charts/reliability.js" with { type: "text" };
import chartsSettings from "../page/charts/settings.js" with { type: "text" };
import chartsSmoothing from "../page/charts/smoothing.js" with { type: "text" };
import chartsTicks from "../page/charts/ticks.js" with { type: "text" };
import compareStyle from "../page/compare/compare.css" with { type: "text" };
import compare from "../page/compare/compare.js" with { type: "text" };
import controlsStyle from "../page/controls.css" with { type: "text" };
import dom from "../page/dom.js" with { type: "text" };
import formEstimate from "../page/form/estimate.js" with { type: "text" };
import formExample from "../page/form/example.js" with { type: "text" };
import formFields from "../page/form/fields.js" with { type: "text" };
import formStyle from "../page/form/form.css" with { type: "text" };
import form from "../page/form/form.js" with { type: "text" };
import formKinds from "../page/form/kinds.js" with { type: "text" };
import formMergeFields from "../page/form/merge_fields.js" with { type: "text" };
import formObjective from "../page/form/objective.js" with { type: "text" };
import formPaths from "../page/form/paths.js" with { type: "text" };
import formRecipeFields from "../page/form/recipe_fields.js" with { type: "text" };
import formSchemaInputs from "../page/form/schema_inputs.js" with { type: "text" };
import formSection from "../page/form/section.js" with { type: "text" };
import formShowLoaded from "../page/form/show_loaded.js" with { type: "text" };
import formTaskForm from "../page/form/task_form.js" with { type: "text" };
import icon from "../page/icon.svg" with { type: "text" };
import page from "../page/index.html" with { type: "text" };
import layoutStyle from "../page/layout.css" with { type: "text" };
import memory from "../page/memory.js" with { type: "text" };
import runCurves from "../page/run/curves.js" with { type: "text" };
import runEvaluation from "../page/run/evaluation.js" with { type: "text" };
import runFiles from "../page/run/files.js" with { type: "text" };
import runHead from "../page/run/head.js" with { type: "text" };
import runLog from "../page/run/log.js" with { type: "text" };
import runStyle from "../page/run/run.css" with { type: "text" };
import run from "../page/run/run.js" with { type: "text" };
import runSamples from "../page/run/samples.js" with { type: "text" };
import runShapes from "../page/run/shapes.js" with { type: "text" };
import runTeachers from "../page/run/teachers.js" with { type: "text" };
import runTry from "../page/run/try.js" with { type: "text" };
import runListStyle from "../page/run_list.css" with { type: "text" };
import runList from "../page/run_list.js" with { type: "text" };
import signIn from "../page/sign_in.js" with { type: "text" };
import tabPage from "../page/tab.html" with { type: "text" };
import tabApp from "../page/tab/app.js" with { type: "text" };
import tabEngine from "../page/tab/engine.js" with { type: "text" };
import tabForm from "../page/tab/form.js" with { type: "text" };
import tabKeptRuns from "../page/tab/kept_runs.js" with { type: "text" };
import tabRunView from "../page/tab/run_view.js" with { type: "text" };
import tabSources from "../page/tab/sources.js" with { type: "text" };
import tabStyle from "../page/tab/tab.css" with { type: "text" };
import words from "../page/words.js" with { type: "text" };
import type { App } from "../http/app_env.ts";

const SCRIPT = "text/javascript; charset=utf-8";
const STYLE = "text/css; charset=utf-8";

/** The page that trains in a tab. */
export const TAB_PAGE: string = tabPage;

/** What the pages consist of, by the name below `page/`. */
export const FILES: Readonly<Record<string, readonly [type: string, text: string]>> = {
  "uplot.css": [STYLE, uplotStyle],
  "uplot.js": [SCRIPT, uplotScript],
  "api.js": [SCRIPT, api],
  "app.js": [SCRIPT, app],
  "base.css": [STYLE, baseStyle],
  "charts/chart.js": [SCRIPT, chart],
  "charts/charts.css": [STYLE, chartStyle],
  "charts/frontier.js": [SCRIPT, chartsFrontier],
  "charts/legend.js": [SCRIPT, chartsLegend],
  "charts/line_styles.js": [SCRIPT, chartsLineStyles],
  "charts/reliability.js": [SCRIPT, chartsReliability],
  "charts/settings.js": [SCRIPT, chartsSettings],
  "charts/smoothing.js": [SCRIPT, chartsSmoothing],
  "charts/ticks.js": [SCRIPT, chartsTicks],
  "compare/compare.css": [STYLE, compareStyle],
  "compare/compare.js": [SCRIPT, compare],
  "controls.css": [STYLE, controlsStyle],
  "dom.js": [SCRIPT, dom],
  "form/estimate.js": [SCRIPT, formEstimate],
  "form/example.js": [SCRIPT, formExample],
  "form/fields.js": [SCRIPT, formFields],
  "form/form.css": [STYLE, formStyle],
  "form/form.js": [SCRIPT, form],
  "form/kinds.js": [SCRIPT, formKinds],
  "form/merge_fields.js": [SCRIPT, formMergeFields],
  "form/objective.js": [SCRIPT, formObjective],
  "form/paths.js": [SCRIPT, formPaths],
  "form/recipe_fields.js": [SCRIPT, formRecipeFields],
  "form/schema_inputs.js": [SCRIPT, formSchemaInputs],
  "form/section.js": [SCRIPT, formSection],
  "form/show_loaded.js": [SCRIPT, formShowLoaded],
  "form/task_form.js": [SCRIPT, formTaskForm],
  "icon.svg": ["image/svg+xml", icon],
  "layout.css": [STYLE, layoutStyle],
  "memory.js": [SCRIPT, memory],
  "run/curves.js": [SCRIPT, runCurves],
  "run/evaluation.js": [SCRIPT, runEvaluation],
  "run/files.js": [SCRIPT, runFiles],
  "run/head.js": [SCRIPT, runHead],
  "run/log.js": [SCRIPT, runLog],
  "run/run.css": [STYLE, runStyle],
  "run/run.js": [SCRIPT, run],
  "run/samples.js": [SCRIPT, runSamples],
  "run/shapes.js": [SCRIPT, runShapes],
  "run/teachers.js": [SCRIPT, runTeachers],
  "run/try.js": [SCRIPT, runTry],
  "run_list.css": [STYLE, runListStyle],
  "run_list.js": [SCRIPT, runList],
  "sign_in.js": [SCRIPT, signIn],
  "tab/app.js": [SCRIPT, tabApp],
  "tab/engine.js": [SCRIPT, tabEngine],
  "tab/form.js": [SCRIPT, tabForm],
  "tab/kept_runs.js": [SCRIPT, tabKeptRuns],
  "tab/run_view.js": [SCRIPT, tabRunView],
  "tab/sources.js": [SCRIPT, tabSources],
  "tab/tab.css": [STYLE, tabStyle],
  "words.js": [SCRIPT, words],
};

/** Adds the routes. */
export function addPageRoutes(app: App): void {
  app.get("/", (c) => c.html(page, 200, { "Cache-Control": "no-cache" }));
  for (const [name, [type, text]] of Object.entries(FILES)) {
    app.get(`/page/${name}`, (c) => c.body(text, 200, { "Content-Type": type, "Cache-Control": "no-cache" }));
  }
}
