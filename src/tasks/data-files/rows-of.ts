/**
 * The rows of a data file of any kind, a part of the file at a time: JSON lines, a JSON array, CSV, TSV, Parquet, Arrow;
 * packed by gzip or zstd. What the first bytes say of a file counts before its ending.
 */
import { closeSync, lstatSync, openSync, readSync, realpathSync, type Stats, statSync } from 'node:fs';
import { basename } from 'node:path';
import { reasonOf, TroupeError } from '../../config/errors.js';
import { findPath } from '../../config/package.js';
import { binaryRows } from './binary.js';
import { bytesOf, type Packing } from './bytes.js';
import { csvRows } from './csv.js';
import type { ReadRow } from './data-row.js';
import { asRow, jsonRows } from './json.js';

/** For error messages and the description of `task.files`. */
export const KINDS = '.jsonl, .json, .csv, .tsv, .parquet or .arrow; the first four also as .gz or .zst';

/** Throws a TroupeError for a file that is not there or cannot be read to its end. */
export async function* rowsOf(path: string): AsyncGenerator<ReadRow[]> {
  const file = findPath(path);
  const stat = statOf(file);
  try {
    yield* read(file, stat);
  } catch (error) {
    if (error instanceof TroupeError) throw error;
    throw new TroupeError(`cannot be read as data rows: ${reasonOf(error)}.`, {
      where: file,
      hint: 'Write or download it again.',
      cause: error,
    });
  }
}

async function* read(file: string, stat: Stats): AsyncGenerator<ReadRow[]> {
  const name = basename(file);
  const head = stat.isFile() ? beginning(file) : Buffer.alloc(0);
  const binary = binaryKind(head);
  const packing = packingOf(head);
  const ending = endingOf(stat.isFile() ? [file, realpathSync(file)] : [file]);
  if (binary !== undefined) return yield* numbered(name, binaryRows({ file, kind: binary }));
  if (ending === 'arrow' && packing !== undefined) {
    return yield* numbered(name, binaryRows({ file, kind: 'arrow', packing }));
  }
  if (ending === 'parquet' || ending === 'arrow') {
    const what = packing === undefined ? `it is no ${ending} file` : `${packing} around it; unpack it first`;
    throw new Error(what);
  }
  const bytes = bytesOf(file, packing, stat.size);
  yield* ending === 'json' ? jsonRows(name, bytes) : csvRows(name, bytes, ending === 'csv' ? ',' : '\t');
}

async function* numbered(name: string, batches: AsyncIterable<unknown[]>): AsyncGenerator<ReadRow[]> {
  let number = 0;
  for await (const rows of batches) yield rows.map((row) => asRow(`${name}:${++number}`, row));
}

function statOf(file: string): Stats {
  let stat: Stats;
  try {
    stat = statSync(file);
  } catch (cause) {
    if (lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink()) {
      throw new TroupeError('is a link to a file that is not there.', {
        where: file,
        hint: 'Download it again.',
        cause,
      });
    }
    throw new TroupeError('there is no such data file.', { where: file, hint: 'Check its path.', cause });
  }
  if (stat.isDirectory()) {
    throw new TroupeError('is a folder.', { where: file, hint: 'Name the data files in it, in a list.' });
  }
  // /dev/zero has no end; a pipe from another program has.
  if (stat.isCharacterDevice() || stat.isBlockDevice())
    throw new TroupeError('is a device.', { where: file });
  return stat;
}

function beginning(file: string): Buffer {
  const descriptor = openSync(file, 'r');
  try {
    const head = Buffer.alloc(8);
    return head.subarray(0, readSync(descriptor, head, 0, head.length, 0));
  } finally {
    closeSync(descriptor);
  }
}

/** An Arrow stream has no magic, but begins with a continuation mark and the length of its schema. */
function binaryKind(head: Buffer): 'parquet' | 'arrow' | undefined {
  if (/^PAR[1E]/.test(head.toString('latin1'))) return 'parquet';
  return head.toString('latin1').startsWith('ARROW1') || (head.length >= 4 && head.readInt32LE(0) === -1)
    ? 'arrow'
    : undefined;
}

function packingOf(head: Buffer): Packing | undefined {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  return head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528 ? 'zstd' : undefined;
}

const ENDINGS = {
  json: ['.json', '.jsonl', '.ndjson'],
  csv: ['.csv'],
  tsv: ['.tsv', '.tab'],
  parquet: ['.parquet', '.pq'],
  arrow: ['.arrow', '.feather', '.ipc', '.arrows'],
} as const;

type Ending = keyof typeof ENDINGS;

/**
 * By the file's name in capitals or not; where that says nothing, by the name of what it links to: the
 * hub's cache keeps its files without endings, and links to them. JSON where neither says anything.
 */
function endingOf(paths: string[]): Ending {
  for (const path of paths) {
    const inner = path.toLowerCase().replace(/\.(?:gz|gzip|zst|zstd)$/, '');
    for (const [ending, names] of Object.entries(ENDINGS)) {
      if (names.some((one) => inner.endsWith(one))) return ending as Ending;
    }
  }
  return 'json';
}
