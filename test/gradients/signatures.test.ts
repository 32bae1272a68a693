/** Fails if a signature of failing text is missed, or if what a role never did is counted as 0 instead of null. */
import { expect, test } from 'vitest';
import { ngrams, signatures } from '../../src/gradients/signatures.js';
import { roleSignals } from '../../src/streams/signals.js';
import type { Task } from '../../src/tasks/types.js';
import { evalOpt } from '../../src/workflows/eval-opt.js';
import { orchWorkers } from '../../src/workflows/orch-workers.js';
import { single } from '../../src/workflows/single.js';
import type { Episode, RoleCall, Workflow } from '../../src/workflows/types.js';
import { voting } from '../../src/workflows/voting.js';
import { roleCall } from '../learning/episodes.js';

interface Said {
  role?: string;
  slot?: number;
  turn?: number;
  text?: string;
  ids?: number[];
  cut?: boolean;
  /** Whether the text that the call stands for is right. */
  right?: boolean;
  accepts?: boolean;
  unread?: true;
}

function call({
  role = 'generator',
  slot = 0,
  turn = 0,
  text = '',
  ids = [1],
  cut,
  right,
  accepts = true,
  unread,
}: Said) {
  const made: RoleCall = { ...roleCall({ role, slot, turn }), text };
  made.completion = { ...made.completion, ids: Int32Array.from(ids), finish: cut ? 'length' : 'stop' };
  if (unread) made.unread = true;
  if (right !== undefined) {
    made.claimed = { text, accepts };
    made.ownGrade = { correct: right === accepts, reward: 0, reason: '' };
  }
  return made;
}

function episode(correct: boolean, ...said: Said[]): Episode {
  return {
    step: 0,
    problemIndex: 0,
    sample: 0,
    problem: { id: 'p', question: '' },
    calls: said.map(call),
    answer: '',
    grade: { correct, reward: 0, reason: '' },
    counts: {},
  };
}

const task = { extract: (text: string) => /\d+/.exec(text)?.[0] } as Task;

function signalsOf(workflow: Workflow, episodes: Episode[], firstLength?: number) {
  const setting = { open: { workflow, options: {}, where: 'mine.ts' }, task, firstLength: () => firstLength };
  const rows = roleSignals(episodes, setting);
  return (role: string | null, signal: string) =>
    rows.find((row) => row.role === role && row.signal === signal)?.value;
}

test('text signatures are shares of the calls', () => {
  const found = signatures(
    [
      [call({ text: 'The answer is \\boxed{7}', ids: [1, 2, 3, 4] })],
      [call({ text: '```python\nprint(7)\n```', cut: true })],
      [call({ text: `so ${'and '.repeat(12)} on` })],
      [call({ text: 'def f(x): return x' })],
    ],
    (text) => text.includes('7'),
  );
  expect(found).toEqual({
    format_share: 0.5,
    boxed_share: 0.25,
    code_share: 0.5,
    terse_share: 0.75,
    truncated_share: 0.25,
    length_mean: 1.75,
    slot_overlap: null,
  });
});

test('prose that mentions code words is no code', () => {
  const text = 'We import from the class definition: def is short for define.\nclass struggle';
  expect(signatures([[call({ text })]], undefined).code_share).toBe(0);
});

test('overlap compares slots of one turn, in trigrams', () => {
  expect(ngrams(Int32Array.of(1, 2, 3, 4))).toEqual(new Set(['1 2 3', '2 3 4']));
  const overlap = (...slots: number[][]) =>
    signatures([slots.map((ids, slot) => call({ slot, ids }))], undefined).slot_overlap;
  expect(overlap([1, 2, 3, 4], [1, 2, 3, 4])).toBe(1);
  expect(overlap([1, 2, 3, 4], [2, 3, 4, 5])).toBeCloseTo(1 / 3);
  expect(overlap([1], [1], [2])).toBeCloseTo(1 / 3);
  const turns = [call({ slot: 0, turn: 0 }), call({ slot: 1, turn: 1 })];
  expect(signatures([turns], undefined).slot_overlap).toBeNull();
});

test('a role that never spoke has nulls, no zeros', () => {
  const value = signalsOf(voting, [episode(true, { text: '7' })]);
  expect(value('generator', 'format_share')).toBe(1);
  for (const signal of [
    'format_share',
    'code_share',
    'length_mean',
    'length_drift',
    'any_correct_share',
    'regret',
  ])
    expect(value('aggregator', signal), signal).toBeNull();
  expect(signalsOf(voting, [])('generator', 'terse_share')).toBeNull();
});

test('length drift is relative to the first measurement', () => {
  expect(signalsOf(single, [episode(true, { ids: [1, 2, 3] })])('generator', 'length_drift')).toBe(1);
  expect(signalsOf(single, [episode(true, { ids: [1, 2, 3] })], 6)('generator', 'length_drift')).toBe(0.5);
});

test('voting: any right candidate, and the regret of the aggregator', () => {
  const value = signalsOf(voting, [
    episode(true, { right: true }, { slot: 1, right: false }, { role: 'aggregator', text: '1' }),
    episode(false, { right: true }, { slot: 1, right: false }, { role: 'aggregator', text: 'who knows' }),
    episode(false, { right: false }, { slot: 1, right: false }, { role: 'aggregator', text: '3' }),
    // Broken off before the aggregator spoke: its choice is not to blame.
    episode(false, { right: true }),
  ]);
  expect(value('generator', 'any_correct_share')).toBe(0.75);
  expect(value('aggregator', 'regret')).toBeCloseTo(1 / 3);
  expect(value('aggregator', 'format_share')).toBeCloseTo(2 / 3);
});

test('voting: picks beside a random pick, where candidates are partly right', () => {
  const value = signalsOf(voting, [
    episode(true, { right: true }, { slot: 1, right: false }, { role: 'aggregator', text: '1', right: true }),
    episode(
      false,
      { right: true },
      { slot: 1, right: false },
      { slot: 2, right: false },
      { role: 'aggregator', text: '2', right: false },
    ),
    // The fallback was right, the role was not.
    episode(
      true,
      { right: true },
      { slot: 1, right: false },
      { role: 'aggregator', text: '?', right: true, unread: true },
    ),
    // Nothing to choose.
    episode(true, { right: true }, { slot: 1, right: true }, { role: 'aggregator', text: '1', right: true }),
    episode(false, { right: false }, { role: 'aggregator', text: '1', right: false }),
  ]);
  expect(value('aggregator', 'pick_right_share')).toBeCloseTo(1 / 3);
  expect(value('aggregator', 'random_right_share')).toBeCloseTo((1 / 2 + 1 / 3 + 1 / 2) / 3);
  const none = signalsOf(voting, [episode(true, { right: true }, { role: 'aggregator', right: true })]);
  expect(none('aggregator', 'pick_right_share')).toBeNull();
  expect(none('aggregator', 'random_right_share')).toBeNull();
});

test("eval-opt: the evaluator's verdicts against the truth, and what revisions gain and lose", () => {
  const value = signalsOf(evalOpt, [
    episode(
      false,
      { right: false },
      { role: 'evaluator', right: false, accepts: false, text: 'no' },
      { turn: 1, right: true },
      { role: 'evaluator', turn: 1, right: true, accepts: false, text: '```\nx\n```' },
      { turn: 2, right: false },
    ),
    episode(true, { right: true }, { role: 'evaluator', right: true, accepts: true, text: 'yes' }),
  ]);
  expect(value('generator', 'revision_gain')).toBe(0.5);
  expect(value('generator', 'revision_loss')).toBe(0.5);
  expect(value('evaluator', 'true_reject_share')).toBeCloseTo(1 / 3);
  expect(value('evaluator', 'false_reject_share')).toBeCloseTo(1 / 3);
  expect(value('evaluator', 'true_accept_share')).toBeCloseTo(1 / 3);
  expect(value('evaluator', 'false_accept_share')).toBe(0);
  expect(value('evaluator', 'code_share')).toBeCloseTo(1 / 3);
  expect(value('evaluator', 'format_share')).toBeCloseTo(2 / 3);
});

test('orch-workers: distinct strategies, and the regret of the synthesizer', () => {
  const value = signalsOf(orchWorkers, [
    episode(
      false,
      { role: 'orchestrator', text: 'a ; A ; b' },
      { role: 'worker', right: true },
      { role: 'synthesizer' },
    ),
    episode(true, { role: 'orchestrator', text: 'I will not plan' }),
  ]);
  expect(value('orchestrator', 'distinct_strategies')).toBe(1);
  expect(value('orchestrator', 'format_share')).toBe(0.5);
  expect(value('synthesizer', 'regret')).toBe(1);
});

test("a user's workflow without claims and forms has nulls; its counts go to the role that they name", () => {
  const workflow: Workflow = { name: 'mine', roles: ['judge'], run: async () => ({ answer: '' }) };
  const episodes = [{ ...episode(true, { role: 'judge' }), counts: { 'judge.lost': 2, other: 1 } }];
  const value = signalsOf(workflow, episodes);
  expect(value('judge', 'any_correct_share')).toBeNull();
  expect(value('judge', 'format_share')).toBeNull();
  expect(value('judge', 'judge.lost')).toBe(2);
  expect(value(null, 'other')).toBe(1);
});
