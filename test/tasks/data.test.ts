/** Data files: formats and field names, the split, what happens to bad rows, and a user's own task. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { gradeFile } from '../../src/tasks/grade-file.js';
import { createTask } from '../../src/tasks/registry.js';
import { needs } from '../needs.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-data-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

function lines(...rows: unknown[]): string {
  return rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row))).join('\n');
}

const good = (i: number) => ({ question: `What is ${i}?`, answer: `It is.\n#### ${i}` });

describe('field names', () => {
  test.each([
    ['GSM8K', { question: 'q', answer: 'so\n#### 1,234' }, '1,234'],
    ['MATH with solution', { problem: 'q', solution: 'so \\boxed{\\frac{1}{2}}' }, '\\frac{1}{2}'],
    ['MATH with both', { problem: 'q', solution: 'so \\boxed{015}', answer: '15' }, '15'],
    ['a number', { problem: 'q', answer: 7 }, '7'],
    ['DAPO', { prompt: [{ role: 'user', content: 'q' }], reward_model: { ground_truth: '540' } }, '540'],
  ])('%s', async (_, row, answer) => {
    const task = await createTask({ name: 'math', files: file('one.jsonl', lines(row)), holdout: 0 });
    expect(task.train(0, 0)).toEqual({ id: 'one.jsonl:1', question: 'q', answer, columns: row });
  });

  test("DAPO's orders about the form of the answer are left out", async () => {
    const content =
      'Solve the following math problem step by step. The last line … problem.\n\nHow many?\n\nRemember to put your answer on its own line after "Answer:".';
    const rows = lines({ prompt: [{ role: 'user', content }], reward_model: { ground_truth: '3' } });
    const task = await createTask({ name: 'math', files: file('dapo.jsonl', rows), holdout: 0 });
    expect(task.train(0, 0).question).toBe('How many?');
  });
});

describe('bad rows', () => {
  const bad = file(
    'bad.jsonl',
    lines(good(1), '{"question": ', '', '[1]', { question: 'x' }, { question: '', answer: '1' }, good(2)),
  );

  test('are skipped, counted and named by file and line', async () => {
    const warnings: string[] = [];
    const task = await createTask(
      { name: 'math', files: bad, holdout: 0 },
      { warn: (message) => warnings.push(message) },
    );
    expect(new Set([0, 1].map((i) => task.train(0, i).answer))).toEqual(new Set(['1', '2']));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(
      /^skipped 4 of 6 data rows: bad.jsonl:2: is not JSON .*bad.jsonl:4: is not an object; bad.jsonl:5: has no answer.*and 1 more\.$/,
    );
  });

  test('are errors with strict', async () => {
    await expect(createTask({ name: 'math', files: bad }, { strict: true })).rejects.toThrow(
      /bad\.jsonl:2: is not JSON/,
    );
  });

  test.each([
    ['empty.jsonl', '', /has no usable row/],
    [
      'none.jsonl',
      '{}\n{}',
      /has no usable row; none.jsonl:1 and 1 more: has no question.*; it has no columns\./,
    ],
    ['broken.json', '[{"question": "x"', /cannot be read as data rows/],
    ['broken.parquet', 'PAR1 and then nothing', /cannot be read as data rows/],
  ])('%s without a usable row is an error', async (name, text, message) => {
    await expect(createTask({ name: 'math', files: file(name, text) })).rejects.toThrow(message);
  });

  test('a missing file, a missing key and an unknown key are errors', async () => {
    await expect(createTask({ name: 'math', files: '/nowhere/x.jsonl' })).rejects.toThrow(
      /x\.jsonl: there is no such data file/,
    );
    await expect(createTask({ name: 'math' })).rejects.toThrow(/task\.files is missing/);
    await expect(createTask({ name: 'math', files: 'x', holdouts: 3 })).rejects.toThrow(
      /Did you mean "holdout"/,
    );
  });
});

describe('split', () => {
  test('is disjoint, fixed and complete, whatever the seed; an epoch sees every row once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 60 }),
        fc.nat({ max: 80 }),
        fc.nat(),
        async (count, holdout, seed) => {
          const rows = Array.from({ length: count }, (_, i) => good(i % 50));
          const task = await createTask(
            { name: 'math', files: file('split.json', JSON.stringify(rows)), holdout },
            { warn: () => undefined },
          );
          const distinct = Math.min(count, 50);
          const kept = task.evaluation(1000).map(({ question }) => question);
          expect(kept).toHaveLength(Math.min(holdout, Math.floor(distinct / 2)));
          expect(task.evaluation(3).map(({ question }) => question)).toEqual(kept.slice(0, 3));
          const epoch = (number: number) =>
            Array.from(
              { length: distinct - kept.length },
              (_, i) => task.train(seed, number * (distinct - kept.length) + i).question,
            );
          expect(new Set([...epoch(0), ...kept]).size).toBe(distinct);
          expect(new Set(epoch(1))).toEqual(new Set(epoch(0)));
          expect(epoch(0)).toEqual(epoch(0));
        },
      ),
      { numRuns: 40 },
    );
  });

  test('files of their own for evaluation replace the holdout, and leave training', async () => {
    const warnings: string[] = [];
    const task = await createTask(
      {
        name: 'math',
        files: file('train.jsonl', lines(good(1), good(2), { ...good(3), question: 'what  is $3$ ?' })),
        evaluationFiles: file('test.jsonl', lines(good(3), good(4))),
      },
      { warn: (message) => warnings.push(message) },
    );
    expect(warnings).toEqual(['1 training problems are left out: task.evaluationFiles ask the same.']);
    expect(task.evaluation(10).map(({ id }) => id)).toEqual(['test.jsonl:1', 'test.jsonl:2']);
    const seen = new Set(Array.from({ length: 20 }, (_, i) => task.train(0, i).answer));
    expect(seen).toEqual(new Set(['1', '2']));
  });
});

describe('a file of answers', () => {
  const verdicts = async (path: string, options: { task?: 'math' | 'code'; strict?: boolean } = {}) => {
    const skipped: string[] = [];
    const found = [];
    const { task = 'math', strict = false } = options;
    for await (const verdict of gradeFile(path, {
      task,
      strict,
      skipped: (message) => skipped.push(message),
    })) {
      found.push(verdict);
    }
    return { found, skipped };
  };
  const answers = file(
    'answers.jsonl',
    lines(
      { response: '\\boxed{1}', row: good(1) },
      'nonsense',
      { response: '\\boxed{1}', row: good(2) },
      { response: 5, row: good(2) },
      { response: '', row: good(2) },
      { response: '3', row: {} },
    ),
  );

  test('is graded in order; bad lines are named', async () => {
    const { found, skipped } = await verdicts(answers);
    expect(found).toEqual([
      { correct: true, reason: 'correct', line: 1 },
      { correct: false, reason: 'wrong', line: 3 },
      { correct: false, reason: 'no-answer', line: 5 },
    ]);
    expect(skipped.map((message) => message.slice(0, 15))).toEqual([
      'answers.jsonl:2',
      'answers.jsonl:4',
      'answers.jsonl:6',
    ]);
    await expect(verdicts(answers, { strict: true })).rejects.toThrow(/answers\.jsonl:2: is not JSON/);
    await expect(verdicts('/nowhere.jsonl')).rejects.toThrow(/no such data file/);
  });

  test('of code keeps its order too', async (context) => {
    needs('bubblewrap')(context);
    const row = { text: 'Twice.', test_list: ['assert twice(2) == 4'] };
    const responses = [
      'import time\ntime.sleep(0.5)\ndef twice(x): return 4',
      'def twice(x): return 5',
      'def twice(x) 4',
    ];
    const path = file(
      'code.jsonl',
      lines(...responses.map((code) => ({ response: `\`\`\`python\n${code}\n\`\`\``, row }))),
    );
    const { found } = await verdicts(path, { task: 'code' });
    expect(found.map(({ reason }) => reason)).toEqual(['correct', 'wrong', 'syntax-error']);
  });
});

test("a user's own task is imported by its path, TypeScript too", async () => {
  const path = file(
    'mine.ts',
    `export default (settings: { answer: string }) => ({
      name: 'mine', kind: 'math',
      train: () => ({ id: 'a', question: 'q', answer: settings.answer }),
      evaluation: () => [], grade: async () => [], extract: () => undefined, close: async () => {},
    });`,
  );
  const task = await createTask({ module: path, answer: '5' });
  expect(task.train(0, 0).answer).toBe('5');
  await expect(createTask({ module: file('none.ts', 'export default 3;') })).rejects.toThrow(
    /function that takes the settings/,
  );
});
