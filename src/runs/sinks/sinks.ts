/**
 * Metrics of a run for dashboards, written beside its streams while it goes on (`sinks` of the configuration):
 *
 *     tensorboard/events.out.tfevents.*   one file for each process that worked on the run
 *     metrics.jsonl                       one object for each step and each evaluation
 *     metrics.csv                         one line for each number: step, phase, metric, value
 *
 * A resumed run moves what lies behind its checkpoint to its folder replaced/, so that no step stands there twice. What
 * the metrics are is in metrics.ts.
 */
import {
  appendFileSync,
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Table } from 'apache-arrow';
import { onFile, writeFileWhole } from '../../config/files.js';
import { makeFolder } from '../../config/make-folder.js';
import type { SinkName } from '../../config/schema.js';
import type { TableName } from '../../streams/tables.js';
import {
  frame,
  frames,
  histogramValue,
  readEvent,
  scalarValue,
  startEvent,
  summaryEvent,
  textValue,
  versionEvent,
} from './event-file.js';
import { evaluationMetrics, type Metrics, type Phase, type Rows, rowsOf, trainMetrics } from './metrics.js';

/** What of earlier metrics stays: those of steps up to `step`, and of the evaluation after it if it was made. */
export interface Kept {
  step: number;
  evaluated: boolean;
}

type Write = (metrics: Metrics) => void;

const READ = new Set<TableName>([
  'steps',
  'roles',
  'updates',
  'gradients',
  'calls',
  'rewards',
  'prompts',
  'signals',
  'evaluations',
  'greedy_evaluations',
  'timings',
]);

export class Sinks {
  readonly #writers: Write[];
  #rows: Rows = {};

  private constructor(writers: Write[]) {
    this.#writers = writers;
  }

  /** Cuts back what is in the folder of the run, moving the rest to `aside`, and opens the sinks that are wanted. */
  static open(folder: string, names: readonly SinkName[], kept: Kept, aside: string): Sinks {
    const open: Record<SinkName, (folder: string, kept: Kept, aside: string) => () => Write> = {
      tensorboard,
      jsonl,
      csv,
    };
    const opened = (Object.keys(open) as SinkName[]).map(
      (name) => [name, open[name](folder, kept, aside)] as const,
    );
    return new Sinks(opened.filter(([name]) => names.includes(name)).map(([, start]) => start()));
  }

  /** Takes rows that were appended to a stream. */
  add(name: TableName, table: Table): void {
    if (this.#writers.length === 0 || !READ.has(name)) return;
    this.#rows[name] = [...(this.#rows[name] ?? []), ...rowsOf(table)];
  }

  /** Writes what the rows since the last call say of a training step, or of an evaluation. */
  write(phase: Phase): void {
    const metrics = phase === 'train' ? trainMetrics(this.#rows) : evaluationMetrics(this.#rows);
    this.#rows = {};
    if (metrics !== undefined) for (const write of this.#writers) write(metrics);
  }
}

const stays = ({ step, phase }: Pick<Metrics, 'step' | 'phase'>, kept: Kept) =>
  step < kept.step || (step === kept.step && (phase === 'train' || kept.evaluated));

function append(path: string, data: string | Uint8Array): void {
  onFile(path, () => appendFileSync(path, data));
}

/** Moves what lies behind `end` into the file `aside`, behind `head`. */
function cut(path: string, end: number, aside: string, head: string | Uint8Array = ''): void {
  const all = onFile(path, () => readFileSync(path));
  if (all.length <= end) return;
  writeFileWhole(aside, Buffer.concat([Buffer.from(head), all.subarray(end)]));
  onFile(path, () => {
    const descriptor = openSync(path, 'r+');
    try {
      ftruncateSync(descriptor, end);
    } finally {
      closeSync(descriptor);
    }
  });
}

/** Where the lines that stay end. `read` gives what a line is about; undefined: it is no whole line of ours. */
function endOfLines(
  path: string,
  kept: Kept,
  read: (line: string) => Pick<Metrics, 'step' | 'phase'> | undefined,
): number {
  let end = 0;
  for (const line of onFile(path, () => readFileSync(path, 'utf8')).split(/(?<=\n)/)) {
    const about = line.endsWith('\n') ? read(line) : undefined;
    if (about === undefined || !stays(about, kept)) break;
    end += Buffer.byteLength(line);
  }
  return end;
}

function jsonl(folder: string, kept: Kept, aside: string): () => Write {
  const path = join(folder, 'metrics.jsonl');
  if (existsSync(path)) {
    const read = (line: string) => {
      try {
        const { step, phase } = JSON.parse(line) as Metrics;
        return { step, phase };
      } catch {
        return undefined;
      }
    };
    cut(path, endOfLines(path, kept, read), join(aside, 'metrics.jsonl'));
  }
  return () =>
    ({ step, phase, scalars }) =>
      append(path, `${JSON.stringify({ step, phase, ...scalars })}\n`);
}

const CSV_HEAD = 'step,phase,metric,value\n';

function csv(folder: string, kept: Kept, aside: string): () => Write {
  const path = join(folder, 'metrics.csv');
  if (existsSync(path)) {
    const read = (line: string): Pick<Metrics, 'step' | 'phase'> | undefined => {
      if (line === CSV_HEAD) return { step: -1, phase: 'train' };
      const [step, phase] = line.split(',');
      return phase === 'train' || phase === 'evaluation' ? { step: Number(step), phase } : undefined;
    };
    cut(path, endOfLines(path, kept, read), join(aside, 'metrics.csv'), CSV_HEAD);
  }
  return () => {
    if (!existsSync(path) || onFile(path, () => readFileSync(path)).length === 0) append(path, CSV_HEAD);
    return ({ step, phase, scalars }) => {
      const lines = Object.entries(scalars).map(
        ([name, value]) => `${step},${phase},${quoted(name)},${value}\n`,
      );
      append(path, lines.join(''));
    };
  };
}

/** RFC 4180; what workflows count has whatever name they give it. */
const quoted = (name: string) =>
  /[",\r\n]/.test(name) ? `"${name.replaceAll('"', '""').replace(/[\r\n]/g, ' ')}"` : name;

const EVENTS = /^events\.out\.tfevents\./;

function tensorboard(folder: string, kept: Kept, aside: string): () => Write {
  const parent = join(folder, 'tensorboard');
  const names = existsSync(parent)
    ? onFile(parent, () => readdirSync(parent)).filter((name) => EVENTS.test(name))
    : [];
  for (const name of names) cutEvents(join(parent, name), kept, join(aside, 'tensorboard', name));
  return () => {
    onFile(parent, () => makeFolder(parent));
    // TensorBoard reads the files of a folder in the order of their names.
    const place = String(names.length).padStart(4, '0');
    const path = join(parent, `events.out.tfevents.${Math.floor(Date.now() / 1000)}.troupe.${place}`);
    append(path, frame(versionEvent(Date.now() / 1000)));
    if (kept.step >= 0) append(path, frame(startEvent(Date.now() / 1000, kept.step + 1)));
    return ({ step, scalars, histograms, texts }) => {
      const values = [
        ...Object.entries(scalars).map(([name, value]) => scalarValue(name, value)),
        ...Object.entries(histograms).flatMap(([name, all]) =>
          all.length === 0 ? [] : [histogramValue(name, all)],
        ),
        ...Object.entries(texts).map(([name, text]) => textValue(name, text)),
      ];
      append(path, frame(summaryEvent(Date.now() / 1000, step, values)));
    };
  };
}

/** Events come in the order of their steps, and those of evaluations say eval/ throughout. */
function cutEvents(path: string, kept: Kept, aside: string): void {
  let end = 0;
  let head: Uint8Array = new Uint8Array();
  for (const { data, end: next } of frames(onFile(path, () => readFileSync(path)))) {
    const { step, names } = readEvent(data);
    const phase = names.some((name) => name.startsWith('eval/')) ? 'evaluation' : 'train';
    if (names.length > 0 && !stays({ step, phase }, kept)) break;
    if (end === 0) head = frame(data);
    end = next;
  }
  cut(path, end, aside, head);
}
