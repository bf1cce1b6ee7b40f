/**
 * Metrics in SQLite, as many points as can be drawn.
 *
 * @module
 */
import type { MetricsPoint, MetricsQuery } from "../store.ts";
import type { SqliteConnection } from "./connection.ts";

const HOLDING = "FROM events WHERE run = ? AND type = 'metrics' AND superseded = 0 AND step BETWEEN ? AND ?";

/** Metrics that hold, parts of equally many steps in one point each. */
export function metricsOf(
  db: SqliteConnection,
  id: string,
  { from, to, points }: MetricsQuery,
): MetricsPoint[] {
  const [range] = db.all(`SELECT min(step) AS first, max(step) AS last ${HOLDING}`, id, from, to);
  if (range?.first === null) return [];
  const [first, last] = [Number(range!.first), Number(range!.last)];
  const width = Math.max(1, Math.ceil((last - first + 1) / points));
  // Numbers are bound as floating point, so the part of a step must be cut to a whole one.
  return db.all(
    `WITH parts AS (
       SELECT max(step) AS last, count(*) AS steps, avg(body ->> '$.loss') AS mean,
         min(body ->> '$.loss') AS least, max(body ->> '$.loss') AS most
       ${HOLDING} GROUP BY CAST((step - ?) / ? AS INTEGER))
     SELECT parts.*, events.body FROM parts JOIN events
     ON run = ? AND type = 'metrics' AND superseded = 0 AND step = last ORDER BY last`,
    id,
    from,
    to,
    first,
    width,
    id,
  ).map((row) => ({
    metrics: JSON.parse(String(row.body)),
    steps: Number(row.steps),
    loss: { mean: finite(row.mean), least: finite(row.least), most: finite(row.most) },
  }));
}

/** A number that SQLite has computed, or null where there was none. */
function finite(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}
