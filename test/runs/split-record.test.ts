/** split.json: written once, kept, and in the way of a run that would go on with other held-out problems. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { keepSplit } from '../../src/runs/split-record.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-split-record-'));
afterAll(() => rmSync(folder, { recursive: true }));

const record = { files: [{ file: 'a.jsonl', sha256: 'aa' }], rows: 9, heldOut: [3, 1], questions: 'q' };
const read = (name: string) => JSON.parse(readFileSync(join(folder, name), 'utf8'));

test('a run that goes on keeps its record or is refused; one that begins again keeps the old one beside', () => {
  keepSplit(folder, record, false);
  keepSplit(folder, record, true);
  const changed = { ...record, files: [{ file: 'a.jsonl', sha256: 'bb' }] };
  keepSplit(folder, changed, true);
  expect(read('split.json')).toEqual(record);
  const other = { ...changed, heldOut: [3, 2], questions: 'r' };
  expect(() => keepSplit(folder, other, true)).toThrow(
    /split\.json: the data files hold out other problems now/,
  );
  expect(read('split.json')).toEqual(record);
  keepSplit(folder, other, false);
  expect([read('split.json'), read('split.1.json')]).toEqual([other, record]);
  expect(readdirSync(folder).sort()).toEqual(['split.1.json', 'split.json']);
});
