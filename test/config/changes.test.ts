/** Which new values of a key that names a place name the same thing elsewhere, so that a run may go on with them. */
import { expect, it } from 'vitest';
import { mayChange } from '../../src/config/changes.js';

const commit = '0123456789abcdef0123456789abcdef01234567';
const cached = `/cache/models--Qwen--Qwen3-0.6B/snapshots/${commit}`;

it.each([
  ['/a/small', '/b/small', true],
  ['/a/small', '/a/large', false],
  ['Qwen/Qwen3-0.6B', `Qwen/Qwen3-0.6B@${commit}`, true],
  ['Qwen/Qwen3-0.6B@main', 'hf:Qwen/Qwen3-0.6B@refs/pr/1', true],
  ['Qwen/Qwen3-0.6B', cached, true],
  [cached, `${cached.replaceAll('0', 'f').replace('f.6', '0.6')}/`, true],
  [`Qwen/Qwen3-0.6B@${commit}`, '/copies/Qwen3-0.6B', true],
  ['Qwen/Qwen3-0.6B@main', 'Qwen/Qwen3-1.7B@main', false],
  [cached, cached.replace('0.6B', '1.7B'), false],
])('model.path from %s to %s: %s', (from, to, may) => {
  expect(mayChange({ key: 'model.path', from, to })).toBe(may);
});

it('only a model has a revision', () => {
  const change = { key: 'policies.overrides.generator.start', from: 'runs/a@1', to: 'runs/a@2' };
  expect(mayChange(change)).toBe(false);
});
