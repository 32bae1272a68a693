/**
 * Progress of a study on standard error: on a terminal a table of the cells that redraws itself, elsewhere a line
 * when a cell starts or ends.
 */
import { createLogUpdate } from 'log-update';
import { progressOf } from '../learning/study/results.js';
import type { CellStatus } from '../learning/study/run-cells.js';
import { duration } from '../runs/progress.js';

/** Milliseconds between drawings: what they read is written step by step. */
const INTERVAL = 2000;
/** Lines of the terminal that the table leaves free. */
const MARGIN = 4;

const HEADER = 'state     steps      base    now   peak     time  cell';

export class StudyProgress {
  readonly #folder: string;
  readonly #output: NodeJS.WriteStream;
  readonly #draw: ReturnType<typeof createLogUpdate> | undefined;
  readonly #rows = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #statuses: readonly CellStatus[] = [];

  constructor(folder: string, output: NodeJS.WriteStream = process.stderr) {
    this.#folder = folder;
    this.#output = output;
    this.#draw = output.isTTY ? createLogUpdate(output) : undefined;
  }

  show(statuses: readonly CellStatus[], changed: CellStatus): void {
    this.#statuses = statuses;
    this.#rows.delete(changed.cell.id);
    if (this.#draw === undefined) {
      this.#output.write(`${this.#counts()}  ${this.#row(changed)}\n`);
      return;
    }
    this.#timer ??= setInterval(() => this.#redraw(), INTERVAL);
    this.#redraw();
  }

  end(): void {
    clearInterval(this.#timer);
    if (this.#statuses.length > 0) this.#draw?.done();
  }

  #redraw(): void {
    const rank: Record<CellStatus['state'], number> = {
      running: 0,
      failed: 1,
      stopped: 1,
      elsewhere: 1,
      done: 2,
      waiting: 3,
    };
    const newest = (one: CellStatus) => one.ended ?? one.started ?? 0;
    const sorted = this.#statuses.toSorted((a, b) => rank[a.state] - rank[b.state] || newest(b) - newest(a));
    const room = Math.max(1, (this.#output.rows ?? 24) - MARGIN);
    const lines = sorted.slice(0, room).map((status) => this.#row(status));
    const hidden = sorted.length - lines.length;
    const rest = hidden > 0 ? [`… and ${hidden} more`] : [];
    this.#draw?.([HEADER, ...lines, ...rest, this.#counts()].join('\n'));
  }

  #row(status: CellStatus): string {
    const { cell, state } = status;
    const kept = this.#rows.get(cell.id);
    if (kept !== undefined) return kept;
    const row = this.#newRow(status);
    if (state !== 'running') this.#rows.set(cell.id, row);
    return row;
  }

  #newRow({ cell, state, started, ended, error }: CellStatus): string {
    const { steps, cliff } = state === 'waiting' ? { steps: 0, cliff: null } : progressOf(this.#folder, cell);
    const shares = [cliff?.first, cliff?.current, cliff?.peak].map((point) => {
      return (point === undefined ? '–' : `${(100 * point.accuracy).toFixed(1)}%`).padStart(6);
    });
    const time = started === undefined ? '' : duration(((ended ?? Date.now()) - started) / 1000);
    const done = `${steps}/${cell.config.steps}`.padEnd(9);
    const what = error === undefined ? cell.id : `${cell.id}: ${error}`;
    return `${state.padEnd(9)} ${done} ${shares.join(' ')} ${time.padStart(9)}  ${what}`;
  }

  #counts(): string {
    const count = (state: CellStatus['state']) => this.#statuses.filter((one) => one.state === state).length;
    const failed = count('failed');
    return `[${count('done')}/${this.#statuses.length} done${failed > 0 ? `, ${failed} failed` : ''}]`;
  }
}
