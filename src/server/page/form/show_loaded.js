/** A view of what has to be read from the service first. */
import { fill, h } from "../dom.js";

/**
 * Reads, and shows what is made of it; returns how to stop.
 *
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {(loaded: T, signal: AbortSignal) => void} show
 * @template T
 */
export function showLoaded(main, load, show) {
  const abort = new AbortController();
  const { signal } = abort;
  fill(main, h("p", { class: "empty" }, "Reading what the service has …"));
  load(signal).then(
    (loaded) => !signal.aborted && show(loaded, signal),
    (error) => !signal.aborted && fill(main, h("p", { class: "notice bad", role: "alert" }, error.message)),
  );
  return () => abort.abort();
}
