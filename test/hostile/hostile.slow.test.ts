/**
 * The mutation fuzzer over every reader of foreign files. TROUPE_SEEDS=1000-2000 draws these seeds of each reader,
 * TROUPE_READERS=streams,model those of some. What it finds is mended, and its seed goes into seeds.json.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { makeCorpora } from './corpora.js';
import { fuzz } from './fuzz.js';
import { READERS } from './readers.mjs';

const [from = 0, to = 400] = (process.env.TROUPE_SEEDS ?? '').split('-').filter(Boolean).map(Number);
const readers = process.env.TROUPE_READERS?.split(',') ?? Object.keys(READERS);
const folder = mkdtempSync(join(tmpdir(), 'troupe-hostile-'));
let made: Promise<void> | undefined;
beforeEach(() => {
  made ??= makeCorpora(folder);
  return made;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('many damaged files', () => {
  it.each(readers)('%s', async (reader) => {
    const seeds = Array.from({ length: to - from }, (_, i) => from + i);
    const found = await fuzz(reader, join(folder, reader), join(folder, 'scratch'), seeds);
    const { faults, taken, refused } = found;
    console.log(`${reader}: ${taken} taken, ${refused} refused, ${faults.length} faults`);
    for (const fault of faults) console.log(JSON.stringify(fault));
    expect(faults).toEqual([]);
    expect(Math.min(taken, refused)).toBeGreaterThan(0);
  });
});
