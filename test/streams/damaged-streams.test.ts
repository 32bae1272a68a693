/**
 * Stream files whose bytes are not what was written. Each of these made a reader loop for hours, take all memory or
 * show rows that were never there: apache-arrow believes every length and offset that it finds.
 */
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { exportParquet } from '../../src/runs/parquet.js';
import { streamPath } from '../../src/streams/stream-files.js';
import { bytesSource, type StreamMessage, scanMessages } from '../../src/streams/stream-messages.js';
import { readStream } from '../../src/streams/stream-reader.js';
import { evaluation, stepRows } from '../report/measurements.js';
import { MadeUpRun } from '../runs/made-up-run.js';
import { temporaryFolder } from '../runs/temporary.js';

let folder: string;
let path: string;
let whole: Buffer;
let messages: StreamMessage[];
const STEPS = 3;

beforeEach(() => {
  const run = new MadeUpRun();
  for (let step = 0; step < STEPS; step++) run.append({ ...stepRows(step), ...evaluation(step, 3) });
  run.release();
  folder = run.folder;
  path = streamPath(folder, 'calls');
  whole = readFileSync(path);
  messages = [...scanMessages(bytesSource(whole))];
});

/** Batches that are read, or the sentence instead. */
function outcome(bytes: Uint8Array): number | string {
  writeFileSync(path, bytes);
  try {
    return readStream(path).batches;
  } catch (error) {
    if (error instanceof TroupeError) return error.message;
    throw error;
  }
}

const batch = (i: number) => messages.filter(({ kind }) => kind === 'batch')[i] as StreamMessage;

/** All bytes of the file but these, as 64-bit numbers. */
function withNumber(at: number, value: bigint): Buffer {
  const bytes = Buffer.from(whole);
  bytes.writeBigInt64LE(value, at);
  return bytes;
}

/** Places in a message's metadata where a 64-bit number stands. */
function placesOf(number: bigint, { offset }: StreamMessage): number[] {
  const header = whole.readInt32LE(offset + 4);
  const places = Array.from({ length: header / 4 - 1 }, (_, i) => offset + 8 + 4 * i);
  return places.filter((at) => whole.readBigInt64LE(at) === number);
}

describe('a damaged stream', () => {
  it.each([-1n, -(2n ** 62n), 0n, 2n ** 31n, 2n ** 53n, 2n ** 63n - 1n])(
    'is read up to a batch whose body would have %s bytes',
    (size) => {
      const second = batch(1);
      const body = BigInt(second.bytes - 8 - whole.readInt32LE(second.offset + 4));
      const places = placesOf(body, second);
      expect(places.length).toBeGreaterThan(0);
      for (const at of places) expect(outcome(withNumber(at, size))).toBe(1);
    },
  );

  it.each([-1n, 5n, 2n ** 40n, 2n ** 63n - 1n])('does not show %s rows that are not there', (rows) => {
    const places = placesOf(BigInt(rowsOf(1)), batch(1));
    // Of the batch, and of each of its columns.
    expect(places.length).toBeGreaterThan(20);
    for (const at of places) {
      const found = outcome(withNumber(at, rows));
      if (typeof found === 'number') expect(found).toBe(1);
      else expect(found).toMatch(/calls\.arrows: is damaged: .*\.( |$)/);
    }
  });

  it('never makes a word or a text up', () => {
    const { offset, bytes: size } = batch(0);
    for (let at = offset; at < offset + size; at += 28) {
      const bytes = Buffer.from(whole);
      bytes.writeInt32LE(0x7ffffff0, at);
      const found = outcome(bytes);
      if (typeof found === 'string')
        expect(found).toMatch(/^\S*calls\.arrows: is damaged: it holds .*\. Take/);
      else
        for (const row of readStream(path).table) JSON.stringify(row.toJSON(), (_, value) => String(value));
    }
  });

  it('has a schema whose every number may be wrong', () => {
    const end = messages.find(({ kind }) => kind !== 'schema')?.offset ?? 0;
    for (let at = 8; at + 4 <= end; at += 20) {
      for (const value of [-1, 0x7fffffff]) {
        const bytes = Buffer.from(whole);
        bytes.writeInt32LE(value, at);
        expect(typeof outcome(bytes)).toMatch(/number|string/);
      }
    }
  });

  it('is exported up to the damage, which is said; a table that an older run lacks is none', () => {
    truncateSync(path, whole.length - 10);
    rmSync(streamPath(folder, 'prompts'));
    const said: string[] = [];
    const tables = exportParquet(folder, temporaryFolder(), (message) => said.push(message));
    expect(said).toEqual([
      expect.stringMatching(/calls\.arrows: its last \d+ bytes are no whole batch and are left out\./),
    ]);
    const rowsOfAll = Array.from({ length: STEPS - 1 }, (_, i) => rowsOf(i)).reduce(
      (sum, rows) => sum + rows,
      0,
    );
    expect(tables.find(({ table }) => table === 'calls')?.rows).toBe(rowsOfAll);
    expect(tables.some(({ table }) => table === 'prompts')).toBe(false);
  });

  it('ends an export with one sentence', () => {
    const texts = batch(0);
    writeFileSync(path, withNumber(placesOf(BigInt(rowsOf(0)), texts)[1] as number, 3n));
    expect(() => exportParquet(folder, temporaryFolder())).toThrow(TroupeError);
  });
});

function rowsOf(i: number): number {
  const { metadata } = batch(i);
  return metadata.kind === 'batch' ? metadata.batch.rows : 0;
}
