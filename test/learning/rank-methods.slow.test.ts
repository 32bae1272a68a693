/**
 * Guards against a part of the method that several ranks do otherwise than one: rewards and tasks in Python, which see one
 * rank's calls at a time; problems that give their place to fresh ones; what is measured before the updates.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, it } from 'vitest';
import type { RunInput } from '../../src/config/schema.js';
import { needs } from '../needs.js';
import { expectSameRun, trainOn } from './rank-runs.js';
import { rowsOfRun } from './trained-run.js';

beforeEach(needs('python'));

const folder = mkdtempSync(join(tmpdir(), 'troupe-rank-methods-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const task = file(
  'task.py',
  `import random

def problems(count, seed, largest):
    draw = random.Random(seed)
    pairs = draw.sample([(a, b) for a in range(largest) for b in range(largest)], count)
    return [{"question": f"{a}+{b}", "answer": str(a + b)} for a, b in pairs]

def grade(problems, answers):
    return [None if answer is None else float(answer == problem["answer"]) for problem, answer in zip(problems, answers)]
`,
);
const reward = file(
  'reward.py',
  `def spread(completions, **columns):
    return [sum(map(ord, completion[0]["content"])) % 7 / 7 for completion in completions]
`,
);

const base: RunInput = {
  steps: 2,
  model: { path: 'troupe-0.3m', dtype: 'float64' },
  evaluation: { every: 0, problems: 2, greedy: false },
  rollout: { promptsPerStep: 3, episodesPerPrompt: 3, sampling: { temperature: 1, maxTokens: 6 } },
};
const spread = ['outcome', { python: reward, function: 'spread', weight: 0.5 }];
const late = { oldLogprobs: 'trainer', miniBatches: 2, importance: { level: 'token', high: 1.1 } } as const;
const kl = { coefficient: 0.1, in: 'reward', estimator: 'k1', reference: 'average' } as const;

const kinds: [string, RunInput][] = [
  ['a reward in Python', { learning: { reward: spread } }],
  [
    'a task in Python',
    {
      task: { python: task, problems: 20, holdout: 4, settings: { largest: 6 } },
      learning: { reward: spread },
    },
  ],
  ['dynamic sampling', { learning: { dynamicSampling: 2 } }],
  ['mini-batches with log p of before and importance weights', { learning: { ...late, reward: spread } }],
  ['KL in the reward', { learning: { kl, oldLogprobs: 'trainer' } }],
  [
    'all of it, taking problems over',
    {
      deterministic: false,
      rollout: { ...base.rollout, maxBatch: 9 },
      task: { python: task, problems: 20, holdout: 4, settings: { largest: 6 } },
      learning: { ...late, kl, reward: spread, dynamicSampling: 1 },
    },
  ],
];

it.each(kinds)('two ranks train as one does, with %s', { timeout: 300_000 }, async (_what, more) => {
  const over = { ...base, ...more };
  const [one, two] = [await trainOn(1, over), await trainOn(2, over)];
  // Something was learnt from.
  expect(rowsOfRun(one, 'updates').some((row) => Number(row.gradient_norm) > 0)).toBe(true);
  expectSameRun(two, one, 1e-10);
  expect(rowsOfRun(two, 'rewards')).toEqual(rowsOfRun(one, 'rewards'));
});
