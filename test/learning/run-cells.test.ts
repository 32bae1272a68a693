/**
 * How the cells of a study end, told from their processes: stand-ins for `troupe train`, which a signal ends at once, or
 * which are too late.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { printConfig } from '../../src/config/print.js';
import { type Cell, loadStudy } from '../../src/learning/study/matrix.js';
import { type CellStatus, runCells, runOf } from '../../src/learning/study/run-cells.js';
import { lockRun } from '../../src/runs/lock.js';
import { temporaryFolder } from '../runs/temporary.js';

interface Play {
  /** A shell script. */
  script: string;
  /** Hears of each change before the cell's process starts, or after it ended. */
  onChange?(status: CellStatus, stop: () => void, folder: string): void;
  prepare?(run: string, cell: Cell): void;
}

/** The run's lock, as that process would have it. */
function holdAs(run: string, pid: number): void {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  mkdirSync(run, { recursive: true });
  const holder = { host: hostname(), pid, started, holds: true };
  writeFileSync(join(run, `lock-${pid}-${started}.json`), JSON.stringify(holder));
}

function thrownBy(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('nothing was thrown');
}

/** One cell, and the state it ends in. */
async function play({ script, onChange, prepare }: Play): Promise<CellStatus & { folder: string }> {
  const folder = temporaryFolder();
  const file = join(folder, 'study.yaml');
  writeFileSync(file, 'axes: { workflow: [single], seed: [0] }\nconfig: { steps: 1 }\n');
  const { cells } = await loadStudy(file);
  const [cell] = cells;
  if (cell === undefined) throw new Error('no cell');
  prepare?.(runOf(folder, cell), cell);
  const controller = new AbortController();
  const [status] = await runCells({
    folder,
    cells,
    jobs: 1,
    devices: [],
    command: ['sh', '-c', script],
    onChange: (_all, changed) => onChange?.(changed, () => controller.abort(), folder),
    signal: controller.signal,
  });
  if (status === undefined) throw new Error('no status');
  return { ...status, folder };
}

it('a cell that the study stopped before it could take the signal was stopped, not failed', async () => {
  const stopSoon = (status: CellStatus, stop: () => void) => {
    if (status.state === 'running') setTimeout(stop, 20);
  };
  const ended = await play({ script: 'exec sleep 30', onChange: stopSoon });
  expect(ended).toMatchObject({ state: 'stopped', error: expect.stringContaining('SIGTERM') });
});

it('one that a signal from elsewhere ended says which, and how it goes on', async () => {
  const ended = await play({ script: 'echo "step 3/9" >&2; kill -KILL $$' });
  expect(ended.state).toBe('failed');
  expect(ended.error).toMatch(/^its process was ended by SIGKILL, as .*memory.*; the same command goes on/);
});

it('one that another process took first is left to it', async () => {
  const take = (status: CellStatus, _stop: () => void, folder: string) => {
    if (status.state !== 'running') return;
    const other = spawn('sleep', ['60']);
    onTestFinished(() => void other.kill('SIGKILL'));
    holdAs(runOf(folder, status.cell), other.pid ?? 0);
  };
  const ended = await play({ script: 'echo "troupe: too late" >&2; exit 1', onChange: take });
  expect(ended.state).toBe('elsewhere');
});

it('one of another host whose signs of life look too old by the clock here is left to it', async () => {
  const held = temporaryFolder();
  onTestFinished(lockRun(held));
  const refusal = thrownBy(() => lockRun(held));
  const ended = await play({ script: `echo "troupe: ${refusal}" >&2; exit 1` });
  expect(ended.state).toBe('elsewhere');
});

it('one that another process began and ended meanwhile is gone on with', async () => {
  // "$1" "$2" "$3": CONFIG --run RUN.
  const late =
    'mkdir -p "$3/checkpoints/step-000001"; cp "$1" "$3/config.yaml"; echo "troupe: already holds a run." >&2; exit 1';
  const script = `case "$1" in --resume) echo '{"stopped": false}';; *) ${late};; esac`;
  const { state, folder, cell } = await play({ script });
  expect(state).toBe('done');
  expect(existsSync(join(runOf(folder, cell), 'outcome.json'))).toBe(true);
});

it('one that leaves a process behind, which holds what it printed into, has ended with its own', async () => {
  const script = 'sleep 30 & echo $! >&2; echo "troupe: that failed" >&2; exit 1';
  const { state, error, folder, cell } = await play({ script });
  expect([state, error]).toEqual(['failed', 'troupe: that failed']);
  const log = readFileSync(join(folder, 'logs', `${cell.id}.log`), 'utf8');
  expect(log).toMatch(/^\d+\ntroupe: that failed\n$/);
  expect(process.kill(Number(log.split('\n')[0]), 'SIGKILL')).toBe(true);
  expect(readdirSync(join(folder, 'logs'))).toEqual([`${cell.id}.log`]);
});

it('one whose first checkpoint was broken off begins again', async () => {
  const begun = (run: string, cell: Cell) => {
    mkdirSync(join(run, 'checkpoints', '.step-000000.partial'), { recursive: true });
    writeFileSync(join(run, 'config.yaml'), printConfig(cell.config));
  };
  const { folder, cell } = await play({ script: 'echo "$@" >&2; exit 1', prepare: begun });
  const log = readFileSync(join(folder, 'logs', `${cell.id}.log`), 'utf8');
  expect(log).toContain('--restart');
  expect(existsSync(join(runOf(folder, cell), 'outcome.json'))).toBe(false);
});
