/** What a sandbox sends is read without a throw, whatever it is. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { sameOutput } from '../../src/tasks/code-output.js';
import { sameValue } from '../../src/tasks/code-values.js';
import { type Json, MOST_LEVELS, parseReply } from '../../src/tasks/sandbox/frames.js';

/** JSON with the keys that replies and values have, and those that objects of JavaScript inherit. */
const KEYS = ['error', 'type', 'message', 'bases', 'value', 'changed', 'stdout', 'status', 'verdict', 'ask']
  .concat(['callback', 'returned', 'loaded', 'ready', 'toString', 'valueOf', '__proto__', 'constructor'])
  .concat(['$int', '$float', '$tuple', '$dict', '$make', '$named', '$array', '$scalar', '$object', '$set']);
const hostile = fc.letrec<{ value: Json; object: Json }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'large' },
    fc.constantFrom<Json>(null, true, false, '', 'x', '0x1', '0x', '-0xff', 'nan', 'inf', '1e999'),
    fc.double().filter(Number.isFinite) as fc.Arbitrary<Json>,
    fc.array(tie('value'), { maxLength: 4 }),
    tie('object'),
  ),
  object: fc.dictionary(fc.constantFrom(...KEYS), tie('value'), { maxKeys: 4 }) as fc.Arbitrary<Json>,
}));

describe('replies', () => {
  test('of any text are read or refused', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json(), hostile.object.map(jsonOf)), (line) => {
        const reply = parseReply(line);
        expect(reply === undefined || typeof reply.kind === 'string').toBe(true);
        // What is passed on can be written again.
        expect(() => JSON.stringify(reply)).not.toThrow();
      }),
      { numRuns: 2000 },
    );
  });

  test('that are cut off or changed in a byte are read or refused', () => {
    const line = '{"value": {"$dict": [["a", {"$tuple": [1, {"$int": "0x1"}]}]]}, "changed": [[0, []]]}';
    fc.assert(
      fc.property(fc.nat(line.length), fc.string({ maxLength: 2 }), (at, text) => {
        const reply = parseReply(line.slice(0, at) + text + line.slice(at + 1));
        expect(reply === undefined || reply.kind === 'value').toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  test.each([
    '{"error":{"type":{"toString":1,"valueOf":1}}}',
    '{"error":{"type":"E","message":{"toString":1},"bases":[]}}',
    '{"error":{"type":"E","message":"","bases":[{"toString":1}]}}',
    '{"stdout":{"toString":1},"status":0}',
    '{"stdout":"","status":{"valueOf":1}}',
    '{"verdict":{"toString":1}}',
    '{"value":1,"changed":{"length":1}}',
    '{"ask":[]}',
    '{"__proto__":{"ready":true}}',
    `{"value":${'['.repeat(MOST_LEVELS)}${']'.repeat(MOST_LEVELS)}}`,
    `{"value":${'['.repeat(10_000_000)}`,
    '[]',
    'null',
    '',
  ])('%.60s is none', (line) => {
    expect(parseReply(line)).toBeUndefined();
  });

  test('values nested as far as is read can be compared', () => {
    const levels = MOST_LEVELS - 1;
    const reply = parseReply(`{"value":${'['.repeat(levels)}${']'.repeat(levels)}}`);
    expect(reply?.kind === 'value' && sameValue(reply.value, reply.value)).toBe(true);
  });
});

describe('comparison', () => {
  test('of any two values ends without a throw', () => {
    fc.assert(
      fc.property(hostile.value, hostile.value, (right, got) => {
        expect(typeof sameValue(right, got)).toBe('boolean');
      }),
      { numRuns: 2000 },
    );
  });

  // As decimals or by turns, these would take minutes.
  test('of huge values and outputs costs nothing', () => {
    const digits = 'f'.repeat(8_000_000);
    expect(sameValue(7, { $int: `0x${digits}` })).toBe(false);
    expect(sameValue({ $dict: [['a', 1]] }, { $dict: [[{ $int: `0x${digits}` }, 1]] })).toBe(false);
    expect(sameOutput('1 2', '9'.repeat(4_000_000))).toBe(false);
    expect(sameOutput('1 2', ' '.repeat(4_000_000))).toBe(false);
    expect(sameOutput('a b', `a${' '.repeat(4_000_000)}b`)).toBe(false);
    expect(sameOutput('1.5', `1.${'0'.repeat(2_000_000)}x${'0'.repeat(2_000_000)}`)).toBe(false);
  });
});

function jsonOf(value: Json): string {
  return JSON.stringify(value);
}
