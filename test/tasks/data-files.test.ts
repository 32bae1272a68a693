/** The readers of data files: what others write is read as it stands, a part at a time, or refused in a sentence. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from 'vitest';
import { arrowRows } from '../../src/tasks/data-files/arrow.js';
import { bytesOf } from '../../src/tasks/data-files/bytes.js';
import { rowsOf } from '../../src/tasks/data-files/rows-of.js';
import { elementsOf, linesOf } from '../../src/tasks/data-files/text.js';
import type { ReadRow } from '../../src/tasks/rows.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-data-files-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, contents: string | Uint8Array): string {
  writeFileSync(join(folder, name), contents);
  return join(folder, name);
}

async function read(path: string): Promise<ReadRow[]> {
  const all: ReadRow[] = [];
  for await (const rows of rowsOf(path)) all.push(...rows);
  return all;
}

const rows = async (path: string) => (await read(path)).map(({ row, error }) => row ?? error);
/** Without the thread that reads them for users, which takes its time to start. */
const direct = async (groups: AsyncIterable<unknown[]>) => {
  const all: unknown[] = [];
  for await (const some of groups) all.push(...some);
  return all;
};
const golden = (name: string) => join('test/golden/data-files', name);

describe('Parquet and Arrow', () => {
  const LONG = Array.from({ length: 20000 }, (_, i) => `${i % 1000} and `).join('');
  const expected = [0, 1, 2].map((i) => ({
    prompt: [{ role: 'user', content: `What is ${i} + 1?` }],
    reward_model: { ground_truth: `${i + 1}`, style: 'rule' },
    tags: ['a', null, 'é'],
    big: 2n ** 60n + BigInt(i),
    share: [1.5, Number.NaN, null][i],
    none: null,
    day: new Date('2024-01-02'),
    long: LONG,
    map: { k: 1, l: 2 },
    word: ['x', 'y', 'x'][i],
    large: 'ü',
  }));

  test.each(['none', 'snappy', 'zstd', 'gzip', 'brotli', 'lz4'])(
    'nested columns in Parquet, %s',
    async (codec) => {
      // `toEqual` takes what is undefined for missing; hyparquet says undefined for null in no column of these.
      expect(await rows(golden(`${codec}.parquet`))).toEqual(expected);
    },
  );

  test.each(['lz4.feather', 'zstd.feather'])('%s', async (name) => {
    expect(await direct(arrowRows(golden(name)))).toEqual(
      expected.map((row) => ({ ...row, exact: '-3.10' })),
    );
  });

  test.each(['stream.arrow', 'file.arrow'])('%s', async (name) => {
    const short = expected.map(({ long: _, ...row }) => ({ ...row, exact: '-3.10' }));
    expect(await direct(arrowRows(golden(name)))).toEqual(short);
  });

  test.each(['polars.arrow', 'polars-zstd.arrow', 'polars.parquet', 'two-frames.jsonl.zst'])(
    '%s',
    async (name) => {
      expect(await rows(golden(name))).toEqual([
        { question: 'What is 1 + 1?', answer: '2' },
        { question: 'longer than the twelve bytes of a view', answer: '3' },
      ]);
    },
  );

  test('an Arrow stream that is packed is read; Parquet that is packed says what to do', async () => {
    const packed = (name: string) => gzipSync(readFileSync(golden(name)));
    expect(await rows(file('stream.arrow.gz', packed('stream.arrow')))).toHaveLength(3);
    await expect(read(file('x.parquet.gz', packed('none.parquet')))).rejects.toThrow(/gzip.*unpack it first/);
  });

  test('rows are numbered across row groups', async () => {
    expect((await read(golden('none.parquet'))).map(({ where }) => where)).toEqual([
      'none.parquet:1',
      'none.parquet:2',
      'none.parquet:3',
    ]);
  });

  test.each(['none.parquet', 'lz4.feather', 'two-frames.jsonl.zst'])('%s cut off', async (name) => {
    const whole = readFileSync(golden(name));
    const cut = file(`cut-${name}`, whole.subarray(0, Math.floor(whole.length * 0.7)));
    await expect(read(cut)).rejects.toThrow(/cannot be read as data rows: .*Write or download it again\.$/);
  });
});

describe('text', () => {
  test('each line of a CSV ends in its own way', async () => {
    const text = 'a,b\r\n1,2\n"3\r\n",4\r5,"x\ry"\r\n6,7';
    expect(await rows(file('ends.csv', text))).toEqual([
      { a: '1', b: '2' },
      { a: '3\r\n', b: '4' },
      { a: '5', b: 'x\ry' },
      { a: '6', b: '7' },
    ]);
    // Also where a piece of the file ends between the two characters of one.
    const line = `${'y'.repeat(98)},\r\n`;
    const many = await rows(file('many.csv', `a,b\r\n${line.repeat(21000)}`));
    expect(new Set(many.map((row) => JSON.stringify(row)))).toEqual(
      new Set([JSON.stringify({ a: 'y'.repeat(98), b: '' })]),
    );
  });

  test('millions of empty lines end in a sentence, in no line of a terminal', async () => {
    const packed = gzipSync(Buffer.alloc(2 ** 22 + 9, '\n'), { level: 1 });
    await expect(read(file('empty-lines.jsonl.gz', Buffer.concat([gzipSync('{}'), packed])))).rejects.toThrow(
      /more than 4194304 empty lines/,
    );
    const blank = gzipSync(Buffer.alloc(70 * 2 ** 20, ' '), { level: 1 });
    await expect(read(file('blank.jsonl.gz', blank))).rejects.toThrow(/more than 64 MiB of white space/);
    const [bad] = await read(file('escape.jsonl', '\u001b[2J\n'));
    expect(bad?.error).toMatch(/^is not JSON \([^\p{Cc}]*\)$/u);
  });

  const expected = [
    { question: 'Was ist 1, „so“?', answer: '1' },
    { question: 'two\nlines', answer: 'he said "2"' },
  ];
  const csv = 'question,answer\r\n"Was ist 1, „so“?",1\r\n"two\nlines","he said ""2"""\r\n';

  test.each([
    ['a.csv', csv],
    ['A.CSV', csv],
    ['bom.csv', `\uFEFF${csv}`],
    ['utf16.csv', Buffer.from(`\uFEFF${csv}`, 'utf16le')],
    ['a.tsv', 'question\tanswer\nWas ist 1, „so“?\t1\n"two\nlines"\the said "2"\n'],
    ['a.csv.gz', gzipSync(csv)],
    ['a.csv.GZ', Buffer.concat([gzipSync(csv.slice(0, 20)), gzipSync(csv.slice(20))])],
    ['unpacked.csv.gz', csv],
    ['a.json', JSON.stringify(expected, null, 2)],
    ['bom.json', `\uFEFF${JSON.stringify(expected)}`],
    ['a.JSONL', expected.map((row) => JSON.stringify(row)).join('\r\n')],
    ['utf16.jsonl', Buffer.from(`\uFEFF${expected.map((row) => JSON.stringify(row)).join('\n')}`, 'utf16le')],
    ['no-ending', JSON.stringify(expected)],
  ])('%s', async (name, contents) => {
    expect(await rows(file(name, contents))).toEqual(expected);
  });

  test('NaN and Infinity as Python writes them, in lines and arrays, and not inside text', async () => {
    const line = '{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN, Infinity", "d": 12345678901234567890}';
    const expected = {
      a: Number.NaN,
      b: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
      c: 'NaN, Infinity',
      d: 12345678901234567890n,
    };
    expect(await rows(file('nan.jsonl', line))).toEqual([expected]);
    expect(await rows(file('nan.json', `[${line}]`))).toEqual([expected]);
  });

  test('lines are numbered as an editor numbers them', async () => {
    const path = file('numbers.csv', 'a,b\n1,2\n\n3\n"x\ny",4\n');
    expect(await read(path)).toEqual([
      { where: 'numbers.csv:2', row: { a: '1', b: '2' } },
      { where: 'numbers.csv:4', error: 'has 1 values for 2 columns' },
      { where: 'numbers.csv:6', row: { a: 'x\ny', b: '4' } },
    ]);
  });

  test('rows that are none are named, and the others are read', async () => {
    const bad = Buffer.concat([
      Buffer.from('{"a": 1}\n{"a": "'),
      Buffer.from([0xe9]),
      Buffer.from('"}\n[]\n{"a"'),
    ]);
    expect(await read(file('bad.jsonl', bad))).toEqual([
      { where: 'bad.jsonl:1', row: { a: 1 } },
      { where: 'bad.jsonl:2', error: 'is not UTF-8 text' },
      { where: 'bad.jsonl:3', error: 'is not an object' },
      { where: 'bad.jsonl:4', error: expect.stringMatching(/^is not JSON/) },
    ]);
    expect((await read(file('bad.json', '[{"a": 1}, {a}, 3,]'))).map(({ error }) => error)).toEqual([
      undefined,
      expect.stringMatching(/^is not JSON/),
      'is not an object',
      expect.stringMatching(/^is not JSON/),
    ]);
  });

  test.each([
    ['latin.csv', Buffer.from('question,answer\ncafé,1\n', 'latin1'), /not UTF-8 text; save it as UTF-8/],
    ['twice.csv', 'a,b,a\n1,2,3\n', /names the column "a" twice/],
    ['open.csv', `a,b\n"1,2\n${'3,4\n'.repeat(9)}`, /Quote Not Closed.*line 11/],
    ['cut.csv.gz', gzipSync(csv).subarray(0, 50), /unexpected end of file/],
    ['cut.json', '[{"a": 1}, {"a": [', /does not end: the file is cut off/],
    ['two.json', '[{"a": 1}][{"a": 2}]', /something follows its JSON array/],
    ['no.parquet', '{"a": 1}', /is no parquet file/],
    ['window.jsonl.zst', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 1, 0, 0]), /window is above/],
  ])('%s is refused', async (name, contents, message) => {
    await expect(read(file(name, contents))).rejects.toThrow(message);
  });
});

test("links as the hub's cache makes them: the ending is the link's, the contents the blob's", async () => {
  const blobs = join(folder, 'datasets--a--b/blobs');
  const snapshot = join(folder, 'datasets--a--b/snapshots/0f1e');
  for (const path of [blobs, snapshot]) mkdirSync(path, { recursive: true });
  writeFileSync(join(blobs, 'aa11'), readFileSync(golden('none.parquet')));
  writeFileSync(join(blobs, 'bb22'), gzipSync('a,b\n1,2\n'));
  symlinkSync('../../blobs/aa11', join(snapshot, 'train-00000-of-00001.parquet'));
  symlinkSync('../../blobs/bb22', join(snapshot, 'train.csv.gz'));
  symlinkSync('../../blobs/cc33', join(snapshot, 'test.csv'));
  symlinkSync('snapshots/0f1e/train.csv.gz', join(blobs, '../latest'));
  expect(await rows(join(snapshot, 'train-00000-of-00001.parquet'))).toHaveLength(3);
  expect(await rows(join(snapshot, 'train.csv.gz'))).toEqual([{ a: '1', b: '2' }]);
  await expect(read(join(snapshot, 'test.csv'))).rejects.toThrow(/is a link to a file that is not there/);
  await expect(read(snapshot)).rejects.toThrow(/is a folder/);
  await expect(read('/dev/zero')).rejects.toThrow(/is a device/);
});

describe('pieces', () => {
  const inPieces = async function* (text: string, size: number) {
    for (let at = 0; at < text.length; at += size) yield Buffer.from(text.slice(at, at + size));
  };
  const gathered = async (parts: AsyncIterable<Buffer[]>) => {
    const all: string[] = [];
    for await (const some of parts) all.push(...some.map(String));
    return all;
  };

  test.each([1, 2, 3, 7, 100])('of %i bytes cut where they like', async (size) => {
    const values = ['{"a": "x,]}\\"[" }', '[1, [2]]', ' 3', '"\\\\"'];
    expect(await gathered(elementsOf(inPieces(` [${values.join(',')}] \n`, size)))).toEqual(values);
    expect(await gathered(elementsOf(inPieces('[ ]', size)))).toEqual([]);
    expect(await gathered(linesOf(inPieces('one\n\nthree', size)))).toEqual(['one', '', 'three']);
  });

  test('a packed file that grows beyond all measure is refused before it is read', async () => {
    const bomb = file('bomb.jsonl.gz', gzipSync(Buffer.alloc(2 ** 20)));
    const all = async (most: number) => {
      for await (const _ of bytesOf(bomb, 'gzip', 0, most));
    };
    await expect(all(2 ** 19)).rejects.toThrow(/unpacks to more than 524288 bytes/);
    await all(2 ** 20);
  });
});
