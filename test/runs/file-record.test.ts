/** files.json: what of a user's files is another than before is told by name, wherever the run and the files lie now. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { describeFileChanges, keepFiles, readFileRecord } from '../../src/runs/file-record.js';
import { readChanges } from '../../src/runs/run-directory.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-file-record-'));
afterAll(() => rmSync(folder, { recursive: true }));

const digest = (letter: string) => letter.repeat(64);
const a = { file: '/here/a.ts', sha256: digest('a') };
const b = { file: '/here/b.py', sha256: digest('b') };

test('the first record changes nothing, nor do the same files elsewhere and in another order', () => {
  expect(keepFiles(folder, [a, b], 0)).toEqual([]);
  const moved = [b, a].map(({ file, sha256 }) => ({ file: file.replace('here', 'there'), sha256 }));
  expect(keepFiles(folder, moved, 3)).toEqual([]);
  expect(readChanges(folder)).toEqual([]);
  expect(readFileRecord(folder)).toEqual(moved);
});

test('edited, new and missing files are recorded with the step', () => {
  keepFiles(folder, [a, b], 3);
  const c = { file: '/here/c.ts', sha256: digest('c') };
  const changes = keepFiles(folder, [{ ...a, sha256: digest('d') }, c], 5);
  const recorded = [
    { key: 'file a.ts', from: 'aaaaaaaaaaaa', to: 'dddddddddddd' },
    { key: 'file c.ts', from: null, to: 'cccccccccccc' },
    { key: 'file b.py', from: 'bbbbbbbbbbbb', to: null },
  ];
  expect(changes).toEqual(recorded);
  expect(readChanges(folder)).toEqual(recorded.map((change) => ({ step: 5, ...change })));
  expect(describeFileChanges(changes)).toBe('a.ts was edited, c.ts is new, b.py is no more');
});

test('of two files with one name either one counts', () => {
  const twins = [a, { file: '/other/a.ts', sha256: digest('e') }];
  keepFiles(folder, twins, 6);
  expect(keepFiles(folder, [...twins].reverse(), 7)).toEqual([]);
  const [edited] = keepFiles(folder, [a, { file: '/other/a.ts', sha256: digest('f') }], 8);
  expect(edited).toEqual({
    key: 'file a.ts',
    from: 'aaaaaaaaaaaa+eeeeeeeeeeee',
    to: 'aaaaaaaaaaaa+ffffffffffff',
  });
});

test('a damaged record is said', () => {
  writeFileSync(join(folder, 'files.json'), '[{"file": 3}]');
  expect(() => readFileRecord(folder)).toThrow(/files\.json/);
});
