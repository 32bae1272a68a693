/** `troupe tail RUN --table NAME`: a stream of a run on standard output, to its end or as its steps land. */
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import type { Table } from 'apache-arrow';
import type { CommandModule } from 'yargs';
import { isInUse } from '../config/lock.js';
import { leftOut } from '../runs/read-tables.js';
import { readRunConfig } from '../runs/run-directory.js';
import { END_OF_STREAM, followStream, type StreamPart } from '../streams/follow.js';
import { streamPath, TABLE_NAMES } from '../streams/stream-files.js';
import { decodeTable } from '../streams/stream-reader.js';
import type { TableName } from '../streams/tables.js';

const FORMATS = ['arrow', 'jsonl'] as const;

interface Arguments {
  run: string;
  table: TableName;
  follow: boolean;
  format: (typeof FORMATS)[number] | undefined;
}

export const tailCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'Run directory' })
      .option('table', {
        choices: TABLE_NAMES,
        demandOption: true,
        describe: 'Which stream (docs/streams.md)',
      })
      .option('follow', {
        alias: 'f',
        type: 'boolean',
        default: false,
        describe: 'Go on as steps land, until the run ends',
      })
      .option('format', {
        choices: FORMATS,
        describe: 'Arrow IPC, or one JSON object for each row; default: jsonl on a terminal, else arrow',
      }),
  handler: tail,
};

async function tail({ run, table, follow, format }: Arguments): Promise<void> {
  readRunConfig(run);
  const output = process.stdout;
  const path = streamPath(run, table);
  const encode =
    (format ?? (output.isTTY ? 'jsonl' : 'arrow')) === 'arrow' ? encodeArrow() : encodeLines(path);
  // A run that is beginning has no streams yet; one that is not, never will.
  const isLive = () => follow && isInUse(run);
  if (!existsSync(path) && isInUse(run) && !follow) return;
  let shown = 0;
  for await (const part of followStream(path, { isLive })) {
    if (part.rewound) process.stderr.write(`${path}: the run was resumed; its rows since then come again.\n`);
    shown += part.bytes.length;
    await write(encode(part));
  }
  if (encode.end !== undefined) await write(encode.end);
  const rest = statSync(path).size - shown;
  if (rest > 0 && !isInUse(run)) process.stderr.write(`${leftOut(path, rest)}\n`);

  async function write(data: Uint8Array | string): Promise<void> {
    // A slow reader holds the writer up, not the other way round.
    if (data.length > 0 && !output.write(data)) await once(output, 'drain');
  }
}

interface Encoder {
  (part: StreamPart): Uint8Array | string;
  /** What follows the last part. */
  end?: Uint8Array;
}

function encodeArrow(): Encoder {
  return Object.assign(({ bytes }: StreamPart) => bytes, { end: END_OF_STREAM });
}

function encodeLines(path: string): Encoder {
  let header = new Uint8Array(0);
  return ({ kind, bytes }) => {
    if (kind === 'batch') return linesOf(decodeTable(Buffer.concat([header, bytes]), path));
    header = bytes as Uint8Array<ArrayBuffer>;
    return '';
  };
}

/** JSON has no NaN or infinity: they become null. Integers of 64 bits become numbers. */
export function linesOf(table: Table): string {
  const columns = table.schema.fields.map(({ name }, i) => ({ name, values: table.getChildAt(i) }));
  const row = (r: number) =>
    Object.fromEntries(columns.map(({ name, values }) => [name, plain(values?.get(r))]));
  return Array.from({ length: table.numRows }, (_, r) => `${JSON.stringify(row(r))}\n`).join('');
}

function plain(value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value;
}
