/** Fails if a role's calls train the wrong policy, or a policy gets settings that were meant for another. */
import { expect, test } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { policyOf, resolvePolicies } from '../../src/policies/routing.js';
import { checkTrainable, roleSampling, samplingWarnings } from '../../src/policies/sampling.js';

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
  // 100 characters, 300 bytes: no file can be called that.
  expect(() => load(`policies.sharing={ generator: ${'名'.repeat(100)}, aggregator: b }`)).toThrow(
    /its name is one of a folder too/,
  );
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

test('a role that is trained samples above temperature 0; roles of one policy may differ', () => {
  const check = (...over: string[]) => {
    const { rollout, policies } = load(...over);
    for (const policy of policies) checkTrainable(rollout, policy);
  };
  check('rollout.roles.aggregator.sampling.temperature=0.5', 'policies.sharing=shared');
  expect(() => check('rollout.sampling.temperature=0')).toThrow(
    /rollout.sampling.temperature: the role generator samples at temperature 0/,
  );
  const aggregator = 'rollout.roles.aggregator.sampling.temperature=0';
  expect(() => check(aggregator)).toThrow(/rollout.roles.aggregator.sampling.temperature: .* "aggregator"/);
  check(aggregator, 'policies.overrides.aggregator.freeze=true');
});

test('cutting the distribution while training warns', () => {
  const { rollout } = load('rollout.roles.aggregator.sampling.topP=0.9');
  expect(samplingWarnings(rollout, roles)).toEqual([
    expect.stringMatching(/^aggregator samples with topP 0.9:/),
  ]);
});
