/**
 * Files that somebody else wrote, damaged or made to harm: every reader takes them or refuses them in a sentence, in
 * seconds. `npm run test:full` draws many more (hostile.slow.test.ts).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { makeCorpora } from './corpora.js';
import { fuzz } from './fuzz.js';
import { READERS } from './readers.mjs';
import seeds from './seeds.json' with { type: 'json' };

const FRESH = 12;
const folder = mkdtempSync(join(tmpdir(), 'troupe-hostile-'));
let made: Promise<void> | undefined;
beforeEach(() => {
  made ??= makeCorpora(folder);
  return made;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('files that somebody else wrote', () => {
  it.each(Object.keys(READERS))('%s', async (reader) => {
    const kept: number[] = (seeds as Record<string, number[]>)[reader] ?? [];
    const fresh = Array.from({ length: FRESH }, (_, i) => i);
    const { faults, taken, refused } = await fuzz(reader, join(folder, reader), join(folder, 'scratch'), [
      ...new Set([...kept, ...fresh]),
    ]);
    expect(faults).toEqual([]);
    // A corpus that is refused undamaged, or that no damage reaches, would test nothing.
    expect(taken + refused).toBeGreaterThanOrEqual(FRESH);
  });
});
