/** Code problems: reading rows of every style, comparing results, and grading right and wrong programs. */
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { extractProgram } from '../../src/tasks/code-extraction.js';
import { gradeProgram } from '../../src/tasks/code-grading.js';
import { sameOutput } from '../../src/tasks/code-output.js';
import { codeProblem } from '../../src/tasks/code-rows.js';
import type { CodeTests } from '../../src/tasks/code-tests.js';
import { parseJson, parsePython, sameValue, toChannel } from '../../src/tasks/code-values.js';
import { createTask } from '../../src/tasks/registry.js';
import { SandboxPool } from '../../src/tasks/sandbox.js';
import type { Task } from '../../src/tasks/types.js';
import { dataFolder, has, needs } from '../needs.js';

let pool: SandboxPool;
beforeAll(async () => {
  if (has('bubblewrap')) pool = await SandboxPool.open({ jobs: 2 });
});
afterAll(async () => {
  await pool?.close();
});
beforeEach(needs('bubblewrap'));

async function reason(row: Record<string, unknown>, code: string): Promise<string> {
  const tests = codeProblem(row, 'x:1').data?.tests as CodeTests;
  return (await gradeProgram(pool, `\`\`\`python\n${code}\n\`\`\``, tests)).reason;
}

describe('extraction', () => {
  test.each([
    ['```python\na = 1\n```\nor\n```python\nb = 2\n```', 'b = 2\n'],
    ['```python\na = 1\n```\nprints\n```\n1\n```', 'a = 1\n'],
    ['```py\na = 1\n```', 'a = 1\n'],
    ['```\na = 1\n```', 'a = 1\n'],
    ['def f(x): return x+1', 'def f(x): return x+1\n'],
  ])('%j', (text, code) => {
    expect(extractProgram(text)).toBe(code);
  });
  test('the block that defines what the tests use, not an example after it', () => {
    const text = '```python\ndef f(x): return x\n```\n```python\nprint(f(1))\n```';
    expect(extractProgram(text, (code) => code.includes('def f'))).toBe('def f(x): return x\n');
    expect(extractProgram(text)).toBe('print(f(1))\n');
  });
  test.each([
    '',
    'I would loop over it.',
    '```python\n```',
    '```json\n{}\n```',
    '<think>\n```\na = 1\n```\n',
  ])('%j is none', (text) => {
    expect(extractProgram(text)).toBeUndefined();
  });
  // Quadratic, each of these would take minutes.
  test('long texts cost nothing', () => {
    expect(extractProgram('```python\n'.repeat(30_001))).toHaveLength(300_000);
    expect(extractProgram('`'.repeat(300_000))).toBeUndefined();
    expect(extractProgram(`\`\`\`python\n"""\n${'```\n'.repeat(60_000)}`)).toBe('"""\n');
    expect(extractProgram(`def f(): ${'> '.repeat(100_000)}`)).toBeDefined();
    expect(extractProgram('<think>'.repeat(100_000))).toBeUndefined();
    expect(extractProgram(`${' '.repeat(300_000)}x`)).toBeUndefined();
    expect(extractProgram('<|im_end|> '.repeat(30_000))).toBeUndefined();
    expect(extractProgram('<code '.repeat(50_000))).toBeUndefined();
    for (const space of ['\n', ' \n', '\r\n', '\u2028', ' ']) {
      expect(extractProgram(`\`\`\`python\n${space.repeat(300_000)}\n\`\`\``)).toBeUndefined();
      expect(extractProgram(`\`\`\`\n${space.repeat(300_000)}x\n\`\`\``, () => false)).toBeDefined();
    }
  });
});

describe('comparison', () => {
  test.each([
    ['1\n2', ' 1 \n2\n\n'],
    ['1.50 2', '1.5 2.0'],
    ['1000', '1e3'],
    ['-0', '0.0'],
    ['abc  d', 'abc  d'],
    ['0.1', '.1'],
    ['0.333333333', '0.3333333333333333'],
    ['0.6666666666666666', '0.666667'],
  ])('output %j equals %j', (a, b) => {
    expect(sameOutput(a, b)).toBe(true);
    expect(sameOutput(b, a)).toBe(true);
  });
  test.each([
    ['1\n2', '1 2'],
    ['1.5', '1.50001'],
    ['1234567.01', '1234567.89'],
    ['007', '7'],
    ['1e999', '5'],
    ['abc d', 'abc  d'],
    ['1', '1 1'],
    ['a 1.0', 'a 1'],
    ['', '0'],
    ['1e99999999', '1e99999998'],
  ])('output %j differs from %j', (a, b) => {
    expect(sameOutput(a, b)).toBe(false);
    expect(sameOutput(b, a)).toBe(false);
  });

  test('whole numbers are exact, and nothing is not near to a small number', () => {
    expect(sameOutput('3', '3.0000001')).toBe(false);
    expect(sameOutput('3.0', '3.0000001')).toBe(true);
    expect(sameOutput('0.0000001', '0')).toBe(false);
  });

  test('a JSON value equals itself, and not with one number changed', () => {
    const value = fc.jsonValue({ noUnicodeString: false } as object);
    fc.assert(
      fc.property(value, fc.integer(), (json, number) => {
        expect(sameValue(toChannel(json), toChannel(json))).toBe(true);
        expect(sameValue(toChannel([json, number]), toChannel([json, number + 1]))).toBe(false);
        expect(sameValue(toChannel([json]), toChannel([[json]]))).toBe(false);
      }),
    );
  });

  test('floats are floats, whatever JavaScript makes of them', () => {
    const sent = (text: string) => toChannel(parsePython(text));
    expect(sent('[3.0, 3, 1e3, -0.0, 0.5]')).toEqual([
      { $float: '3.0' },
      3,
      { $float: '1e3' },
      { $float: '-0.0' },
      0.5,
    ]);
    expect(sent('[NaN, -Infinity, "NaN 3.0"]')).toEqual([{ $float: 'nan' }, { $float: '-inf' }, 'NaN 3.0']);
    expect(sameValue(sent('2.0'), 1.9999999999999998)).toBe(true);
    expect(sameValue(sent('2'), 1.9999999999999998)).toBe(false);
    expect(sameValue(sent('0.3'), 0.30000000000000004)).toBe(true);
    expect(sameValue(sent('0.3'), 0.3001)).toBe(false);
  });

  test('whole numbers beyond 2^53 are exact', () => {
    const big = (text: string) => toChannel(parseJson(text));
    expect(sameValue(big('[12345678901234567891]'), big('[12345678901234567891]'))).toBe(true);
    expect(sameValue(big('[12345678901234567891]'), big('[12345678901234567892]'))).toBe(false);
    const others = '{"a": "x 12345678901234567891 y", "b": 12345678901234567.5, "c": 0.12345678901234567891}';
    expect(parseJson(others)).toEqual(JSON.parse(others));
  });

  test('tuples count as lists, True as 1, text never as a number', () => {
    expect(sameValue([1, 2], { $tuple: [1, 2] })).toBe(true);
    expect(sameValue(1, true)).toBe(true);
    expect(sameValue('1', 1)).toBe(false);
    expect(sameValue(null, false)).toBe(false);
    expect(sameValue({ $dict: [['1', 2]] }, { $dict: [[1, 2]] })).toBe(true);
  });
});

describe('rows', () => {
  const stdin = {
    question: 'Add.',
    tests: [
      { type: 'stdin_stdout', input: '1 2\n', output: '3\n' },
      { type: 'stdin_stdout', input: '5 5\n', output: '10\n' },
    ],
  };
  const add = 'print(sum(map(int, input().split())))';

  test('programs with standard input', async () => {
    expect(await reason(stdin, add)).toBe('correct');
    expect(await reason(stdin, 'print(3)')).toBe('wrong');
    expect(await reason({ ...stdin, tests: JSON.stringify(stdin.tests) }, add)).toBe('correct');
    const apps = { question: 'Add.', input_output: '{"inputs": ["1 2\\n"], "outputs": ["3\\n"]}' };
    expect(await reason(apps, `if __name__ == "__main__":\n  ${add}`)).toBe('correct');
    expect(
      await reason(
        apps,
        `import sys\ndata = open(0).read().split()\nprint(sum(map(int, data)))\nsys.exit(0)`,
      ),
    ).toBe('correct');
  });

  test('functions, with arguments as lists or one JSON value a line', async () => {
    const pair = 'def pair(a, b): return (a, b)';
    const listed = {
      problem: 'Pair.',
      tests: [{ type: 'function_call', fn_name: 'pair', input: [1, [2, 3]], output: [[1, [2, 3]]] }],
    };
    expect(await reason(listed, pair)).toBe('correct');
    expect(await reason(listed, 'def pair(a, b): return (b, a)')).toBe('wrong');
    const lined = {
      question_content: 'Pair.',
      public_test_cases: '[{"input": "1\\n[2, 3]", "output": "[1, [2, 3]]", "testtype": "functional"}]',
      metadata: '{"func_name": "pair"}',
    };
    expect(await reason(lined, pair)).toBe('correct');
    expect(await reason(lined, `class Solution:\n  def pair(self, a, b): return [a, b]`)).toBe('correct');
    expect(await reason(lined, `class Solution:\n  def pair(self, a, b): return [a]`)).toBe('wrong');
    const large = {
      problem: 'x',
      tests: { fn_name: 'f', inputs: ['12345678901234567891'], outputs: ['24691357802469135782'] },
    };
    expect(await reason(large, 'def f(x): return 2 * x')).toBe('correct');
    expect(await reason(large, 'def f(x): return 2.0 * x')).toBe('wrong');
    const typed = {
      problem: 'x',
      tests: '{"fn_name": "f", "inputs": ["3.0", "3"], "outputs": ["\\"float\\"", "\\"int\\""]}',
    };
    expect(await reason(typed, 'def f(x): return type(x).__name__')).toBe('correct');
  });

  test('a row that wraps every result may mean either; one that does not means what it says', async () => {
    const tests = (outputs: unknown[]) => ({
      problem: 'x',
      tests: { fn_name: 'f', inputs: [[1], [2]], outputs },
    });
    expect(await reason(tests([[2], [3]]), 'def f(x): return x + 1')).toBe('correct');
    expect(await reason(tests([[2], [3, 3]]), 'def f(x): return x + 1')).toBe('wrong');
  });

  test('asserts: a list, a completion, a class', async () => {
    const mbpp = {
      text: 'Write twice.',
      code: 'def twice(x): return 2 * x',
      test_list: ['assert twice(2) == 4', 'assert twice("a") == "aa"'],
    };
    expect(await reason(mbpp, mbpp.code)).toBe('correct');
    expect(await reason(mbpp, 'def twice(x): return 4')).toBe('wrong');
    const humaneval = {
      prompt:
        'from typing import List\n\ndef helper(x):\n    return x + 1\n\ndef next_of(xs: List[int]):\n    """Adds one."""\n',
      entry_point: 'next_of',
      test: 'def check(candidate):\n    xs = [1]\n    assert candidate(xs) == [2]\n    assert xs == [1]\n    try:\n        candidate(None)\n        assert False\n    except TypeError:\n        pass\n',
      canonical_solution: '    return [helper(x) for x in xs]\n',
    };
    expect(await reason(humaneval, 'def next_of(xs: List[int]): return [helper(x) for x in xs]')).toBe(
      'correct',
    );
    expect(await reason(humaneval, 'def next_of(xs):\n  xs[0] = 5\n  return [2]')).toBe('wrong');
    expect(await reason(humaneval, 'def next_of(xs): return [2]')).toBe('wrong');
    const leetcode = {
      problem: 'Reverse.',
      tests: {
        functional:
          'def check(candidate):\n    assert is_same_list(candidate(head = list_node([1,2])), list_node([2,1]))\n    assert candidate(head = None) is None\n\ncheck(Solution().reverse)',
      },
    };
    const reverse =
      'class Solution:\n  def reverse(self, head: Optional[ListNode]):\n    last = None\n    while head: head.next, last, head = last, head, head.next\n    return last';
    expect(await reason(leetcode, reverse)).toBe('correct');
    expect(await reason(leetcode, reverse.replace('return last', 'return head'))).toBe('wrong');
  });

  test('an object of the program keeps its state between calls', async () => {
    const row = {
      problem: 'Count.',
      tests: { functional: 'c = Counter2(3)\nassert c.up() == 4\nassert c.up() == 5\n' },
    };
    expect(
      await reason(
        row,
        'class Counter2:\n  def __init__(self, n): self.n = n\n  def up(self): self.n += 1; return self.n',
      ),
    ).toBe('correct');
    expect(
      await reason(
        row,
        'class Counter2:\n  def __init__(self, n): self.n = n\n  def up(self): return self.n + 1',
      ),
    ).toBe('wrong');
  });

  test.each([
    [{}, /no question/],
    [{ question: 'x' }, /no tests/],
    [{ question: 'x', tests: 'no json' }, /not JSON/],
    [{ question: 'x', tests: [] }, /no tests/],
    [{ question: 'x', tests: [{ input: 1 }] }, /without input or output/],
    [{ question: 'x', tests: { inputs: [1], outputs: [] } }, /equally many/],
    [{ text: 'x', test_list: [] }, /empty test_list/],
    [{ text: 'x', test_list: ['assert f(1)', { toString: 1 }] }, /no text/],
    [{ question: 'x', tests: [{ input: {}, output: '1' }] }, /neither text nor a number/],
    [{ question: 'x', tests: [{ input: '1', output: ['1', { toString: 1 }] }] }, /neither text nor a number/],
    [{ question: 'x', tests: '[{"input": "NaN", "output": {"$written": {"toString": 1}}}]' }, /neither text/],
    [{ prompt: 'def f():', entry_point: 'f' }, /no test/],
    [{ question: 'x', tests: [{ type: 'function_call', input: [1], output: [1] }] }, /without a name/],
    [{ text: 'x', test_list: ['f(1)'] }, /asserts nothing/],
    [{ description: 'Print any of them.', official_tests: [{ input: '', output: '1' }] }, /no checker/],
    [
      { description: 'x', official_tests: [{ input: '', output: '1' }], generated_checker: 'eval(x)' },
      /would run/,
    ],
    [{ description: 'x', official_tests: [{ input: '', output: '1' }], checker: 'testlib' }, /not known/],
    [
      { description: 'x', official_tests: [{ input: '', output: '1' }], official_tests_complete: false },
      /complete/,
    ],
    [
      { description: 'x', official_tests: [{ input: '', output: '1' }], interaction_format: 'Ask.' },
      /interactive/,
    ],
    [
      { description: 'x', official_tests: [{ input: '', output: '1' }], input_mode: 'file' },
      /input mode file/,
    ],
    [{ description: 'x', public_tests: { input: [''], output: ['1'] }, input_file: 'in.txt' }, /input_file/],
    [{ question_content: 'x', public_test_cases: '', private_test_cases: 'AAAA' }, /packed JSON/],
  ])('%j is refused', (row, message) => {
    expect(() => codeProblem(row, 'x:1')).toThrow(message);
  });
});

describe('data sets', () => {
  beforeEach(needs('data sets'));

  test.each([
    ['mbpp.jsonl', 25],
    ['leetcode-train.json', 25],
  ])("reference programs of %s pass, another problem's do not", async (name, count) => {
    const task = await createTask({ name: 'code', files: join(dataFolder, name), holdout: count, jobs: 2 });
    try {
      await expectReferences(task, count);
    } finally {
      await task.close();
    }
  });
});

async function expectReferences(task: Task, count: number): Promise<void> {
  const problems = task.evaluation(count);
  expect(problems).toHaveLength(count);
  const right = problems.map((problem) => ({ problem, text: `\`\`\`python\n${problem.answer}\n\`\`\`` }));
  const failed = (await task.grade(right)).flatMap(({ correct, reason: why }, i) =>
    correct ? [] : [`${problems[i]?.id} ${why}`],
  );
  // The sets hold a few references that fail their own tests.
  expect(failed.length, failed.join(', ')).toBeLessThanOrEqual(1);
  const other = problems.map((problem, i) => ({ problem, text: right[(i + 1) % count]?.text ?? '' }));
  expect((await task.grade(other)).filter(({ correct }) => correct)).toEqual([]);
}

describe('mini-programs', () => {
  let task: Task;
  beforeAll(async () => {
    if (!has('bubblewrap')) return;
    task = await createTask({ name: 'mini-programs', levels: [1, 2, 3, 4], jobs: 2 });
  });
  afterAll(async () => {
    await task?.close();
  });

  test('the answers are right, wrong ones wrong', async () => {
    const problems = task.evaluation(24);
    expect(problems).toHaveLength(24);
    const right = await task.grade(problems.map((problem) => ({ problem, text: problem.answer ?? '' })));
    expect(right.map(({ reason: why }) => why)).toEqual(problems.map(() => 'correct'));
    const wrong = await task.grade(
      problems.map((problem, i) => ({ problem, text: problems[(i + 1) % 24]?.answer ?? '' })),
    );
    expect(wrong.filter(({ correct }) => correct)).toEqual([]);
  });

  test('training never sees a held-out problem; the order follows from seed and index', () => {
    const kept = new Set(task.evaluation(500).map(({ question }) => question));
    expect(kept.size).toBeGreaterThan(100);
    for (let i = 0; i < 3000; i++) expect(kept).not.toContain(task.train(i % 5, i).question);
    expect(task.train(3, 9)).toEqual(task.train(3, 9));
  });

  test('in words', async () => {
    const words = await createTask({ name: 'mini-programs', levels: [4], style: 'words', jobs: 1 });
    expect(words.train(0, 0).question).toMatch(
      /^Write a Python function f\(x\) that takes a list x of whole numbers, .+ and returns the result\.$/,
    );
    await words.close();
  });
});
