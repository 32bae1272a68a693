/** Fails if a role's calls train the wrong policy, or a policy gets settings that were meant for another. */
import { expect, test } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { policyOf, resolvePolicies } from '../../src/policies/routing.js';
import { roleSampling, samplingWarnings, trainingTemperature } from '../../src/policies/sampling.js';

const roles = ['generator', 'aggregator'];

function load(...overrides: string[]) {
  const { config, locate } = loadRunConfig(undefined, overrides);
  return { rollout: config.rollout, policies: resolvePolicies(config.policies, roles, locate) };
}

test('shared, isolated and mapped', () => {
  const names = (sharing: string) =>
    load(`policies.sharing=${sharing}`).policies.map(({ name, roles: its }) => [name, its]);
  expect(names('shared')).toEqual([['shared', roles]]);
  expect(names('isolated')).toEqual([
    ['generator', ['generator']],
    ['aggregator', ['aggregator']],
  ]);
  expect(names('{ aggregator: b, generator: a }')).toEqual([
    ['a', ['generator']],
    ['b', ['aggregator']],
  ]);
  const { policies } = load('policies.sharing={ aggregator: b, generator: b }');
  expect(policyOf(policies, 'aggregator').name).toBe('b');
  expect(() => policyOf(policies, 'agregator')).toThrow(
    /no role is named "agregator".*Did you mean "aggregator"/,
  );
});

test('a policy has the name of a folder', () => {
  for (const name of ['../../models', 'a/b', '..', '""']) {
    const set = `policies.sharing={ generator: ${name}, aggregator: b }`;
    expect(() => load(set)).toThrow(/names a policy ".*"; its name is one of a folder too/);
  }
  // Names that objects have by themselves are names like others.
  const { policies } = load('policies.sharing={ generator: constructor, aggregator: b }');
  expect(policies.map(({ name }) => name)).toEqual(['constructor', 'b']);
});

test('overrides win key by key, for their policy alone', () => {
  const { policies } = load(
    'policies.defaults={ parameters: lora, learningRate: 1e-4, lora: { rank: 8, alpha: 4 } }',
    'policies.overrides.aggregator={ freeze: true, lora: { rank: 2 }, clipNorm: null }',
  );
  const [generator, aggregator] = policies;
  expect(generator).toMatchObject({
    freeze: false,
    lora: { rank: 8, alpha: 4 },
    clipNorm: 1,
    learningRate: 1e-4,
  });
  expect(aggregator).toMatchObject({
    parameters: 'lora',
    freeze: true,
    lora: { rank: 2, alpha: 4, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] },
    clipNorm: null,
    learningRate: 1e-4,
  });
});

test('maps and overrides that fit no role', () => {
  expect(() => load('policies.sharing={ generator: a }')).toThrow(
    /--set policies.sharing=.*gives no policy to the role "aggregator"/,
  );
  expect(() => load('policies.sharing={ generator: a, agregator: b }')).toThrow(/Did you mean "aggregator"/);
  expect(() => load('policies.overrides.agregator.freeze=true')).toThrow(
    /no policy is named "agregator"; there are generator, aggregator/,
  );
});

test('sampling: the run, then the role, then the call', () => {
  const { rollout } = load(
    'rollout.sampling={ maxTokens: 48, temperature: 1 }',
    'rollout.roles.aggregator.sampling={ maxTokens: 4, temperature: 0.5 }',
  );
  expect(roleSampling(rollout, 'generator')).toMatchObject({ maxTokens: 48, temperature: 1 });
  expect(roleSampling(rollout, 'aggregator', { temperature: 0 })).toMatchObject({
    maxTokens: 4,
    temperature: 0,
  });
});

test('one temperature for each policy, above 0', () => {
  const isolated = load('rollout.roles.aggregator.sampling.temperature=0.5');
  expect(isolated.policies.map((policy) => trainingTemperature(isolated.rollout, policy))).toEqual([1, 0.5]);
  const shared = load('rollout.roles.aggregator.sampling.temperature=0.5', 'policies.sharing=shared');
  expect(() => shared.policies.map((policy) => trainingTemperature(shared.rollout, policy))).toThrow(
    /generator 1, aggregator 0.5/,
  );
  const greedy = load('rollout.sampling.temperature=0');
  expect(() => greedy.policies.map((policy) => trainingTemperature(greedy.rollout, policy))).toThrow(
    /temperature 0/,
  );
});

test('cutting the distribution while training warns', () => {
  const { rollout } = load('rollout.roles.aggregator.sampling.topP=0.9');
  expect(samplingWarnings(rollout, roles)).toEqual([
    expect.stringMatching(/^aggregator samples with topP 0.9:/),
  ]);
});
