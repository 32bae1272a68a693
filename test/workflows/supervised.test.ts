/** Fails if supervised data teaches a role something that is not right, or never shows it a wrong candidate. */
import { expect, test } from 'vitest';
import { nearNumber, supervisedCalls } from '../../src/workflows/supervised.js';
import { open, problem, sums } from './scripted.js';

/** A fixed sequence of pseudo-random numbers (a linear congruential generator). */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

async function examples(name: string, errorRate: number, episodes = 40) {
  const opened = await open(name);
  const random = chance(1);
  const all = [];
  for (let i = 0; i < episodes; i++)
    all.push(...(await supervisedCalls(opened, problem, sums, { errorRate, random })));
  return all;
}

test('answering roles learn the answer from the very messages of the workflow', async () => {
  for (const name of ['single', 'voting', 'eval-opt', 'orch-workers']) {
    const calls = await examples(name, 0.5);
    const answering = calls.filter(({ role }) => ['generator', 'worker', 'synthesizer'].includes(role));
    expect(new Set(answering.map(({ response }) => response))).toEqual(new Set(['7']));
    expect(answering[0]?.messages.at(-1)?.content).toMatch(/^3\+4/);
  }
});

test('the aggregator picks a right candidate among wrong ones, and is not taught where there is none', async () => {
  const calls = await examples('voting', 0.6);
  const aggregators = calls.filter(({ role }) => role === 'aggregator');
  expect(aggregators.length).toBeLessThan(40);
  expect(new Set(aggregators.map(({ response }) => response)).size).toBe(3);
  for (const { messages, response } of aggregators) {
    expect(messages[0]?.content).toMatch(new RegExp(` ${response}x\\d:7( |$)`));
  }
  expect(aggregators.some(({ messages }) => /\d:(?!7\b)\d/.test(messages[0]?.content ?? ''))).toBe(true);
});

test('the evaluator accepts right drafts and rejects wrong ones; the generator revises after a no', async () => {
  const calls = await examples('eval-opt', 0.5);
  const evaluators = calls.filter(({ role }) => role === 'evaluator');
  for (const { messages, response } of evaluators) {
    expect(response).toBe(messages[0]?.content === '3+4 = 7 ok' ? 'yes' : 'no');
  }
  expect(new Set(evaluators.map(({ response }) => response))).toEqual(new Set(['yes', 'no']));
  const revision = calls.find(({ role, turn }) => role === 'generator' && turn === 1);
  expect(revision?.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user']);
  expect(revision?.messages[1]?.content).not.toBe('7');
});

test('the orchestrator learns a plan that the workflow reads', async () => {
  const calls = await examples('orch-workers', 0, 1);
  expect(calls.map(({ role, slot, response }) => [role, slot, response])).toEqual([
    ['orchestrator', 0, 'a ; b ; c'],
    ['worker', 0, '7'],
    ['worker', 1, '7'],
    ['worker', 2, '7'],
    ['synthesizer', 0, '7'],
  ]);
});

test('the full style has responses that its workflow reads', async () => {
  for (const name of ['single', 'voting', 'eval-opt', 'orch-workers']) {
    const calls = await supervisedCalls(await open(name, { style: 'full' }), problem, sums, {
      errorRate: 0,
      random: chance(2),
    });
    const responses = new Map(calls.map(({ role, response }) => [role, response]));
    const last =
      name === 'voting' ? 'aggregator' : name === 'eval-opt' ? 'evaluator' : (calls.at(-1)?.role ?? '');
    expect(responses.get(last)).toBe(
      { voting: '\\boxed{1}', 'eval-opt': 'Verdict: correct' }[name] ?? 'The answer is \\boxed{7}.',
    );
    if (name === 'orch-workers') expect(responses.get('orchestrator')).toMatch(/^1\. .*\n2\. .*\n3\. /);
  }
});

test('wrong numbers are near and wrong', () => {
  const random = chance(3);
  const wrong = new Set(
    Array.from({ length: 200 }, () => nearNumber({ id: '', question: '', answer: '12' }, random)),
  );
  expect(wrong).toEqual(new Set(['13', '11', '14', '10', '22', '2', '21']));
  expect(() => nearNumber({ id: 'p', question: '', answer: 'x/2' }, random)).toThrow(
    /p: the answer "x\/2" is no number/,
  );
});
