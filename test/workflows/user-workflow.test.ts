/** Fails if the example of a user's workflow does not run as a configuration names it, or grows beyond 30 lines. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { packageRoot } from '../../src/config/package.js';
import { openEntry } from '../../src/config/registry.js';
import { rewards } from '../../src/learning/rewards.js';
import { openWorkflow } from '../../src/workflows/registry.js';
import { episode, rewardContext, roleCall } from '../learning/episodes.js';
import { play } from './scripted.js';

const example = (name: string) => join(packageRoot(), 'configs/examples', name);

test('debate.yaml names debate.ts, which runs', async () => {
  const { config, locate } = loadRunConfig(example('debate.yaml'));
  const open = await openWorkflow(config.workflow, 'math', locate);
  expect(open.workflow.roles).toEqual(['debater', 'judge']);
  const played = await play(open, ({ role, slot = 0, turn = 0 }) =>
    role === 'judge' ? '2' : `${slot}${turn}`,
  );
  expect(played.answer).toBe('11');
  expect(played.sent.map(({ role, slot, turn }) => [role, slot, turn])).toEqual([
    ['debater', 0, 0],
    ['debater', 1, 0],
    ['debater', 0, 1],
    ['debater', 1, 1],
    ['judge', undefined, undefined],
  ]);
  expect(played.sent[2]?.messages[0]?.content).toContain('Somebody else says: 10');
  expect(readFileSync(example('debate.ts'), 'utf8').split('\n').length).toBeLessThanOrEqual(30);
});

test('a module that is no workflow', async () => {
  await expect(
    openWorkflow(
      { name: 'voting', module: example('length-penalty.ts'), options: {}, prompts: 'full' },
      'math',
    ),
  ).rejects.toThrow(/length-penalty\.ts: has to export an object \{ name, roles/);
});

test('length-penalty.ts is a reward', async () => {
  const reward = await openEntry(
    rewards,
    { module: example('length-penalty.ts') },
    { path: [] },
    rewardContext('nothing'),
  );
  const calls = [10, 128].map((tokens) => ({ call: roleCall({ tokens }), episode: episode(0, 0, 1, []) }));
  expect(await reward.values(calls, { step: 0, steps: 1 })).toEqual([1, 0.875]);
});
