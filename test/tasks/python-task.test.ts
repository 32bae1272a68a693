/** Fails if a task in Python gives other problems or grades than its file does, or if what its file does wrong is more than a sentence. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { createTask } from '../../src/tasks/registry.js';
import type { Task } from '../../src/tasks/types.js';
import { needs } from '../needs.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-python-task-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(needs('python'));

let files = 0;
async function withTask<T>(
  text: string,
  use: (task: Task, warnings: string[]) => Promise<T>,
  settings: object = {},
) {
  const file = join(folder, `env${files++}.py`);
  writeFileSync(file, text);
  const warnings: string[] = [];
  const section = { python: file, problems: 6, holdout: 2, ...settings };
  const task = await createTask(section, { warn: (message) => warnings.push(message) });
  try {
    return await use(task, warnings);
  } finally {
    await task.close();
  }
}
const errorOf = async (promise: Promise<unknown>) =>
  (await promise.catch((error: Error) => error.message)) as string;

/** Sums; grading needs an object that JSON has no form for, and dies once where asked to. */
const SUMS = `
import os
class Sum:
    def __init__(self, a, b): self.value = a + b
def problems(count, seed, step=1):
    print("making them")
    return [{"question": f"{i * step}+{seed}", "answer": i * step + seed, "sum": Sum(i * step, seed), "level": i}
            for i in range(count)] + [{"question": f"0+{seed}"}]
def grade(problems, answers, texts, dies=None):
    if dies and not os.path.exists(dies):
        open(dies, "w").close()
        os._exit(1)
    return [None if a is None else 1 if float(a) == p["sum"].value else 0.25 if "close" in t else False
            for p, a, t in zip(problems, answers, texts)]
`;

it('makes problems and grades answers; a process that dies makes the same ones again', async () => {
  const settings = { seed: 3, settings: { step: 10, dies: join(folder, 'died') } };
  await withTask(
    SUMS,
    async (task, warnings) => {
      expect(warnings).toEqual([
        expect.stringMatching(/env\d+\.py: 1 of 9 problems ask what another one asks and count once/),
      ]);
      const held = task.evaluation(10);
      expect(held.map(({ question, answer }) => [question, answer])).toEqual([
        ['60+3', '63'],
        ['70+3', '73'],
      ]);
      expect(held[0]?.columns).toEqual({ question: '60+3', answer: 63, level: 6 });
      const trained = Array.from({ length: 6 }, (_, i) => task.train(5, i));
      expect(new Set(trained.map(({ question }) => question))).toEqual(
        new Set(['0+3', '10+3', '20+3', '30+3', '40+3', '50+3']),
      );
      expect(task.train(5, 0)).toEqual(trained[0]);
      const grades = await task.grade([
        { problem: held[0] as never, text: 'so \\boxed{63}' },
        { problem: held[1] as never, text: 'close: \\boxed{74}' },
        { problem: held[1] as never, text: '\\boxed{1}' },
        { problem: held[1] as never, text: 'I do not know' },
      ]);
      expect(grades).toEqual([
        { correct: true, reward: 1, reason: 'correct' },
        { correct: false, reward: 0.25, reason: 'partly' },
        { correct: false, reward: 0, reason: 'wrong' },
        { correct: false, reward: 0, reason: 'no-answer' },
      ]);
      expect(warnings[1]).toMatch(/the Python process ended with exit code 1; it is started again, once/);
    },
    settings,
  );
});

it.each([
  [
    'makes none',
    'def problems(count, seed): return []\ndef grade(): pass',
    /env\d+\.py: problems returned none/,
  ],
  [
    'makes texts',
    'def problems(count, seed): return ["q"]\ndef grade(): pass',
    /problems returned 'q' as number 0; a problem is a dict with a text question/,
  ],
  [
    'raises',
    'def problems(count, seed):\n    raise KeyError("size")\ndef grade(): pass',
    /env\d+\.py:2: problems raised KeyError: 'size'/,
  ],
  ['cannot grade', 'def problems(count, seed): return []', /has no function grade; it has problems/],
])('a file that %s is refused', async (_what, text, message) => {
  expect(await errorOf(withTask(text, async () => undefined))).toMatch(message);
});

it.each([
  ['2.5', /grade returned 2\.5 for problem env\d+\.py:\d+; it takes a number from 0 to 1, or None/],
  ['float("nan")', /grade returned nan for problem/],
  ['"yes"', /grade returned 'yes' for problem/],
])('a grade of %s is an error', async (grade, message) => {
  const text = `def problems(count, seed): return [{"question": str(i)} for i in range(count)]\ndef grade(problems): return [${grade}]`;
  const graded = withTask(text, (task) => task.grade([{ problem: task.train(0, 0), text: '' }]));
  expect(await errorOf(graded)).toMatch(message);
});

it('says when there are fewer problems than asked for, and how they are divided', async () => {
  const text = `
def problems(count, seed): return [{"question": f"{i}+1"} for i in range(3)]
def grade(problems, answers): return [1] * len(answers)
`;
  await withTask(text, async (task, warnings) => {
    expect(warnings).toEqual([
      expect.stringMatching(
        /env\d+\.py: problems gave 3 of the 8 that it was asked for; 2 are for training, 1 held out\.$/,
      ),
    ]);
    expect(task.evaluation(10)).toHaveLength(1);
  });
});

it('reasoning-gym, as the example has it', async (context) => {
  needs('reasoning-gym')(context);
  const { config } = loadRunConfig('configs/examples/reasoning.yaml');
  const task = await createTask(config.task);
  try {
    const problems = [task.train(0, 0), task.train(0, 1)];
    expect(problems[0]?.question).toMatch(/\d+ [+-] \d+/);
    const right = problems.map((problem) => ({ problem, text: `It is \\boxed{${problem.answer}}.` }));
    const wrong = problems.map((problem) => ({ problem, text: `\\boxed{${Number(problem.answer) + 1}}` }));
    expect((await task.grade([...right, ...wrong])).map(({ correct }) => correct)).toEqual([
      true,
      true,
      false,
      false,
    ]);
  } finally {
    await task.close();
  }
});
