/** Fails if users' code could write into the program's records, or would see something else than is there. */
import { expect, test } from 'vitest';
import { readOnly } from '../../src/config/read-only.js';

const record = () => ({
  id: 'p1',
  ids: Int32Array.of(1, 2),
  deep: { list: [{ a: 1 }, undefined, null] },
  made: new Date(0),
});

test('is equal and cannot be overwritten, however deep', () => {
  const given = record();
  const seen = readOnly(given);
  expect(seen).toEqual(given);
  expect(() => {
    seen.id = 'p2';
  }).toThrow(TypeError);
  expect(() => seen.deep.list.push(null)).toThrow(TypeError);
  expect(() => Object.assign(seen.deep.list[0] ?? {}, { a: 2 })).toThrow(TypeError);
  seen.ids.fill(0);
  expect(given).toEqual(record());
});

test('one object is one object, a cycle ends, and nesting has no limit', () => {
  const shared = { x: 1 };
  const cyclic: { a: unknown; b: unknown; self?: unknown } = { a: shared, b: shared };
  cyclic.self = cyclic;
  const copies = new Map();
  const seen = readOnly(cyclic, copies);
  expect(seen.a).toBe(seen.b);
  expect(seen.self).toBe(seen);
  expect(readOnly({ again: shared }, copies).again).toBe(seen.a);
  let nested: unknown = [];
  for (let i = 0; i < 100_000; i++) nested = [nested];
  expect(Object.isFrozen(readOnly(nested))).toBe(true);
});

test('a key that is called like a part of the language is a key', () => {
  const row = JSON.parse('{"__proto__": {"x": 1}, "constructor": 2}');
  const seen = readOnly(row);
  expect(JSON.stringify(seen)).toBe(JSON.stringify(row));
  expect(seen.x).toBeUndefined();
});
