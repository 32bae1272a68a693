/**
 * Runs the cells of a study, each in a process of its own, so that one that fails takes no other with it. In the
 * study's folder:
 *
 *     configs/CELL.yaml   the configuration of a cell
 *     runs/CELL/          its run directory, with outcome.json once it has ended
 *     logs/CELL.log       what its processes printed
 *
 * What has ended is not run again; what was broken off goes on from its checkpoint.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, fstatSync, openSync, readSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { TroupeError } from '../../config/errors.js';
import { onFile, writeFileWhole } from '../../config/files.js';
import { isInUse } from '../../config/lock.js';
import { makeFolder } from '../../config/make-folder.js';
import { printConfig } from '../../config/print.js';
import { hasCheckpoints } from '../../runs/checkpoint.js';
import { IN_USE } from '../../runs/lock.js';
import { loadRun } from '../../runs/run-config.js';
import { HOLDS_A_RUN, isRun } from '../../runs/run-directory.js';
import type { Cell } from './matrix.js';

/** elsewhere: another process works on it. stopped: broken off with the study, to be continued. */
export type CellState = 'waiting' | 'running' | 'done' | 'failed' | 'stopped' | 'elsewhere';

export interface CellStatus {
  cell: Cell;
  state: CellState;
  /** Milliseconds since 1970; of the process that runs or ran it here. */
  started?: number;
  ended?: number;
  /** Of a failed one: the last line that it printed, or what ended it; of a stopped one, where it did not save. */
  error?: string;
}

export interface RunCells {
  folder: string;
  cells: readonly Cell[];
  /** Cells at a time. */
  jobs: number;
  /** CUDA_VISIBLE_DEVICES of the first, the second, … job; empty: left alone. */
  devices: readonly string[];
  /** Starts Troupe, e.g. [node, main.js]; its arguments follow. */
  command: readonly [string, ...string[]];
  /** Called with every change of a state. */
  onChange(statuses: readonly CellStatus[], changed: CellStatus): void;
  /** Running cells save and stop, no new one is started. */
  signal: AbortSignal;
}

/** The run directory of a cell. */
export function runOf(folder: string, cell: Cell): string {
  return join(folder, 'runs', cell.id);
}

export function hasEnded(folder: string, cell: Cell): boolean {
  return existsSync(outcomePath(folder, cell));
}

function outcomePath(folder: string, cell: Cell): string {
  return join(runOf(folder, cell), 'outcome.json');
}

/** Returns how each cell ended. Throws a TroupeError before it starts any if one was run with another configuration. */
export async function runCells(options: RunCells): Promise<CellStatus[]> {
  const { folder, cells, jobs, devices } = options;
  for (const cell of cells) checkSame(folder, cell);
  for (const name of ['configs', 'runs', 'logs']) {
    onFile(join(folder, name), () => makeFolder(join(folder, name)));
  }
  const statuses = cells.map((cell): CellStatus => {
    return { cell, state: hasEnded(folder, cell) ? 'done' : 'waiting' };
  });
  const queue = statuses.filter(({ state }) => state === 'waiting');
  const work = async (job: number) => {
    for (let next = queue.shift(); next !== undefined && !options.signal.aborted; next = queue.shift()) {
      const change = (changes: Partial<CellStatus>) => {
        Object.assign(next, changes);
        options.onChange(statuses, next);
      };
      const others = byOthers(folder, next.cell);
      if (others !== undefined) {
        change({ state: others });
        continue;
      }
      change({ state: 'running', started: Date.now() });
      const ended = await runCell(options, next.cell, devices[job % devices.length]);
      change({ ...ended, ended: Date.now() });
    }
  };
  await Promise.all(Array.from({ length: jobs }, (_, job) => work(job)));
  return statuses;
}

/** What another study's process has made of the cell, or makes of it now. */
function byOthers(folder: string, cell: Cell): CellState | undefined {
  if (hasEnded(folder, cell)) return 'done';
  return isInUse(runOf(folder, cell)) ? 'elsewhere' : undefined;
}

/** Results of two configurations must not end up in one study. */
function checkSame(folder: string, cell: Cell): void {
  const run = runOf(folder, cell);
  if (!isRun(run)) return;
  // As this version reads it: keys that were added since have their defaults.
  const before = loadRun(run).config;
  if (printConfig(before) === printConfig(cell.config)) return;
  throw new TroupeError('was run with another configuration than the study says now.', {
    where: run,
    hint: 'Take another --folder, or remove this run to run the cell again.',
  });
}

type Ended = Pick<CellStatus, 'state' | 'error'>;

async function runCell(options: RunCells, cell: Cell, device: string | undefined): Promise<Ended> {
  const { folder, command, signal, jobs } = options;
  const run = runOf(folder, cell);
  const config = join(folder, 'configs', `${cell.id}.yaml`);
  writeFileWhole(config, printConfig(cell.config));
  const [program, ...first] = command;
  // Killed before its first checkpoint, it begins again.
  const resumed = ['--resume', run, ...(hasCheckpoints(run) ? [] : ['--restart'])];
  const what = isRun(run) ? resumed : [config, '--run', run];
  const environment = { ...process.env };
  if (device !== undefined) environment.CUDA_VISIBLE_DEVICES = device;
  // Processes with more threads than cores wait for each other in every parallel region.
  environment.OMP_NUM_THREADS ??= String(Math.max(1, Math.floor(cpus().length / jobs)));
  const start = (output: number, log: number) => {
    // In a group of its own: of an interrupt at the terminal it hears once, from here.
    const stdio = ['ignore', output, log] as const;
    const options = { env: environment, stdio: [...stdio], detached: true };
    const child = spawn(program, [...first, 'train', ...what, '--json'], options);
    const stop = () => child.kill('SIGTERM');
    signal.addEventListener('abort', stop);
    child.once('exit', () => signal.removeEventListener('abort', stop));
    return child;
  };
  const end = await endOfProcess(start, join(folder, 'logs', `${cell.id}.log`));
  const { said } = end;
  const ended = endOf(end, outcomePath(folder, cell));
  if (ended.state !== 'failed') return ended;
  // It may have been told to stop before it could take the signal; and of two studies at once one is too late.
  if (signal.aborted) return { ...ended, state: 'stopped' };
  const others = byOthers(folder, cell);
  if (others !== undefined) return { state: others };
  // Another host's process, whose last sign of life looked too old by this host's clock: the cell's own has waited for one.
  if (ended.error?.includes(`: ${IN_USE} `)) return { state: 'elsewhere' };
  // The other one has just ended, and its study has not said so yet.
  const begunByOthers = what[0] === config && said.includes(HOLDS_A_RUN);
  return begunByOthers ? await runCell(options, cell, device) : ended;
}

interface ProcessEnd {
  code: number | null;
  killed: NodeJS.Signals | null;
  /** On standard output: the outcome of `troupe train --json`. */
  printed: string;
  /** The end of what it wrote into its log. */
  said: string;
}

/** Characters of a log that its last sentence is looked for in. */
const LOG_END = 4096;

/**
 * Starts a process and waits for its end. It writes into files: a pipe has its end only when all who have inherited it are
 * gone, and a user's file may leave processes behind that go on for longer than its own.
 */
async function endOfProcess(
  start: (output: number, log: number) => ChildProcess,
  path: string,
): Promise<ProcessEnd> {
  const log = onFile(path, () => openSync(path, 'a+'));
  const outputPath = `${path}.output`;
  const output = onFile(outputPath, () => openSync(outputPath, 'w+'));
  // It goes with the last process that writes to it.
  rmSync(outputPath);
  try {
    const before = fstatSync(log).size;
    const child = start(output, log);
    const end = await new Promise<Pick<ProcessEnd, 'code' | 'killed'> & { error?: Error }>((resolve) => {
      child.once('error', (error) => resolve({ code: null, killed: null, error }));
      child.once('exit', (code, killed) => resolve({ code, killed }));
    });
    const from = Math.max(before, fstatSync(log).size - LOG_END);
    const said = end.error === undefined ? textOf(log, from) : `troupe: ${end.error.message}`;
    return { ...end, printed: textOf(output, 0), said };
  } finally {
    closeSync(log);
    closeSync(output);
  }
}

/** What stands in an open file from a byte on. */
function textOf(file: number, from: number): string {
  const text = Buffer.alloc(fstatSync(file).size - from);
  return text.subarray(0, readSync(file, text, 0, text.length, from)).toString();
}

function endOf({ code, killed, printed, said }: ProcessEnd, path: string): Ended {
  const lines = said.trim().split('\n');
  const sentence = lines.findLast((line) => line.startsWith('troupe: '));
  if (killed !== null) return { state: 'failed', error: sentence ?? endedBy(killed) };
  // A sentence may be followed by others of its own.
  const last = sentence ?? lines.at(-1);
  if (code !== 0) return { state: 'failed', error: last || `ended with exit code ${code}` };
  const outcome = outcomeOf(printed);
  if (outcome === undefined) return { state: 'failed', error: last || 'ended without saying how' };
  // A run that an alarm ended has ended.
  if (outcome.stopped && outcome.alarm === undefined) return { state: 'stopped' };
  writeFileWhole(path, printed);
  return { state: 'done' };
}

/** A signal that did not come from the study. */
function endedBy(signal: NodeJS.Signals): string {
  const why = signal === 'SIGKILL' ? ', as the system does when memory runs out' : '';
  return `its process was ended by ${signal}${why}; the same command goes on with it`;
}

/** What `troupe train --json` printed; undefined where it did not come to its end. */
function outcomeOf(printed: string): { stopped: boolean; alarm?: string } | undefined {
  try {
    return JSON.parse(printed) as { stopped: boolean; alarm?: string };
  } catch {
    return undefined;
  }
}
