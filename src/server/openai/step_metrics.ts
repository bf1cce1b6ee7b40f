/**
 * The numbers of a run's steps: how many tokens it learnt from, and the result file of a job, which is a CSV of them.
 *
 * @module
 */
import { isEnd } from "../../runs/store/run_states.ts";
import { stateNow } from "../../runs/store/run_summary.ts";
import type { RunStore, StoredRun } from "../../runs/store/store.ts";
import { hashBytes } from "../artifacts.ts";
import type { Upload } from "../uploads.ts";

/** Sums that are remembered. */
const MOST_KNOWN = 1000;

/** Tokens that runs learnt from, each as often as they did. */
export class TrainedTokens {
  readonly #store: RunStore;
  /** By a run and its last event. */
  readonly #known = new Map<string, number>();

  constructor(store: RunStore) {
    this.#store = store;
  }

  /** Null while the run is not at its end. */
  async of(run: StoredRun): Promise<number | null> {
    if (!isEnd(stateNow(run))) return null;
    const key = `${run.id} ${run.seq}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    let sum = 0;
    for (const event of await this.#store.events(run.id, { types: ["metrics"], holding: true })) {
      if (event.type === "metrics") sum += event.supervisedTokens;
    }
    if (this.#known.size >= MOST_KNOWN) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(key, sum);
    return sum;
  }
}

/** A result file: what is told of it, and its bytes. */
export interface ResultFile extends Omit<Upload, "path"> {
  readonly content: Uint8Array<ArrayBuffer>;
}

/** Ids of a job's result files. */
export function resultFiles(run: StoredRun): string[] {
  return isEnd(stateNow(run)) ? [`file-${run.id}-metrics`] : [];
}

/** The result file with an id; undefined where it is none. */
export async function resultFile(store: RunStore, id: string): Promise<ResultFile | undefined> {
  const run = await store.get(/^file-(.+)-metrics$/.exec(id)?.[1] ?? "");
  if (!run || !resultFiles(run).includes(id)) return undefined;
  const content = new TextEncoder().encode(await stepMetrics(store, run));
  return {
    id,
    filename: "step_metrics.csv",
    purpose: "fine-tune-results",
    bytes: content.length,
    sha256: hashBytes(content),
    createdAt: run.finishedAt ?? run.manifest.createdAt,
    owner: run.owner,
    content,
  };
}

/** A line for each step that was trained or measured; a loss that is not finite is left empty. */
async function stepMetrics(store: RunStore, { id }: StoredRun): Promise<string> {
  const rows = new Map<number, Record<string, number | null>>();
  const add = (step: number, values: Record<string, number | null>) =>
    rows.set(step, { ...rows.get(step), ...values });
  for (const event of await store.events(id, { types: ["metrics", "evaluation"], holding: true })) {
    if (event.type === "metrics") {
      const { step, loss, learningRate, gradientNorm, supervisedTokens } = event;
      add(step, {
        train_loss: loss,
        learning_rate: learningRate,
        gradient_norm: gradientNorm,
        trained_tokens: supervisedTokens,
      });
    } else if (event.type === "evaluation" && event.model === "student") {
      add(event.step, { full_valid_loss: event.loss });
    }
  }
  const columns = ["train_loss", "full_valid_loss", "learning_rate", "gradient_norm", "trained_tokens"];
  const lines = [...rows].sort(([a], [b]) => a - b)
    .map(([step, row]) => [step, ...columns.map((column) => row[column] ?? "")].join(","));
  return [`step,${columns.join(",")}`, ...lines].join("\n") + "\n";
}
