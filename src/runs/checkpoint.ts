/**
 * Checkpoints: everything a run needs to go on, in one folder that is there whole or not at all. It is written
 * under another name, brought to the disk, and renamed; checksums show later damage. What the policies' files
 * hold is the business of the caller that writes them; what a run directory holds besides, of run-directory.ts.
 */

import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { makeFolder } from '../config/make-folder.js';
import { fileError, onFile, syncFolder, syncTree, writeFileWhole } from './files.js';
import type { RunStreams, StreamOffsets } from './streams.js';

/** Raised when older checkpoints cannot be read any more. */
const FORMAT = 1;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** What the training loop brings. */
export interface TrainerState {
  /** Steps that are done; the next one has this index. */
  step: number;
  /** What the best checkpoint is chosen by, e.g. the evaluation's accuracy; null: not evaluated. */
  score: number | null;
  /** Whatever else the loop needs to go on: schedules, optimizer step counts. */
  trainer: Json;
}

export interface Checkpoint extends TrainerState {
  folder: string;
  /** Where each stream ended. */
  streams: StreamOffsets;
  /** The files beside state.json, by path in the folder. */
  files: Record<string, FileRecord>;
}

const fileSchema = z.object({ bytes: z.int().min(0), sha256: z.string() });
type FileRecord = z.output<typeof fileSchema>;

/** state.json */
const stateSchema = z.object({
  format: z.literal(FORMAT),
  step: z.int().min(0),
  score: z.number().nullable(),
  trainer: z.json(),
  streams: z.record(z.string(), z.int().min(0)),
  files: z.record(z.string(), fileSchema),
});

/**
 * Writes the checkpoint of a step boundary. `write` gets an empty folder and puts the policies' files there, e.g.
 * `policies/shared/parameters.safetensors`. Streams are brought to the disk first, so that what the checkpoint
 * refers to is there. If anything fails, the checkpoints that were there before are untouched, and the error is
 * thrown, as a TroupeError where it is the file system's.
 */
export async function saveCheckpoint(
  run: string,
  streams: RunStreams,
  state: TrainerState,
  write: (folder: string) => void | Promise<void>,
): Promise<Checkpoint> {
  await streams.endStep();
  const parent = checkpointsFolder(run);
  const earlier = listCheckpoints(run).filter(({ step }) => step === state.step);
  const folder = freeFolder(parent, state.step);
  const partial = join(parent, `.${basename(folder)}.partial`);
  try {
    removeLeftovers(parent);
    makeFolder(partial);
    await write(partial);
    const checkpoint = { ...state, streams: streams.offsets(), files: await recordFiles(partial) };
    const { step, score, trainer } = checkpoint;
    const record = {
      format: FORMAT,
      step,
      score,
      trainer,
      streams: checkpoint.streams,
      files: checkpoint.files,
    };
    writeFileWhole(join(partial, 'state.json'), `${JSON.stringify(record, undefined, 2)}\n`);
    syncTree(partial);
    renameSync(partial, folder);
    syncFolder(parent);
    for (const { folder: replaced } of earlier) remove(replaced);
    return { ...checkpoint, folder };
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    throw fileError(error, folder);
  }
}

/**
 * A run that went on from an earlier checkpoint comes to the same step again. A folder cannot be replaced in one
 * go, so the second has another name, and the first is removed once the second is in place.
 */
function freeFolder(parent: string, step: number): string {
  const name = `step-${String(step).padStart(6, '0')}`;
  for (let attempt = 1; ; attempt += 1) {
    const folder = join(parent, attempt === 1 ? name : `${name}-${attempt}`);
    if (!existsSync(folder)) return folder;
  }
}

/** Complete checkpoints, oldest first. Whether their files are still undamaged is `damage`'s question. */
export function listCheckpoints(run: string): Checkpoint[] {
  const parent = checkpointsFolder(run);
  if (!existsSync(parent)) return [];
  const found = onFile(parent, () => readdirSync(parent)).flatMap((name) => {
    const checkpoint = name.startsWith('step-') ? readCheckpoint(join(parent, name)) : undefined;
    return checkpoint === undefined ? [] : [checkpoint];
  });
  return found.sort((a, b) => a.step - b.step || collator.compare(a.folder, b.folder));
}

/** step-000010-10 comes after step-000010-9. */
const collator = new Intl.Collator('en', { numeric: true });

function readCheckpoint(folder: string): Checkpoint | undefined {
  try {
    const record = stateSchema.parse(JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')));
    const { step, score, trainer, streams, files } = record;
    return { folder, step, score, trainer: trainer as Json, streams: streams as StreamOffsets, files };
  } catch {
    return undefined;
  }
}

/** What is wrong with a checkpoint's files, in words; undefined: nothing. */
export async function damage(checkpoint: Checkpoint): Promise<string | undefined> {
  for (const [name, { bytes, sha256 }] of Object.entries(checkpoint.files)) {
    const path = join(checkpoint.folder, name);
    const size = existsSync(path) ? statSync(path).size : undefined;
    if (size === undefined) return `${name} is missing`;
    if (size !== bytes) return `${name} has ${size} bytes instead of ${bytes}`;
    if ((await checksum(path)) !== sha256) return `${name} does not have its checksum`;
  }
  return undefined;
}

/** The newest checkpoint whose files are undamaged. `warn` hears of every newer one that is not. */
export async function latestCheckpoint(
  run: string,
  warn: (message: string) => void,
): Promise<Checkpoint | undefined> {
  for (const checkpoint of listCheckpoints(run).reverse()) {
    const problem = await damage(checkpoint);
    if (problem === undefined) return checkpoint;
    warn(`${checkpoint.folder} is damaged and not used: ${problem}.`);
  }
  return undefined;
}

/** The checkpoint with the highest score, the newest of several; undefined if none was evaluated. */
export function bestCheckpoint(checkpoints: readonly Checkpoint[]): Checkpoint | undefined {
  const scored = checkpoints.filter((checkpoint) => checkpoint.score !== null);
  return scored.reduce<Checkpoint | undefined>((best, one) => {
    return best === undefined || (one.score ?? 0) >= (best.score ?? 0) ? one : best;
  }, undefined);
}

/** Removes all but the newest `keep` checkpoints and the best one. */
export function pruneCheckpoints(run: string, keep: number): void {
  const checkpoints = listCheckpoints(run);
  const best = bestCheckpoint(checkpoints);
  for (const checkpoint of checkpoints.slice(0, -keep)) {
    if (checkpoint !== best) remove(checkpoint.folder);
  }
}

/** Removes the checkpoints behind `step`, for a run that goes on from there. */
export function discardLater(run: string, step: number): void {
  for (const checkpoint of listCheckpoints(run)) {
    if (checkpoint.step > step) remove(checkpoint.folder);
  }
}

/** Renamed first: a removal that is interrupted must not leave a checkpoint with a part of its files. */
function remove(folder: string): void {
  onFile(folder, () => {
    const removed = join(dirname(folder), `.${basename(folder)}.removed`);
    renameSync(folder, removed);
    rmSync(removed, { recursive: true });
  });
}

/** What a killed process left in the middle of writing or removing. */
function removeLeftovers(parent: string): void {
  if (!existsSync(parent)) return;
  for (const name of readdirSync(parent)) {
    if (name.startsWith('.step-')) rmSync(join(parent, name), { recursive: true, force: true });
  }
}

function checkpointsFolder(run: string): string {
  return join(run, 'checkpoints');
}

async function recordFiles(folder: string): Promise<Record<string, FileRecord>> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const files: Record<string, FileRecord> = {};
  for (const name of names) {
    const path = join(folder, name);
    const status = statSync(path);
    if (status.isFile()) files[name] = { bytes: status.size, sha256: await checksum(path) };
  }
  return files;
}

async function checksum(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest('hex');
}
