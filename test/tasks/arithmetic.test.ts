/** Generated arithmetic: the split is disjoint, the order fixed, and the written answers are right. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createTask } from '../../src/tasks/registry.js';

const levels = fc.uniqueArray(fc.integer({ min: 1, max: 5 }), { minLength: 1 });
const arithmetic = (settings: object) => createTask({ name: 'arithmetic', ...settings });

/** The expression as a key that commuted sums and products share. */
function twin(question: string): string {
  const operator = question.replace(/[\d()]/g, '');
  if (operator !== '+' && operator !== '*') return question;
  return question.split(operator).map(Number).sort().join(operator);
}

describe('split', () => {
  test('training never sees a held-out problem or its commuted twin', async () => {
    for (const settings of [{ levels: [1] }, { levels: [1, 2, 3, 4, 5] }, { sums: 20, products: 9 }]) {
      const task = await arithmetic(settings);
      const kept = new Set(task.evaluation(1000).map(({ question }) => twin(question)));
      expect(kept.size).toBeGreaterThan(5);
      for (let i = 0; i < 3000; i++) expect(kept).not.toContain(twin(task.train(i % 7, i).question));
    }
  });

  test('evaluation is a fixed list without repetitions, whatever its length', async () => {
    const task = await arithmetic({ levels: [2, 5] });
    const all = task.evaluation(60);
    expect(new Set(all.map(({ question }) => question)).size).toBe(60);
    expect(new Set(all.map(({ id }) => id)).size).toBe(60);
    expect(task.evaluation(10)).toEqual(all.slice(0, 10));
    expect((await arithmetic({ levels: [2, 5] })).evaluation(60)).toEqual(all);
  });

  test('a small pool gives what it has', async () => {
    const problems = (await arithmetic({ levels: [1] })).evaluation(1000);
    expect(problems.length).toBeGreaterThan(5);
    expect(problems.length).toBeLessThan(60);
  });

  test('a split that leaves nothing is an error that says so', async () => {
    await expect(arithmetic({ sums: 1, heldOut: 1e-6 })).rejects.toThrow(
      /heldOut.*leaves nothing to evaluate/,
    );
  });
});

describe('problems', () => {
  test('follow from seed and index alone', async () => {
    await fc.assert(
      fc.asyncProperty(levels, fc.nat(), fc.nat(), async (chosen, seed, index) => {
        const [a, b] = [await arithmetic({ levels: chosen }), await arithmetic({ levels: chosen })];
        b.train(seed + 1, index + 3);
        expect(a.train(seed, index)).toEqual(b.train(seed, index));
      }),
    );
    const task = await arithmetic({});
    const of = (seed: number) => Array.from({ length: 20 }, (_, i) => task.train(seed, i).question);
    expect(of(0)).not.toEqual(of(1));
  });

  test('have the value of their expression as answer, not negative', async () => {
    const task = await arithmetic({ levels: [1, 2, 3, 4, 5] });
    for (let i = 0; i < 500; i++) {
      const { question, answer } = task.train(1, i);
      expect(question).toMatch(/^[\d+*()-]+$/);
      expect(answer).toBe(String(new Function(`return ${question}`)()));
      expect(Number(answer)).toBeGreaterThanOrEqual(0);
    }
  });

  test('explicit ranges replace levels and are kept to', async () => {
    const task = await arithmetic({ sums: 20, products: 9, style: 'words' });
    const seen = new Set<string>();
    for (let i = 0; i < 400; i++) {
      const [, a, operator, b] = /^What is (\d+) ([+×]) (\d+)\?$/.exec(task.train(0, i).question) ?? [];
      seen.add(operator ?? '');
      const most = operator === '×' ? 9 : 20;
      expect(Math.max(Number(a), Number(b))).toBeLessThanOrEqual(most);
    }
    expect(seen).toEqual(new Set(['+', '×']));
  });
});

test('answers are literals: a text that repeats the question has not answered it', async () => {
  const task = await arithmetic({});
  const problem = { id: 'x', question: '17+25', answer: '42' };
  const texts = [
    ...['42', '17+25=42', 'so \\boxed{42}', '\\boxed{42} not 41', '41', '', 'forty-two'],
    ...[
      '\\boxed{17+25}',
      'The answer is 17+25',
      '#### 17+25',
      '17+25',
      '\\boxed{84/2}',
      '\\boxed{(17+25)*1}',
    ],
  ];
  const grades = await task.grade(texts.map((text) => ({ problem, text })));
  expect(grades.map(({ reason }) => reason)).toEqual([
    'correct',
    'correct',
    'correct',
    'correct',
    'wrong',
    ...Array.from({ length: 8 }, () => 'no-answer'),
  ]);
  expect(task.extract('17+25=42')).toBe('42');
});

test('unknown settings and names are errors with a suggestion', async () => {
  await expect(arithmetic({ level: [1] })).rejects.toThrow(/unknown key "task.level".*Did you mean "levels"/);
  await expect(createTask({ name: 'arithmetics' })).rejects.toThrow(/Did you mean "arithmetic"/);
});

test('the question itself is never its answer, in any dress and at any level', async () => {
  const task = await arithmetic({ levels: [1, 2, 3, 4, 5] });
  const problems = Array.from({ length: 100 }, (_, i) => task.train(2, i));
  const dresses = [
    (question: string) => question,
    (question: string) => `\\boxed{${question}}`,
    (question: string) => `The answer is ${question}.`,
    (question: string) => `#### ${question}`,
    (question: string) => `The result is **${question}**`,
    (question: string) => `$${question}$`,
  ];
  const answers = dresses.flatMap((dress) =>
    problems.map((problem) => ({ problem, text: dress(problem.question) })),
  );
  const grades = await task.grade(answers);
  expect(grades.filter(({ correct }) => correct)).toEqual([]);
  const right = await task.grade(
    problems.map((problem) => ({ problem, text: `${problem.question} = ${problem.answer}` })),
  );
  expect(right.every(({ correct }) => correct)).toBe(true);
});

test('without carries no digit carries or borrows, in training and evaluation', async () => {
  const task = await arithmetic({ sums: 999, differences: 999, carries: false });
  const problems = [...Array.from({ length: 500 }, (_, i) => task.train(0, i)), ...task.evaluation(200)];
  for (const { question } of problems) {
    const [, a = '', operator, b = ''] = /^(\d+)([+-])(\d+)$/.exec(question) ?? [];
    const digits = (number: string) => number.padStart(3, '0').split('').map(Number);
    for (const [i, x] of digits(a).entries()) {
      const y = digits(b)[i] ?? 0;
      expect(operator === '+' ? x + y : x - y, question).toBeGreaterThanOrEqual(0);
      expect(operator === '+' ? x + y : x - y, question).toBeLessThanOrEqual(9);
    }
  }
  expect(problems.some(({ question }) => /\d{3}\+\d{3}/.test(question))).toBe(true);
});
