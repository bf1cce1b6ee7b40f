/**
 * Checkpoints: everything a run needs to continue bit for bit, written so that a kill at any moment leaves the old or the new one.
 *
 * A checkpoint is a folder `step-000100/` with `state.safetensors` (parameters, both Adam moments and the states of
 * trainables, by tensor name), `state.json` and, written last, `manifest.json` with the size and sha256 of both. It is filled under another
 * name, flushed, and renamed.
 *
 * @module
 */
import { createHash } from "node:crypto";
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import { system } from "../../base/system.ts";
import { InputError } from "../../base/errors.ts";
import { openFile, writeFolderAtomically, writeTextAtomically } from "../../formats/files.ts";
import { SafetensorsFile } from "../../formats/safetensors/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors/write.ts";
import type { DataCursor } from "../../text/batch_stream.ts";
import type { ControllerStates } from "../objective/controllers.ts";
import type { FlatState, Parameter, ParameterLayout } from "../trained/parameters.ts";
import type { PlanChoices } from "../program/plan_training.ts";
import type { BegunStudent } from "../inputs/prepare.ts";

/** Where the tensors of a checkpoint lie: those of parameters and moments, those of states, and those of a copy that follows parameters. */
export interface CheckpointLayouts {
  readonly layout: ParameterLayout;
  readonly states: ParameterLayout;
  readonly copy: ParameterLayout;
}

/** What a checkpoint holds beside tensors. Plain JSON. */
export interface CheckpointState extends BegunStudent {
  readonly format: 1;
  /** Optimiser steps done. */
  readonly step: number;
  readonly cursor: DataCursor;
  /** What the controllers of losses remember; absent without controllers. */
  readonly controllers?: ControllerStates;
  /** What the student has written that steps to come will learn from; absent in runs without rollouts. */
  readonly rollouts?: RolloutState;
  /** Identities that a resumed run must share: recipe, models, tokenizer, plugins. */
  readonly identity: Readonly<Record<string, string>>;
  /** The plan's choices, followed exactly on resume. */
  readonly frozen: PlanChoices;
  /** Held-out losses so far, and what early stopping remembers. */
  readonly progress: Progress;
}

/** What rollouts remember. Plain JSON. */
export interface RolloutState {
  /** Codes of the alarms that the last one gave. */
  readonly told: readonly string[];
  /** For each batch to come that the last one was for: the samples that leave it, by their places, and what stands for them. */
  readonly waiting?: readonly {
    readonly leaving: readonly number[];
    readonly answers: readonly {
      /** The sample whose prompt it answers, by its place in the batch. */
      readonly member: number;
      /** What is learnt: the tokens after the prompt, the stop token with them. */
      readonly tokens: readonly number[];
      /** Of each of them, when it was drawn. */
      readonly logProbabilities: readonly number[];
    }[];
  }[];
}

/** Measurements that later decisions and the final report need. */
export interface Progress {
  teacherLoss: number | null;
  beforeLoss: number | null;
  /** The newest held-out loss. */
  lastLoss: number | null;
  /** Lowest held-out loss and its step. */
  best: { loss: number; step: number } | null;
  heldOutTokens: number;
  /** The same of each of several held-out sets, by its name; absent where there is one. */
  sets?: Record<
    string,
    { teacher: number | null; before: number | null; last: number | null; tokens: number }
  >;
  /** Held-out loss in bits a byte, of a teacher with a tokenizer of its own; absent otherwise. */
  bitsPerByte?: { teacher: number | null; before: number | null; last: number | null };
  /** Sum and count of the running window of training losses, and the lowest window mean so far. */
  window: { sum: number; count: number; lowest: number | null };
  samples: { model: "teacher" | "student"; step: number; prompt: string; text: string }[];
  seconds: number;
}

const FORMAT = 1;

/** Folder name of a step's checkpoint. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

/**
 * Writes a checkpoint.
 *
 * @param folder The run's `checkpoints/`
 * @returns The checkpoint's path
 * @throws {DiskFullError} and leaves earlier checkpoints as they were
 */
export async function writeCheckpoint(
  folder: string,
  layouts: CheckpointLayouts,
  flat: FlatState,
  state: Omit<CheckpointState, "format">,
): Promise<string> {
  const path = join(folder, checkpointName(state.step));
  const tensors = KINDS.flatMap((kind) =>
    layoutOf(kind, layouts).parameters.map((p) => ({
      name: tensorName(kind, p),
      dtype: "F32" as const,
      shape: p.shape,
      kind,
      p,
    }))
  );
  const byName = new Map(tensors.map((t) => [t.name, t]));
  await writeFolderAtomically(path, async (temporary) => {
    await writeSafetensors(join(temporary, "state.safetensors"), tensors, ({ name }) => {
      const { kind, p } = byName.get(name)!;
      return flat[kind]!.subarray(p.offset, p.offset + p.count);
    });
    await writeTextAtomically(
      join(temporary, "state.json"),
      JSON.stringify({ format: FORMAT, ...state }, null, 1) + "\n",
    );
    const files: Record<string, { bytes: number; sha256: string }> = {};
    for (const name of FILES) files[name] = await describeFile(join(temporary, name));
    await writeTextAtomically(
      join(temporary, "manifest.json"),
      JSON.stringify({ format: FORMAT, files }, null, 1) + "\n",
    );
  }, { replace: true });
  return path;
}

/**
 * Reads and verifies a checkpoint.
 *
 * @throws {InputError} if a file is missing or differs from the manifest, or the tensors are not those of `layouts`
 */
export async function readCheckpoint(
  path: string,
  layouts: CheckpointLayouts,
): Promise<{ flat: FlatState; state: CheckpointState }> {
  await verifyCheckpoint(path);
  const state = JSON.parse(await system.readTextFile(join(path, "state.json"))) as CheckpointState;
  const file = await SafetensorsFile.open(await openFile(join(path, "state.safetensors")));
  try {
    const empty = (kind: Kind) => new Float32Array(layoutOf(kind, layouts).total);
    const flat = {
      ...{ parameters: empty("parameters"), m: empty("m"), v: empty("v") },
      ...{ states: empty("states"), copy: empty("copy") },
    };
    for (const kind of KINDS) {
      for (const p of layoutOf(kind, layouts).parameters) {
        const name = tensorName(kind, p);
        const tensor = await file.read(name);
        if (String(tensor.shape) !== String(p.shape) || !(tensor.data instanceof Float32Array)) {
          throw new InputError(`tensor ${name} is [${tensor.shape}], expected f32 [${p.shape}]`, {
            where: path,
          });
        }
        flat[kind].set(tensor.data, p.offset);
      }
    }
    return { flat, state };
  } finally {
    file.close();
  }
}

/** @throws {InputError} if the manifest is missing or a file is not what it says */
export async function verifyCheckpoint(path: string): Promise<void> {
  let manifest: { format?: number; files?: Record<string, { bytes: number; sha256: string }> };
  try {
    manifest = JSON.parse(await system.readTextFile(join(path, "manifest.json")));
  } catch (cause) {
    throw new InputError("has no readable manifest.json, so it was not finished", { where: path, cause });
  }
  if (manifest.format !== FORMAT) {
    throw new InputError(`was written in format ${manifest.format}; this version reads ${FORMAT}`, {
      where: path,
    });
  }
  for (const name of FILES) {
    const found = await describeFile(join(path, name));
    const expected = manifest.files?.[name];
    if (found.sha256 !== expected?.sha256 || found.bytes !== expected.bytes) {
      throw new InputError(`${name} is not the file that the manifest describes`, {
        where: path,
        hint: "The checkpoint is damaged: remove its folder, and the run resumes from the one before.",
      });
    }
  }
}

/** Checkpoints of a run by rising step, unfinished ones left out. */
export async function listCheckpoints(folder: string): Promise<{ step: number; path: string }[]> {
  const found: { step: number; path: string }[] = [];
  try {
    for await (const entry of system.readDir(folder)) {
      const match = /^step-(\d{6,})$/.exec(entry.name);
      if (entry.isDirectory && match) found.push({ step: Number(match[1]), path: join(folder, entry.name) });
    }
  } catch (error) {
    if (!(error instanceof system.errors.NotFound)) throw error;
  }
  return found.sort((a, b) => a.step - b.step);
}

/** What the newest readable checkpoint holds beside tensors, unverified; undefined where there is none. */
export async function newestState(folder: string): Promise<CheckpointState | undefined> {
  for (const { path } of (await listCheckpoints(folder)).reverse()) {
    try {
      return JSON.parse(await system.readTextFile(join(path, "state.json"))) as CheckpointState;
    } catch {
      // It is damaged: whoever reads it for its tensors says so.
    }
  }
  return undefined;
}

/** Removes all checkpoints but the last `keep` and the best one. */
export async function pruneCheckpoints(
  folder: string,
  keep: number,
  bestStep: number | undefined,
): Promise<void> {
  const all = await listCheckpoints(folder);
  for (const { step, path } of all.slice(0, Math.max(0, all.length - keep))) {
    if (step !== bestStep) await system.remove(path, { recursive: true });
  }
}

/** Removes the checkpoints of later steps than `step`. */
export async function removeCheckpointsAfter(folder: string, step: number): Promise<void> {
  for (const later of await listCheckpoints(folder)) {
    if (later.step > step) await system.remove(later.path, { recursive: true });
  }
}

const KINDS = ["parameters", "m", "v", "states", "copy"] as const;
type Kind = typeof KINDS[number];

function layoutOf(kind: Kind, { layout, states, copy }: CheckpointLayouts): ParameterLayout {
  return kind === "states" ? states : kind === "copy" ? copy : layout;
}

/** A tensor's name in `state.safetensors`. That of states is an old one, which checkpoints of earlier runs have. */
function tensorName(kind: Kind, { name }: Parameter): string {
  return `${kind === "states" ? "kept" : kind}.${name}`;
}

const FILES = ["state.safetensors", "state.json"] as const;

async function describeFile(path: string): Promise<{ bytes: number; sha256: string }> {
  const source = await openFile(path);
  try {
    const hash = createHash("sha256");
    for (let at = 0; at < source.size; at += PIECE) {
      hash.update(await source.read(at, Math.min(PIECE, source.size - at)));
    }
    return { bytes: source.size, sha256: hash.digest("hex") };
  } finally {
    source.close?.();
  }
}

const PIECE = 8 * 2 ** 20;
