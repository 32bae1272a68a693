/**
 * Checkpoints: everything a run needs to go on, in one folder that is there whole or not at all. It is written
 * under another name, brought to the disk, and renamed; checksums show later damage. What the policies' files
 * hold is the business of the caller that writes them; what a run directory holds besides, of run-directory.ts.
 */

import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { fileError, onFile, syncFolder, syncTree, writeFileWhole } from '../config/files.js';
import { readJson } from '../config/json.js';
import { makeFolder } from '../config/make-folder.js';
import type { RunStreams, StreamOffsets } from '../streams/run-streams.js';
import { holdsUpTo, streamPath } from '../streams/stream-files.js';
import type { TableName } from '../streams/tables.js';

/** Raised when older checkpoints cannot be read any more. */
const FORMAT = 2;

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

/** A checkpoint as a program sees it. */
export interface KeptCheckpoint {
  /** Steps that were done. */
  step: number;
  /** Accuracy of its evaluation; null: it was not evaluated. */
  score: number | null;
  /** `policies/NAME` in it are models or adapters. */
  folder: string;
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

/** state.json, without its format and its own checksum. */
const stateSchema = z.object({
  step: z.int().min(0),
  score: z.number().nullable(),
  trainer: z.json(),
  streams: z.record(z.string(), z.int().min(0)),
  files: z.record(z.string(), fileSchema),
});

/** A checkpoint that cannot be used, and why, in words. */
interface Unreadable {
  folder: string;
  problem: string;
}

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
  await streams.sync();
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
    const record = { step, score, trainer, streams: checkpoint.streams, files: checkpoint.files };
    const written = { format: FORMAT, sha256: digestOf(record), ...record };
    writeFileWhole(join(partial, 'state.json'), `${JSON.stringify(written, undefined, 2)}\n`);
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

/**
 * Checkpoints whose state can be read, oldest first. Whether their files are still undamaged is `damage`'s question.
 * `warn` hears of those that are left out.
 */
export function listCheckpoints(run: string, warn: (message: string) => void = () => {}): Checkpoint[] {
  return readAll(run)
    .flatMap((one) => {
      if (!('problem' in one)) return [one];
      warn(notUsed(one.folder, one.problem));
      return [];
    })
    .sort((a, b) => a.step - b.step);
}

const notUsed = (folder: string, problem: string): string => `${folder} is not used: ${problem}.`;

/** By the names of their folders. */
function readAll(run: string): (Checkpoint | Unreadable)[] {
  const parent = checkpointsFolder(run);
  return checkpointNames(parent).map((name) => readCheckpoint(join(parent, name)));
}

/** Whether there is any, readable or not: a run that has none can only begin again. */
export const hasCheckpoints = (run: string): boolean => checkpointNames(checkpointsFolder(run)).length > 0;

function checkpointNames(parent: string): string[] {
  if (!existsSync(parent)) return [];
  const names = onFile(parent, () => readdirSync(parent)).filter((name) => name.startsWith('step-'));
  return names.sort(collator.compare);
}

/** step-000010-10 comes after step-000010-9. */
const collator = new Intl.Collator('en', { numeric: true });

function readCheckpoint(folder: string): Checkpoint | Unreadable {
  const file = join(folder, 'state.json');
  if (!existsSync(file)) return { folder, problem: 'state.json is missing' };
  let json: Record<string, unknown> | null;
  try {
    json = readJson(file) as Record<string, unknown> | null;
  } catch {
    return { folder, problem: 'state.json cannot be read' };
  }
  const { format, sha256, ...record } = json ?? {};
  if (format !== FORMAT) {
    return { folder, problem: `it has format ${String(format)}; this Troupe reads format ${FORMAT}` };
  }
  if (digestOf(record) !== sha256) return { folder, problem: 'state.json does not have its checksum' };
  const state = stateSchema.safeParse(record);
  if (!state.success) return { folder, problem: 'state.json is not what Troupe writes' };
  return { folder, ...state.data } as Checkpoint;
}

/** Of a value that JSON gives back as it is. */
function digestOf(record: object): string {
  return createHash('sha256').update(JSON.stringify(record)).digest('hex');
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

/** What is in the way of going on from a checkpoint, in words: damage, or streams that lack rows which it had behind it. */
export async function obstacle(checkpoint: Checkpoint): Promise<string | undefined> {
  const run = dirname(dirname(checkpoint.folder));
  const tables = Object.keys(checkpoint.streams) as TableName[];
  const cut = tables.find((table) => !holdsUpTo(streamPath(run, table), checkpoint.streams[table]));
  const lacks = cut && `${streamPath('', cut)} is cut off before byte ${checkpoint.streams[cut]}, or damaged`;
  return (await damage(checkpoint)) ?? lacks;
}

/** The newest checkpoint that has no `problem`. `warn` hears of every newer one that has. */
export async function latestCheckpoint(
  run: string,
  warn: (message: string) => void,
  problemOf = damage,
): Promise<Checkpoint | undefined> {
  for (const found of readAll(run).reverse()) {
    const problem = 'problem' in found ? found.problem : await problemOf(found);
    if (problem === undefined) return found as Checkpoint;
    warn(notUsed(found.folder, problem));
  }
  return undefined;
}

/** Which checkpoint is meant: the newest, the one with the best evaluation, or that of a step. */
export type Which = 'last' | 'best' | number;

/** Reads --checkpoint. Throws a TroupeError for anything else. */
export function parseWhich(text: string): Which {
  if (text === 'last' || text === 'best') return text;
  if (/^\d+$/.test(text)) return Number(text);
  throw new TroupeError(`is "${text}"; it takes last, best, or the number of a step.`, {
    where: '--checkpoint',
  });
}

/** Throws a TroupeError where there is no such checkpoint, or where it is damaged. */
export async function findCheckpoint(
  run: string,
  which: Which,
  warn: (message: string) => void,
): Promise<Checkpoint> {
  const all = listCheckpoints(run, which === 'best' ? warn : undefined);
  const found =
    which === 'last'
      ? await latestCheckpoint(run, warn)
      : which === 'best'
        ? bestCheckpoint(all)
        : all.findLast(({ step }) => step === which);
  if (found === undefined) {
    // That of the step may be there, and say nothing of itself but its name.
    const isMeant = ({ folder }: Unreadable) => which === Number(/^step-(\d+)/.exec(basename(folder))?.[1]);
    const unreadable = readAll(run).findLast((one) => 'problem' in one && isMeant(one)) as
      | Unreadable
      | undefined;
    if (unreadable !== undefined)
      throw new TroupeError(`is damaged: ${unreadable.problem}.`, { where: unreadable.folder });
    const steps = all.map(({ step }) => step).join(', ');
    const wanted = which === 'best' ? 'no checkpoint that was evaluated' : 'no such checkpoint';
    const there = steps === '' ? 'none can be read' : `there are those of steps ${steps}`;
    throw new TroupeError(which === 'last' ? 'has no checkpoint yet.' : `has ${wanted}; ${there}.`, {
      where: run,
    });
  }
  const problem = which === 'last' ? undefined : await damage(found);
  if (problem !== undefined) throw new TroupeError(`is damaged: ${problem}.`, { where: found.folder });
  return found;
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

/** Moves every checkpoint behind `kept` into `aside`, for a run that goes on from there; without it, all. */
export function moveLater(run: string, kept: Checkpoint | undefined, aside: string): void {
  const parent = checkpointsFolder(run);
  const names = checkpointNames(parent);
  const later = kept === undefined ? names : names.slice(names.indexOf(basename(kept.folder)) + 1);
  if (later.length === 0) return;
  onFile(aside, () => {
    makeFolder(join(aside, 'checkpoints'));
    for (const name of later) renameSync(join(parent, name), join(aside, 'checkpoints', name));
    syncFolder(join(aside, 'checkpoints'));
    syncFolder(parent);
  });
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

/** Parameters and optimizer state of a policy in a checkpoint. */
export function policyFile(checkpoint: string, policy: string): string {
  return join(checkpoint, 'policies', policy, 'training-state.safetensors');
}

/** The same of a checkpoint that holds the policy. Throws a TroupeError where it does not. */
export function heldPolicyFile(checkpoint: string, policy: string): string {
  const file = policyFile(checkpoint, policy);
  if (existsSync(file)) return file;
  const folder = join(checkpoint, 'policies');
  const names = existsSync(folder) ? onFile(folder, () => readdirSync(folder)) : [];
  throw new TroupeError(`holds no policy ${policy}; it holds ${names.sort().join(', ') || 'none'}.`, {
    where: checkpoint,
    hint: "The run's workflow has other roles now than when it was trained: put them back.",
  });
}
