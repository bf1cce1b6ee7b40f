/**
 * What a service has counted since it began, in the text format of Prometheus.
 *
 * @module
 */

/** Labels of a number. */
export type Labels = Readonly<Record<string, string>>;

const HELP: Readonly<Record<string, string>> = {
  limbeck_requests_total: "Requests of those who may send them, by method, route and status.",
  limbeck_request_seconds_sum: "Seconds that requests took, by route.",
  limbeck_events_total: "Events that runs of this service have stored, by type.",
  limbeck_run_states_total: "Changes of state of this service's runs.",
  limbeck_streams: "Readers that are connected to a stream of events.",
  limbeck_runs: "Runs in the store, by state.",
  limbeck_queue_limit: "Runs that may wait.",
  limbeck_resident_bytes: "Memory of this process.",
  limbeck_uptime_seconds: "Seconds since this service began.",
};

/** Counts. */
export class Counters {
  readonly #values = new Map<string, Map<string, number>>();

  /** Adds to a number that only rises. */
  count(name: string, labels: Labels, amount = 1): void {
    const series = this.#values.get(name) ?? new Map<string, number>();
    this.#values.set(name, series);
    const key = labelText(labels);
    series.set(key, (series.get(key) ?? 0) + amount);
  }

  /**
   * The text of all numbers.
   *
   * @param gauges numbers of this moment
   */
  text(gauges: readonly { name: string; labels?: Labels; value: number }[]): string {
    const all = new Map([...this.#values].map(([name, series]) => [name, new Map(series)]));
    for (const { name, labels = {}, value } of gauges) {
      const series = all.get(name) ?? new Map<string, number>();
      all.set(name, series.set(labelText(labels), value));
    }
    const lines: string[] = [];
    for (const [name, series] of [...all].sort(([a], [b]) => a < b ? -1 : 1)) {
      if (HELP[name]) lines.push(`# HELP ${name} ${HELP[name]}`);
      lines.push(`# TYPE ${name} ${this.#values.has(name) ? "counter" : "gauge"}`);
      for (const [labels, value] of series) lines.push(`${name}${labels} ${value}`);
    }
    return lines.join("\n") + "\n";
  }
}

function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) =>
    `${name}="${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`
  );
  return parts.length > 0 ? `{${parts.join(",")}}` : "";
}
