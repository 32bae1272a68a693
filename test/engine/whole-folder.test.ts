/** Fails if a folder that holds more than a model is replaced by one, or a model's folder is not. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { writeFolder } from '../../src/engine/whole-folder.js';

const temporary = mkdtempSync(join(tmpdir(), 'troupe-whole-folder-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

let folders = 0;
function folderOf(names: readonly string[]): string {
  const folder = join(temporary, String(folders++));
  mkdirSync(folder);
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), 'what was there');
  }
  return folder;
}
const write = (folder: string) =>
  writeFolder(folder, (into) => writeFileSync(join(into, 'config.json'), '{}'));

it.each([
  [['notes.txt'], /notes\.txt/],
  [['rows.json'], /no config\.json or adapter_config\.json/],
  [['config.json', 'model.safetensors', 'notes.md'], /notes\.md/],
  [['config.json', 'data/rows.json'], /data/],
])('keeps a folder with %j', (names, message) => {
  const folder = folderOf(names);
  const before = readdirSync(folder);
  expect(() => write(folder)).toThrow(message);
  expect(readdirSync(folder)).toEqual(before);
});

it('a full disk is said to be, and leaves what was there', () => {
  const folder = folderOf(['config.json']);
  const full = () => {
    throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  };
  expect(() => writeFolder(folder, full)).toThrow(`${folder}: the disk is full. Make room`);
  expect(readFileSync(join(folder, 'config.json'), 'utf8')).toBe('what was there');
  expect(readdirSync(dirname(folder)).filter((name) => name.includes('partial'))).toEqual([]);
});

it.each([[[]], [['config.json', 'merges.txt', 'README.md']], [['adapter_config.json']]])(
  'replaces one with %j',
  (names) => {
    const folder = folderOf(names);
    write(folder);
    expect(readdirSync(folder)).toEqual(['config.json']);
  },
);
