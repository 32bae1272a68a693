/**
 * `troupe gradients` against PyTorch: one plain backward a group (test/golden/gradients.py), on calls whose prompts
 * and responses begin alike across groups; and what it says of calls that cannot be measured.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { fails, golden, json } from './troupe.js';

interface Products {
  norm: number[];
  gram: number[][];
}
interface Measured extends Products {
  groups: string[];
  total_norm: number;
  tokens: number[];
  module?: Record<string, Products>;
  layer?: Record<string, Products>;
}

const model = golden('models/qwen3-tied');
const calls = golden('gradients/calls.jsonl');
const expected = JSON.parse(readFileSync(golden('gradients/expected.json'), 'utf8')) as Record<
  string,
  Required<Measured>
>;
const folder = mkdtempSync(join(tmpdir(), 'troupe-gradients-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const measure = async (by: string, ...more: string[]) =>
  await json<Measured>(['gradients', model, '--calls', calls, '--by', by, ...more]);

/** Every norm and product, to `tolerance` of the largest of its kind. */
function expectClose(actual: Products, wanted: Products, tolerance: number): void {
  const largest = Math.max(...wanted.norm);
  const close = (a: number, b: number, unit: number) =>
    expect(Math.abs(a - b) / unit).toBeLessThan(tolerance);
  expect(actual.norm).toHaveLength(wanted.norm.length);
  wanted.norm.forEach((value, k) => {
    close(actual.norm[k] ?? Number.NaN, value, largest);
    wanted.gram[k]?.forEach((product, l) => {
      close(actual.gram[k]?.[l] ?? Number.NaN, product, largest ** 2);
    });
  });
}

describe('role gradients', () => {
  it.each([
    ['role', 'float32', 1e-5],
    ['role,slot', 'float32', 1e-5],
    // Advantages and weights are fp32 whatever the model is.
    ['role,slot,turn', 'float64', 1e-6],
    ['turn', 'float32', 1e-5],
  ])('by %s in %s are those of separate backward passes', async (by, dtype, tolerance) => {
    const measured = await measure(by, '--dtype', dtype);
    const wanted = expected[by] as Required<Measured>;
    expect(Object.keys(measured)).toEqual(['groups', 'norm', 'gram', 'total_norm', 'tokens']);
    expect(measured.groups).toEqual(wanted.groups);
    expect(measured.tokens).toEqual(wanted.tokens);
    expectClose(measured, wanted, tolerance);
    expect(Math.abs(measured.total_norm - wanted.total_norm)).toBeLessThan(tolerance * wanted.total_norm);
  });

  it.each(['module', 'layer'] as const)('per %s are those of its parameters, and add up', async (per) => {
    const measured = await measure('role,slot', '--dtype', 'float32', '--per', per);
    const parts = measured[per] as Record<string, Products>;
    const wanted = expected['role,slot']?.[per] as Record<string, Products>;
    expect(Object.keys(parts).sort()).toEqual(Object.keys(wanted).sort());
    for (const [name, part] of Object.entries(wanted)) expectClose(parts[name] as Products, part, 1e-5);
    const sum = Object.values(parts).reduce((total, { gram }) => total + (gram[0]?.[1] ?? 0), 0);
    expect(sum).toBeCloseTo(measured.gram[0]?.[1] ?? Number.NaN, 5);
  });

  it('are the same whatever is computed at once', async () => {
    expectClose(await measure('role', '--micro-batch-rows', '1'), expected.role as Measured, 1e-5);
  });

  it('names groups in the order that is asked for', async () => {
    expect((await measure('slot,role')).groups).toEqual([
      '0/aggregator',
      '0/generator',
      '1/generator',
      '2/generator',
      '10/generator',
    ]);
  });

  it('is zero for calls without advantage', async () => {
    const file = join(folder, 'zero.jsonl');
    writeFileSync(file, readFileSync(calls, 'utf8').replace(/"advantage": [-\d.]+/g, '"advantage": 0'));
    const measured = await json<Measured>(['gradients', model, '--calls', file, '--by', 'role']);
    expect(measured).toMatchObject({ norm: [0, 0], total_norm: 0, tokens: [4, 24] });
  });
});

describe('bad calls', () => {
  const good = '{"role":"a","slot":0,"turn":0,"prompt":[1,2],"response":[3],"advantage":1}';
  const ids = (n: number) => JSON.stringify(new Array(n).fill(1));
  it.each([
    ['a line that is no JSON', `${good}\n{"role":`, ['calls.jsonl:2', 'no JSON']],
    ['a line that is no object', '[1, 2]', ['calls.jsonl:1', 'the call is [1,2]']],
    ['no advantage', good.replace(',"advantage":1', ''), ['calls.jsonl:1', 'advantage is missing']],
    [
      'an infinite advantage',
      good.replace('"advantage":1', '"advantage":1e999'),
      ['calls.jsonl:1', 'advantage'],
    ],
    ['an empty prompt', good.replace('[1,2]', '[]'), ['calls.jsonl:1', 'prompt is []']],
    ['an empty response', good.replace('[3]', '[]'), ['calls.jsonl:1', 'response is []']],
    [
      'an id beyond the vocabulary',
      `${good}\n${good.replace('[3]', '[61]')}`,
      ['calls.jsonl:2', 'is 61', '0 to 60'],
    ],
    ['a negative id', good.replace('[3]', '[-1]'), ['calls.jsonl:1', 'is -1']],
    ['a call that is too long', good.replace('[1,2]', ids(64)), ['calls.jsonl:1', '65 tokens', '64 at most']],
    ['an empty file', '', ['calls.jsonl', 'holds no calls']],
  ])('%s', async (_what, text, parts) => {
    const file = join(folder, 'calls.jsonl');
    writeFileSync(file, text);
    await fails(['gradients', model, '--calls', file, '--by', 'role'], parts);
  });

  it('no file', async () => {
    await fails(['gradients', model, '--calls', join(folder, 'none.jsonl')], ['none.jsonl', 'no such file']);
  });

  it('an unknown key', async () => {
    await fails(
      ['gradients', model, '--calls', calls, '--by', 'role,step'],
      ['--by', '"step"', 'role, slot, turn'],
    );
  });

  it('a nonsensical batch', async () => {
    await fails(['gradients', model, '--calls', calls, '--micro-batch-rows', '0'], ['--micro-batch-rows']);
  });
});
