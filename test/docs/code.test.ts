/**
 * Fails if code that a page shows does not do what the page says of it. The files of docs/your-own.md are run by
 * test/install/package.slow.test.ts, commands by commands.docs.test.ts.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { parse } from 'yaml';
import { packageRoot } from '../../src/config/package.js';
import { runSchema } from '../../src/config/schema.js';
import { type LossInputs, liveTensors, scope, Tensor } from '../../src/index.js';
import { openEstimator } from '../../src/learning/estimators.js';
import { openLoss } from '../../src/learning/losses.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-shown-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const read = (path: string) => readFileSync(join(packageRoot(), path), 'utf8');
const blocks = (page: string) => [...read(page).matchAll(/```ts\n(.*?)```/gs)].map(([, code = '']) => code);

/** The only block of TypeScript of a page. */
function shown(page: string): string {
  const [code = '', ...others] = blocks(page);
  expect(others, page).toEqual([]);
  return code;
}

function file(name: string, code: string): string {
  const path = join(folder, name);
  writeFileSync(path, code);
  return path;
}

it('every page with TypeScript is here or in the test of the package', () => {
  const pages = readdirSync(join(packageRoot(), 'docs')).filter((name) => name.endsWith('.md'));
  expect(pages.filter((name) => blocks(`docs/${name}`).length > 0).sort()).toEqual([
    'configuration.md',
    'methods.md',
    'rewards.md',
    'tensors.md',
    'your-own.md',
  ]);
});

it('docs/methods.md: an estimator that compares with the best of the group', async () => {
  const module = file('best-of.ts', shown('docs/methods.md'));
  const estimate = await openEstimator({ name: 'grpo', module });
  const calls = [1, 0.25, 0.5].map((reward) => ({ reward }));
  const groups = [
    { members: [0, 1], samples: [1, 0.25], sampleOf: [0, 1], flat: false },
    { members: [2], samples: [0.5], sampleOf: [0], flat: true },
  ];
  expect(estimate({ calls: calls as never, groups, memory: {} })).toEqual([0, -0.75, 0]);
});

it('docs/configuration.md: a loss is −Σ weight · advantage · log p', async () => {
  const module = file('reinforce.ts', shown('docs/configuration.md'));
  const { request } = await openLoss({ name: 'grpo', module });
  const loss = (await import(request.module)).default as (inputs: Partial<LossInputs>) => Tensor;
  const value = scope(() => {
    const [logprobs, advantages, weights] = [
      [-1, -2],
      [0.5, -1],
      [0.25, 0.75],
    ].map((values) => Tensor.from(values));
    return loss({ logprobs, advantages, weights } as Partial<LossInputs>).item();
  });
  expect(value).toBeCloseTo(0.25 * 0.5 * 1 - 0.75 * 2, 6);
});

it('docs/rewards.md shows the example as it is', () => {
  const [first = '', ...lines] = shown('docs/rewards.md').split('\n');
  const [, path = ''] = first.match(/^\/\/ ([\w/.-]+): /) ?? [];
  const [opening = '', ...rest] = read(path).split('\n');
  expect(first.toLowerCase()).toBe(opening.replace('// ', `// ${path}: `).toLowerCase());
  expect(lines).toEqual(rest);
});

it('docs/policies.md: policies that begin elsewhere are a configuration', () => {
  const [, yaml = ''] = read('docs/policies.md').match(/```yaml\n(.*?)```/s) ?? [];
  const { overrides } = runSchema.parse(parse(yaml)).policies;
  expect(overrides.generator).toMatchObject({ parameters: 'lora', start: 'adapters/solver' });
  expect(overrides.aggregator?.start).toBe('runs/voting-1@best:aggregator');
});

it('docs/tensors.md: a gradient', () => {
  const before = liveTensors();
  const code = shown('docs/tensors.md');
  const [, expected = ''] = code.match(/toArray\(\); \/\/ (.*)$/m) ?? [];
  const gradient = scope(() => new Function('Tensor', `${code}; return x.grad?.toArray();`)(Tensor));
  expect(gradient).toEqual(JSON.parse(expected));
  expect(liveTensors()).toBe(before);
});
