/** Fails if what models write is read as something else than it means: readings*.yaml have the texts and their readings. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { extractNumber } from '../../src/tasks/arithmetic-answer.js';
import { parsePick } from '../../src/workflows/parse-pick.js';
import { parseStrategies } from '../../src/workflows/parse-strategies.js';
import { parseVerdict } from '../../src/workflows/parse-verdict.js';
import { beside } from './scripted.js';

const CANDIDATES = 3;
const readers: Record<string, (text: string) => unknown> = {
  picks: (text) => parsePick(text, CANDIDATES),
  verdicts: parseVerdict,
  strategies: parseStrategies,
  numbers: extractNumber,
};

type Readings = Record<string, [text: string, reading: unknown][]>;

const readings = ['readings.yaml', 'readings-hostile.yaml', 'readings-fresh.yaml'].map(
  (name) => parse(readFileSync(beside(import.meta.url, name), 'utf8')) as Readings,
);

test('there are at least 120 texts, 60 that attack and 200 that were once read wrong', () => {
  const [usual, hostile, fresh] = readings.map((kinds) => Object.values(kinds).flat().length);
  expect(usual).toBeGreaterThanOrEqual(120);
  expect(hostile).toBeGreaterThanOrEqual(60);
  expect(fresh).toBeGreaterThanOrEqual(200);
});

describe.each(Object.keys(readers))('%s', (kind) => {
  const texts = readings.flatMap((kinds) => kinds[kind] ?? []);

  test.each(texts)('%j', (text, expected) => {
    expect(readers[kind]?.(text) ?? null).toEqual(expected);
  });

  test('any text has a reading or none, and twice the same', () => {
    const words = texts.flatMap(([text]) => text.split(/(?<=\s)/));
    const mixed = fc.array(fc.oneof(fc.constantFrom(...words), fc.string({ unit: 'binary' })), {
      maxLength: 60,
    });
    fc.assert(
      fc.property(mixed, (parts) => {
        const text = parts.join('');
        expect(readers[kind]?.(text)).toEqual(readers[kind]?.(text));
      }),
    );
  });
});

test.each(['(', ')', '-(', '1 ', '=', '**', '_', '<answer>', '\\boxed{', 'no ', 'candidate 1 and '])(
  'thousands of %j end in a reading or none',
  (part) => {
    for (const reader of Object.values(readers))
      expect(() => reader(part.repeat(4000 / part.length))).not.toThrow();
  },
);

test('Windows line ends and spaces that do not break are read as others', () => {
  expect(parseStrategies('1. Algebra\r\n2. Geometry\r\n')).toEqual(['Algebra', 'Geometry']);
  expect(parsePick('Candidate\u00a02 is correct.', CANDIDATES)).toBe(2);
});
