/** Splits: numpy's permutations and the libraries' rules against goldens, recorded lists, and what is never trained on. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { checkHeldOut, normalQuestion } from '../../src/tasks/held-out.js';
import { generatorPermutation, legacyPermutation } from '../../src/tasks/numpy-permutation.js';
import { createTask } from '../../src/tasks/registry.js';
import type { Problem, Task } from '../../src/tasks/types.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-split-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, contents: string): string {
  writeFileSync(join(folder, name), contents);
  return join(folder, name);
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const row = (i: number) => ({ question: `What is ${i} + 1?`, answer: `${i + 1}` });
const numbered = (name: string, count: number) =>
  file(name, Array.from({ length: count }, (_, i) => JSON.stringify(row(i))).join('\n'));

interface Golden {
  permutations: { seed: number; count: number; legacy: number[]; generator: number[] }[];
  large: { seed: number; count: number; legacy: string; generator: string };
  splits: {
    rows: number;
    holdout: number;
    datasets: { test: number[]; train: string };
    shuffled: string;
    sklearn: { test: number[]; train: string };
  }[];
}

const golden = JSON.parse(readFileSync('test/golden/permutations.json', 'utf8')) as Golden;

describe("numpy's permutations", () => {
  test.each(golden.permutations)('of $count with seed $seed', ({ seed, count, legacy, generator }) => {
    expect([...legacyPermutation(seed, count)]).toEqual(legacy);
    expect([...generatorPermutation(seed, count)]).toEqual(generator);
  });

  test('of 200,000, where draws are rejected', () => {
    const { seed, count, legacy, generator } = golden.large;
    expect(sha256(legacyPermutation(seed, count).join(','))).toBe(legacy);
    expect(sha256(generatorPermutation(seed, count).join(','))).toBe(generator);
  });
});

describe('held-out rows', () => {
  // Reading the large ones twice takes a second and shows nothing more; their permutations are compared below.
  const small = golden.splits.filter(({ rows }) => rows < 1000);

  test.each(small)('of $rows with test_size $holdout are those of both libraries', async (one) => {
    for (const method of ['datasets', 'sklearn'] as const) {
      const files = numbered('rows.jsonl', one.rows);
      const task = await createTask({ name: 'math', files, holdout: one.holdout, split: { method } });
      const held = task.evaluation(one.rows).map(({ id }) => Number(id.split(':')[1]) - 1);
      expect(held).toEqual(one[method].test);
      const left = one.rows - held.length;
      const trained = Array.from({ length: left }, (_, i) => Number(task.train(0, i).id.split(':')[1]) - 1);
      expect(sha256(trained.toSorted((a, b) => a - b).join(','))).toBe(one[method].train);
    }
  });

  test("are the first of datasets' shuffle, so that select(range(1000)) gives them too", () => {
    for (const { rows, holdout, datasets, sklearn, shuffled } of golden.splits) {
      const permutation = generatorPermutation(42, rows);
      expect(sha256(permutation.join(','))).toBe(shuffled);
      const size = holdout < 1 ? Math.ceil(holdout * rows) : holdout;
      expect([...permutation.subarray(0, size)]).toEqual(datasets.test);
      expect([...legacyPermutation(42, rows).subarray(0, size)]).toEqual(sklearn.test);
    }
  });

  test('bad rows and repeated questions keep their numbers, and do not get onto both sides', async () => {
    const rows = [...Array.from({ length: 8 }, (_, i) => row(i)), { bad: 1 }, row(2), row(3)];
    const files = file('mixed.jsonl', rows.map((one) => JSON.stringify(one)).join('\n'));
    const warnings: string[] = [];
    const split = { file: file('list.json', '[8, 9, 0, 2]') };
    const task = await createTask({ name: 'math', files, split }, { warn: (text) => warnings.push(text) });
    expect(task.evaluation(9).map(({ question }) => question)).toEqual(['What is 2 + 1?', 'What is 0 + 1?']);
    const trained = new Set(Array.from({ length: 12 }, (_, i) => task.train(0, i).question));
    expect(trained).toEqual(new Set([1, 3, 4, 5, 6, 7].map((i) => `What is ${i} + 1?`)));
    expect(warnings).toEqual([
      expect.stringMatching(
        /^skipped 1 of 11 data rows: mixed.jsonl:9: has no question.*; its columns are bad\.$/,
      ),
      '2 data rows ask what an earlier row asks and count once.',
      '2 of 4 held-out rows cannot be used or ask what another held-out row asks.',
    ]);
  });

  test('a recorded split holds the same rows out of the same files, and of no others', async () => {
    const files = numbered('recorded.jsonl', 30);
    const task = await createTask({ name: 'math', files, holdout: 5 });
    const record = await task.split?.();
    expect(record).toMatchObject({
      rows: 30,
      files: [{ file: files, sha256: sha256(readFileSync(files, 'utf8')) }],
    });
    const split = { file: file('split.json', JSON.stringify(record)) };
    const again = await createTask({ name: 'math', files, split });
    expect(again.evaluation(9)).toEqual(task.evaluation(9));
    expect(await again.split?.()).toEqual(record);
    const more = numbered('more.jsonl', 31);
    await expect(createTask({ name: 'math', files: more, split })).rejects.toThrow(/is of 30 rows.*have 31/);
    const other = file('other.jsonl', readFileSync(files, 'utf8').replace('"1"', '"2"'));
    await expect(createTask({ name: 'math', files: other, split })).rejects.toThrow(/the SHA-256 differs/);
  });

  test('of files of its own the record has the hashes, and holds out no rows of others', async () => {
    const [files, evaluationFiles] = [numbered('train.jsonl', 30), numbered('test.jsonl', 5)];
    const record = await (await createTask({ name: 'math', files, evaluationFiles })).split?.();
    expect(record).toMatchObject({
      heldOut: [],
      evaluationFiles: [{ file: evaluationFiles, sha256: sha256(readFileSync(evaluationFiles, 'utf8')) }],
    });
    const split = { file: file('own.json', JSON.stringify(record)) };
    await expect(createTask({ name: 'math', files, split })).rejects.toThrow(
      /own.json: holds out no rows: its run evaluated problems of other files. .*test.jsonl/,
    );
  });

  test.each([
    [{ holdout: 30, split: { method: 'datasets' } }, /task.holdout is 30, and the files have 30 rows/],
    [{ split: { file: '[30]' } }, /holds out row 30, and the data files have 30/],
    [{ split: { file: '[1.5]' } }, /is no list of held-out rows/],
    [{ split: { file: '{"test": [1]}' } }, /is no list of held-out rows/],
    [{ split: { file: '[1' } }, /is no JSON/],
    [{ split: { file: '[1]' }, evaluationFiles: 'same' }, /both say what is held out/],
    [
      { holdout: 1.5 },
      /task.holdout is 1.5; it takes a whole number of at least 0, or a number above 0 and below 1/,
    ],
  ])('%j is refused', async (settings, message) => {
    const files = numbered('thirty.jsonl', 30);
    const section: Record<string, unknown> = { name: 'math', files, ...settings };
    const { split } = settings as { split?: { file?: string } };
    if (split?.file !== undefined) section.split = { file: file('bad-list.json', split.file) };
    if (section.evaluationFiles !== undefined) section.evaluationFiles = files;
    await expect(createTask(section)).rejects.toThrow(message);
  });

  test('rows that ask the same and answer otherwise are named', async () => {
    const rows = [row(1), row(2), { ...row(1), answer: '7' }, { ...row(1), question: 'what is\n1+1 ?' }];
    const warnings: string[] = [];
    const files = file('noise.jsonl', rows.map((one) => JSON.stringify(one)).join('\n'));
    await createTask({ name: 'math', files, holdout: 0 }, { warn: (text) => warnings.push(text) });
    expect(warnings).toEqual([
      '2 data rows ask what an earlier row asks and count once, 1 of them with another answer (noise.jsonl:3 and noise.jsonl:1); the first answer counts.',
    ]);
  });
});

test('questions are the same but for case, white space and the marks of TeX', () => {
  const same = (a: string, b: string) => normalQuestion(a) === normalQuestion(b);
  expect(same('What is  $x + 1$ ?', 'what is x+1?')).toBe(true);
  expect(same('\\(a\\), \\[b\\]', 'A,  b')).toBe(true);
  expect(same('cafe\u0301', 'caf\u00e9')).toBe(true);
  expect(same('\\left( x \\right)', '(x)')).toBe(true);
  for (const [a, b] of [
    ['1 2', '12'],
    ['x²', 'x2'],
    ['1.5', '15'],
    ['-3', '3'],
    ['\\leftarrow', 'arrow'],
    ['n!', 'n'],
    ['क्', 'क'],
  ] as const) {
    expect(same(a, b), `${a} and ${b}`).toBe(false);
  }
});

test("a task of one's own that trains on a held-out problem is refused before the run", () => {
  const problem = (i: number): Problem => ({ id: `p${i}`, question: `What is $${i}$?`, answer: `${i}` });
  const task = {
    name: 'mine',
    train: (_, i) => problem(i),
    evaluation: () => [problem(7)],
  } as Partial<Task> as Task;
  checkHeldOut(task, { seed: 0, training: 7, evaluation: 1 });
  expect(() => checkHeldOut(task, { seed: 0, training: 8, evaluation: 1 })).toThrow(
    /training problem 7 \(p7\) asks what the held-out problem p7 asks/,
  );
});

describe('task.fields', () => {
  const nested = [
    {
      id: 1,
      prompt: { text: 'What is 1?' },
      'meta.key': '1',
      chat: [{ role: 'user', content: 'What is 2?' }],
    },
  ];
  const files = file('nested.json', JSON.stringify(nested));

  test.each([
    [{ question: 'prompt.text', answer: 'meta.key' }, 'What is 1?', '1'],
    [{ question: 'chat.0.content', answer: 'id' }, 'What is 2?', '1'],
    [{ question: 'chat', answer: 'id' }, 'What is 2?', '1'],
  ])('%j', async (fields, question, answer) => {
    const task = await createTask({ name: 'math', files, fields, holdout: 0 });
    expect(task.train(0, 0)).toMatchObject({ question, answer });
  });

  test('a refused row says which columns were found', async () => {
    await expect(createTask({ name: 'math', files })).rejects.toThrow(
      'nested.json:1: has no question (question, problem or prompt); its columns are id, prompt.text, meta.key, chat.',
    );
    const fields = { question: 'prompt.txt', answer: 'id' };
    await expect(createTask({ name: 'math', files, fields }, { strict: true })).rejects.toThrow(
      'has no prompt.txt, which task.fields.question names; its columns are id, prompt.text',
    );
    await expect(createTask({ name: 'math', files, fields: { questions: 'id' } })).rejects.toThrow(
      /unknown key "task.fields.questions"/,
    );
    await expect(
      createTask({ name: 'math', files, fields: { question: 'constructor.name' } }),
    ).rejects.toThrow(/has no constructor.name/);
  });

  test('names that would break a sentence are shown without what breaks it', async () => {
    const hostile = file(
      'hostile.json',
      JSON.stringify([{ 'a\n\u001b[31mb': 1, '': 2, ['x'.repeat(99)]: 3 }]),
    );
    await expect(createTask({ name: 'math', files: hostile })).rejects.toThrow(
      `its columns are a [31mb, "", ${'x'.repeat(40)}….`,
    );
  });

  test('NaN stands for nothing, as in pandas', async () => {
    const rows = '{"question": "q", "answer": NaN}\n{"question": "p", "answer": 3}';
    const warnings: string[] = [];
    const section = { name: 'math', files: file('nothing.jsonl', rows), holdout: 0 };
    const task = await createTask(section, { warn: (text) => warnings.push(text) });
    expect(task.train(0, 0).answer).toBe('3');
    expect(warnings[0]).toMatch(/^skipped 1 of 2 data rows: nothing.jsonl:1: has no answer/);
  });
});
