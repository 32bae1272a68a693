/** Fails if a file that cannot be written leaves something behind, or more than one call takes is not written whole. */
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { readAll, writeAll, writeFileWhole } from '../../src/config/files.js';
import { readText } from '../../src/config/json.js';

const temporary = mkdtempSync(join(tmpdir(), 'troupe-files-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

it.each([
  ['is a folder', 'folder', () => mkdirSync(join(temporary, 'folder'))],
  ['is a file, not a folder', 'text/report', () => writeFileSync(join(temporary, 'text'), '')],
])('what %s is no place for a file: a sentence, and nothing is left', (said, name, make) => {
  make();
  const before = readdirSync(temporary);
  expect(() => writeFileWhole(join(temporary, name), 'contents')).toThrow(said);
  expect(readdirSync(temporary)).toEqual(before);
});

it.each([
  ['.', 'is a folder. Name a file.'],
  ['nowhere.yaml', 'no such file or folder. Check the path.'],
])('what cannot be read is said in a sentence: %s', (name, message) => {
  expect(() => readText(join(temporary, name))).toThrow(`${join(temporary, name)}: ${message}`);
});

it('a name that is too long is said to be', () => {
  expect(() => writeFileWhole(join(temporary, 'x'.repeat(300)), '')).toThrow('longer than the file system');
});

it('writes more than one call takes', () => {
  const descriptor = openSync('/dev/null', 'w');
  try {
    // Never touched, so that it takes no memory.
    writeAll(descriptor, Buffer.alloc(2 ** 31 + 8));
  } finally {
    closeSync(descriptor);
  }
});

it('writes and reads at a place, and reads no more than there is', () => {
  const path = join(temporary, 'placed');
  writeFileSync(path, 'abcdef');
  const descriptor = openSync(path, 'r+');
  try {
    writeAll(descriptor, Buffer.from('XY'), 2);
    expect(readFileSync(path, 'utf8')).toBe('abXYef');
    expect(readAll(descriptor, 100, 3).toString()).toBe('Yef');
    expect(readAll(descriptor, 2, 6)).toHaveLength(0);
  } finally {
    closeSync(descriptor);
  }
});
