/**
 * Progress of something long, on standard error: one line that redraws itself on a terminal, plain lines
 * elsewhere. Standard output stays free for results.
 */
import { printable } from '../config/thrown.js';

/** Where lines go; a part of a tty.WriteStream. */
export interface ProgressOutput {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

export interface ProgressOptions {
  /** What is done, e.g. "train". */
  label: string;
  /** Units until the end. */
  total: number;
  /** One unit in words: "step". */
  unit: string;
  /** Units that were done before, e.g. of a resumed run. */
  done?: number;
  output?: ProgressOutput;
  /** Seconds, of any origin. */
  clock?: () => number;
}

const BAR = 20;
/** Seconds without a line after which one within a unit is written. */
const QUIET = 30;

/**
 * @example
 * const progress = new Progress({ label: 'train', total: 100, unit: 'step' });
 * progress.update(1, { accuracy: '31 %' });
 * progress.note('checkpoint written');
 * progress.finish();
 */
export class Progress {
  private readonly label: string;
  private readonly total: number;
  private readonly unit: string;
  private readonly before: number;
  private readonly output: ProgressOutput;
  private readonly clock: () => number;
  private readonly started: number;
  /** The line on the terminal that the next one replaces. */
  private line = '';
  /** When the last line was written, where lines are. */
  private said: number;

  constructor(options: ProgressOptions) {
    this.label = options.label;
    this.total = options.total;
    this.unit = options.unit;
    this.before = options.done ?? 0;
    this.output = options.output ?? process.stderr;
    this.clock = options.clock ?? (() => performance.now() / 1000);
    this.started = this.clock();
    this.said = this.started;
  }

  /** `done` of the units are done; `values` are shown behind, e.g. { loss: '0.12' }. */
  update(done: number, values: Record<string, string> = {}): void {
    const shown = Object.entries(values).map(([name, value]) => `${name} ${value}`);
    const parts = [this.counted(done), ...this.rate(done), ...shown];
    if (this.output.isTTY) this.draw(`${this.label} ${bar(done / this.total)} ${parts.join(' · ')}`);
    else this.say(`${this.label} ${parts.join(' · ')}`);
  }

  /** How far the present unit is, e.g. "step 3: episodes 12/64"; now and then where it cannot redraw itself. */
  within(text: string): void {
    if (this.output.isTTY) this.draw(`${this.label} ${text}`);
    else if (this.clock() - this.said >= QUIET) this.say(`${this.label} ${text}`);
  }

  /** A line of its own that stays. */
  note(text: string): void {
    const line = this.line;
    this.clear();
    this.output.write(`${printable(text)}\n`);
    if (line !== '') this.draw(line);
  }

  /** Leaves the last line on the terminal. */
  finish(): void {
    if (this.line !== '') this.output.write('\n');
    this.line = '';
  }

  private counted(done: number): string {
    return `${this.unit} ${done}/${this.total}`;
  }

  /** Rate and time left, once there is something to measure. */
  private rate(done: number): string[] {
    const seconds = this.clock() - this.started;
    const units = done - this.before;
    if (units <= 0 || seconds <= 0) return [];
    const each = seconds / units;
    const rate = each >= 1 ? `${each.toFixed(1)} s/${this.unit}` : `${(1 / each).toFixed(1)} ${this.unit}s/s`;
    const left = (this.total - done) * each;
    return done < this.total ? [rate, `${duration(left)} left`] : [rate, `${duration(seconds)} in all`];
  }

  private say(line: string): void {
    this.output.write(`${line}\n`);
    this.said = this.clock();
  }

  private draw(line: string): void {
    const width = this.output.columns ?? 80;
    this.clear();
    this.line = line.length < width ? line : `${line.slice(0, width - 2)}…`;
    this.output.write(this.line);
  }

  private clear(): void {
    // To the line's start, and erase to its end.
    if (this.line !== '') this.output.write('\r\u001b[K');
    this.line = '';
  }
}

/** "█████     " of a part between 0 and 1. */
function bar(part: number): string {
  const full = Math.round(Math.max(0, Math.min(1, part)) * BAR);
  return `${'█'.repeat(full)}${'░'.repeat(BAR - full)}`;
}

/** "45 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
