/** What counts as the same answer, what is read out of a text, and that hostile answers cost nothing. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { extractAnswer, gradeMath, sameAnswer } from '../../src/tasks/math-grading.js';
import { createTask } from '../../src/tasks/registry.js';
import { dataFolder, needs } from '../needs.js';
import { DIFFERENT as DIFFERENT_ANSWERS, SAME as SAME_ANSWERS } from './math-cases.js';

/** Either of the two may be the right one. */
const SAME: [string, string][] = [
  ['42', '42'],
  ['42.', '42'],
  ['42.0', '42'],
  ['0.5', '\\frac{1}{2}'],
  ['.5', '1/2'],
  ['\\dfrac12', '\\frac{1}{2}'],
  ['\\frac 32', '3/2'],
  ['-\\frac{5}{10}', '\\frac{-1}{2}'],
  ['1\\frac{2}{3}', '\\frac{5}{3}'],
  ['1 2/3', '5/3'],
  ['3 - 1/2', '2.5'],
  ['42,409', '\\$42409'],
  ['\\$1,\\!657', '1657'],
  ['$18', '18 dollars'],
  ['20\\text{ miles}', '20'],
  ['13.5 pounds', '13.5'],
  ['17\\%', '17'],
  ['50%', '0.5'],
  ['20 \\%', '20\\%'],
  ['90^\\circ', '90'],
  ['2\\sqrt{3}', '\\sqrt{12}'],
  ['2\\sqrt3', '2\\cdot\\sqrt{3}'],
  ['\\frac{2\\sqrt{35}}{35}', '\\frac{2}{\\sqrt{35}}'],
  ['\\frac{25\\pi}{2}', '12.5\\pi'],
  ['\\frac{35}{2} \\pi', '17.5π'],
  ['5^{12}', '244140625'],
  ['12^{1/7}', '\\sqrt[7]{12}'],
  ['\\frac{\\sqrt[3]{4}}{6}', '\\sqrt[3]{4}/6'],
  ['5!', '120'],
  ['x = 5', '5'],
  ['f(x)=3', '3'],
  ['x \\in [0,3)', '[0,3)'],
  ['\\left(\\frac{20}{3},0\\right)', '(20/3, 0)'],
  ['(0.5, 3)', '\\left(\\frac12,3\\right)'],
  ['[1,\\infty)', '[1, \\infty)'],
  ['(-\\infty,-1)\\cup(4,\\infty)', '(-\\infty, -1) \\cup (4, \\infty)'],
  ['2, -2', '-2, 2'],
  ['8, 6 and 10', '6, 8\\text{, and }10'],
  ['\\{1,2\\}', '\\{2, 1\\}'],
  ['\\text{Friday}', 'friday'],
  ['(B)', 'B'],
  ['\\text{(B)}', 'B'],
  ['x^2+7x+10', 'x^2 + 7x + 10'],
  // TeX would set x¹0.
  ['x^10', 'x^{10}'],
  ['3x^12y', '3x^{12}y'],
  ['x^-10', '\\frac{1}{x^{10}}'],
  ['-80\\le g(x)\\le 82', '-80\\leq g(x)\\leq 82'],
  ['\\tfrac{1}{b}', '\\frac1b'],
];

const DIFFERENT: [string, string][] = [
  ['42', '43'],
  ['1000000', '1000001'],
  ['(0,3)', '[0,3)'],
  ['(1,2)', '(2,1)'],
  ['(1,2)', '1,2'],
  ['1,2', '1,2,2'],
  ['2,2,1', '1,1,2'],
  ['[0,3]', '[0,3)'],
  ['x^2', 'x^3'],
  ['x^10', '10x'],
  ['x^10', '0'],
  ['x^{1}0', 'x^{10}'],
  ['x^1 0', 'x^{10}'],
  ['5', '5x'],
  ['-5', '5'],
  ['50', '0.5'],
  ['\\text{Friday}', '\\text{Monday}'],
  ['', '0'],
  ['\\frac{1}{0}', '1'],
  ['9^9^9^9', '9^9^9^8'],
  ['1e999', '2e999'],
];

describe('same answer', () => {
  test.each(SAME)('%s is %s', (a, b) => {
    expect(sameAnswer(a, b)).toBe(true);
    expect(sameAnswer(b, a)).toBe(true);
  });
  test.each(DIFFERENT)('%s is not %s', (a, b) => {
    expect(sameAnswer(a, b)).toBe(false);
    expect(sameAnswer(b, a)).toBe(false);
  });

  test('fractions are compared exactly, however written', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 1, max: 10_000 }),
        fc.integer({ min: 1, max: 50 }),
        (a, b, c) => {
          expect(sameAnswer(`\\frac{${a * c}}{${b * c}}`, `${a}/${b}`)).toBe(true);
          expect(sameAnswer(String(a), String(a + b))).toBe(false);
        },
      ),
    );
  });
});

describe('an answer beside the right one', () => {
  test.each(SAME_ANSWERS)('%s is right for %s', (got, right) => {
    expect(sameAnswer(got, right)).toBe(true);
  });
  test.each(DIFFERENT_ANSWERS)('%s is wrong for %s', (got, right) => {
    expect(sameAnswer(got, right)).toBe(false);
  });

  test('a calculation that the question asks for is no answer', () => {
    const question = 'Calculate $3 \\times 4$.';
    expect(gradeMath('\\boxed{3 × 4}', '12', question).correct).toBe(false);
    expect(gradeMath('\\boxed{12}', '12', question).correct).toBe(true);
    expect(gradeMath('\\boxed{3\\cdot 4}', '3 \\times 4', question).correct).toBe(true);
    // Nor the same in another dress.
    for (const [said, asked] of [
      ['12 \\times 7', '12$ times $7'],
      ['168 \\div 2', '168 divided by 2'],
      ['\\frac{168}{2}', '168/2'],
      ['\\dfrac{168}{2}', '\\frac{168}{2}'],
    ])
      expect(gradeMath(`\\boxed{${said}}`, '84', `Calculate $${asked}$.`).correct, said).toBe(false);
    expect(gradeMath('\\boxed{\\frac{3}{4}}', '0.75', 'Is it $\\frac{3}{4}$ or less?').correct).toBe(true);
    expect(gradeMath('\\boxed{15 \\times 10^2}', '1500', '').correct).toBe(true);
  });

  test('products and powers of polynomials are equal to what they multiply out to, and to nothing else', () => {
    const small = fc.integer({ min: -9, max: 9 });
    fc.assert(
      fc.property(small, small, small, (a, b, c) => {
        const sign = (n: number): string => (n < 0 ? `${n}` : `+${n}`);
        const out = `${a}x^2${sign(a * b + c)}x${sign(b * c)}`;
        // (a x + c)(x + b) = a x² + (a b + c) x + b c
        expect(sameAnswer(`(${a}x${sign(c)})(x${sign(b)})`, out)).toBe(true);
        expect(sameAnswer(`(${a}x${sign(c)})(x${sign(b)})+1`, out)).toBe(false);
      }),
      { numRuns: 50 },
    );
  });
});

describe('extraction', () => {
  test.each([
    ['so \\boxed{1}. No: \\boxed{\\frac{1}{2}}.', '\\frac{1}{2}'],
    ['so \\boxed{1} or \\boxed{\\frac{1}{2}}.', '1, \\frac{1}{2}'],
    ['\\boxed{\\text{a } \\{1,2\\}}', '\\text{a } \\{1,2\\}'],
    ['$\\boxed 5$', '5'],
    ['\\fbox{9}', '9'],
    ['48/2 = 24\n#### 72', '72'],
    ['The answer is 42.', '42'],
    ['**Answer:** 1/2', '1/2'],
    ['Answer: $\\frac{3}{4}$\nthanks', '\\frac{3}{4}'],
    ['The answer is that Tom has 12 apples and 3 pears left, so 15', '15'],
    ['first 3, then 1,234.5', '1,234.5'],
    ['10-3', '3'],
    ['it is -8', '-8'],
    ['$x=\\boxed{1}$ or $x=\\boxed{2}$', '1, 2'],
    ['\\boxed{1} is wrong; rather \\boxed{2}', '2'],
    ['\\boxed{\\boxed{5}}', '5'],
    ['<think>\\boxed{6}</think>The answer is \\boxed{7}.', '7'],
    ['<think>so \\boxed{6}</think>It is 7.', '7'],
    ['The answer is 5 because 2 + 3 = 5.', '5'],
    ['The answer is 42, not 43.', '42'],
    ['The answer is therefore 5.', '5'],
    ['Hence the answer is equal to 5', '5'],
    ['The answer is\n\n8', '8'],
    ['**Final Answer**\n\n42', '42'],
    ['**Answer:**\n$x = 7$', 'x = 7'],
    ['答案：42', '42'],
    ['The answer is (B).', '(B)'],
    ['It grew by 12.5%.', '12.5%'],
    ['The correct option is (B).', '(B)'],
    ['The answer is:\n$$\nx+1\n$$', 'x+1'],
    ['Natalia sold 72 clips', '72'],
    ['is 42, because 6*7=42', '42'],
    ['It is not 3.\n<answer>\\frac{1}{2}</answer>', '\\frac{1}{2}'],
    ['<answer>\nThe answer is 12.\n</answer>', '12'],
    ['The answer is 12<|im_end|>', '12'],
    ['The answer is 12.</s>', '12'],
    ['<|channel|>analysis<|message|>11?<|end|><|channel|>final<|message|>12<|return|>', '12'],
  ])('%j gives %s', (text, answer) => {
    expect(extractAnswer(text)).toBe(answer);
  });

  test.each([
    '',
    'no idea',
    '\\boxed{}',
    '\\boxed{7} and then \\boxed{8',
    '<think>\\boxed{6}</think> Hm.',
    '<think>\\boxed{6} and so on',
    'Perhaps 3 or 4.',
    'I do not think that it is 12.',
    `\\boxed{${'1'.repeat(5000)}}`,
  ])('%.20j gives none', (text) => {
    expect(extractAnswer(text)).toBeUndefined();
  });
});

describe('hostile answers', () => {
  const long = 300_000;
  test.each([
    '9^9^9^9^9',
    '2^{2^{2^{2^{2^{2}}}}}',
    '10^{-99999999999}',
    '170!!!!!',
    '99999999999999999999!',
    `${'('.repeat(200)}1${')'.repeat(200)}`,
    '{'.repeat(299),
    '\\frac'.repeat(60),
    '-'.repeat(299),
    '1,'.repeat(400),
    `${'1,000'.repeat(60)}`,
    `1${' '.repeat(250)}x`,
    '\\text{'.repeat(150),
    '1e99'.repeat(70),
    '\\cup'.repeat(200),
    `${'\\sin('.repeat(50)}17${')'.repeat(50)}`,
    '√'.repeat(400),
    `2999!${'*2999!'.repeat(100)}`,
    `${'(x+1)^{300}*'.repeat(40)}1`,
    `${'\\pm('.repeat(30)}17${')'.repeat(30)}`,
    '\\binom{3000}{1500}'.repeat(20),
    `\\begin{pmatrix}${'1&'.repeat(200)}`,
  ])('%.30j ends', (answer) => {
    expect(gradeMath(`\\boxed{${answer}}`, '17').correct).toBe(false);
    expect(sameAnswer(answer, '(1, 17)')).toBe(false);
  });

  test.each([
    '\\boxed{'.repeat(long / 7),
    '{'.repeat(long),
    '\\boxed '.repeat(long / 7),
    'answer '.repeat(long / 7),
    `answer${' '.repeat(long)}`,
    '#'.repeat(long),
    '1'.repeat(long),
    '1,'.repeat(long / 2),
    '-1/'.repeat(long / 3),
    'a '.repeat(long / 2),
    `\\boxed{${'9'.repeat(900)}}`,
  ])('a long text %.20j ends', (text) => {
    expect(gradeMath(text, '17').correct).toBe(false);
  });

  test('no text of these signs makes it throw, and it never finds 17 where there is none', () => {
    const sign = fc.constantFrom(
      ...'0234569.,/^!%$-+*(){}[] \n'.split(''),
      ...[
        '\\boxed{',
        '\\frac',
        '\\sqrt',
        '\\text{',
        '\\pi',
        '\\left(',
        '\\cup',
        '\\{',
        'x=',
        '####',
        'answer is',
      ],
    );
    fc.assert(
      fc.property(fc.array(sign, { maxLength: 60 }), (signs) => {
        const { correct, reason } = gradeMath(signs.join(''), 'seventeen');
        expect(correct).toBe(false);
        expect(['wrong', 'no-answer']).toContain(reason);
      }),
      { numRuns: 2000 },
    );
  });
});

test.each([
  [true, '\\boxed{1\u2009234\u2009567}', '1234567'],
  [true, '\\boxed{12\u202f345}', '12345'],
  [true, '\\boxed{12\\thinspace 345}', '12345'],
  [false, '\\boxed{12\u2009345}', '12'],
  [false, '\\boxed{1\u2009234\u200956}', '123456'],
  [false, '\\boxed{(100\u2009200)}', '(100,200)'],
  [true, 'The profit is \\$70{,}000.', '70000'],
  [true, 'That makes 1\\,234\\,567 in all.', '1234567'],
  [true, 'That makes 12\u202f345 in all.', '12345'],
  [false, 'That makes 12\u202f345 in all.', '345'],
  [false, 'She has (3,\\,400) now.', '3400'],
  [true, 'That makes 12\u00a0345 in all.', '12345'],
  [false, "That makes 12'345 in all.", '345'],
  // Behind the point gaps group digits, too; a comma there is a list's, or a point that others write so.
  [true, '\\boxed{0.123\u2009456}', '0.123456'],
  [true, '\\boxed{12\\,345.678\\,9}', '12345.6789'],
  [true, 'We get 0.123\\,456\\,7 then.', '0.1234567'],
  [false, 'The probability is about 0.5\\,000', '0'],
  [false, 'We get the value 2.5{,}000.', '0'],
  [false, 'We get 3.141{,}592.', '592'],
  [false, 'We get 3.141,592.', '592'],
  [false, 'We get 1.234,56 then.', '56'],
  [false, 'We get 1.234.567 then.', '567'],
  [false, 'We get 0{,}5 then.', '5'],
  [false, 'We get 0.12\\,34 then.', '34'],
  [false, 'It has a chance of 1/10,000.', '0'],
  [false, '\\boxed{3.125\\,10^3}', '3.1251000'],
  [false, '\\boxed{3.125\\,10}', '3.125'],
  [true, '\\boxed{(1\\,234,567)}', '(1234, 567)'],
])('digits in groups: %j, %j for %s', (correct, text, right) => {
  expect(gradeMath(text, right).correct).toBe(correct);
});

test.each([
  [true, '\\text{all real numbers}', '\\mathbb{R}'],
  [true, '\\text{All real numbers}', '(-\\infty,\\infty)'],
  [true, 'all reals', '\\mathbb{R}'],
  [true, '(-\\infty,\\infty)', '\\text{the set of all real numbers}'],
  [true, '\\Bbb{R}', '\\mathbb{R}'],
  [false, '\\text{all real numbers except } 2', '\\mathbb{R}'],
  [false, '\\text{all real numbers}', '[0,\\infty)'],
  [false, '\\text{all real numbers}', '\\mathbb{Q}'],
  [false, '\\text{not all real numbers}', '\\mathbb{R}'],
  [false, '\\text{all real numbers } x > 0', '\\mathbb{R}'],
  [false, '\\text{all positive real numbers}', '\\mathbb{R}'],
])('all real numbers: %j, %s for %s', (correct, box, right) => {
  expect(gradeMath(`\\boxed{${box}}`, right).correct).toBe(correct);
});

interface Reported {
  response: string;
  row: { answer: string };
  want: boolean;
  soft?: true;
}

test('of the answers from reports of other graders none that is wrong is accepted, none that is right refused', (context) => {
  needs('data sets')(context);
  const lines = readFileSync(join(dataFolder, 'cases/math-grading.jsonl'), 'utf8').trim().split('\n');
  const graded = lines.map((line) => JSON.parse(line) as Reported).filter(({ soft }) => soft !== true);
  const missed = graded.filter(({ response, row, want }) => gradeMath(response, row.answer).correct !== want);
  expect(graded.length).toBeGreaterThan(200);
  expect(missed).toEqual([]);
});

describe('data sets', () => {
  beforeEach(needs('data sets'));

  test.each(['gsm8k-train.jsonl', 'math-train.json', 'aime-1983-2023.json', 'dapo-aime2024.parquet'])(
    'every answer of %s is correct in a box, and its neighbour almost always wrong',
    async (name) => {
      const warnings: string[] = [];
      const task = await createTask(
        { name: 'math', files: join(dataFolder, name), holdout: 100_000 },
        { warn: (message) => warnings.push(message) },
      );
      const problems = task.evaluation(100_000);
      expect(problems.length).toBeGreaterThan(10);
      const texts = problems.map((problem) => ({ problem, text: `So it is \\boxed{${problem.answer}}.` }));
      const wrong = (await task.grade(texts)).flatMap(({ correct }, i) =>
        correct ? [] : [problems[i]?.answer],
      );
      expect(wrong).toEqual([]);
      const shifted = texts.map(({ text }, i) => ({
        problem: problems[(i + 1) % problems.length] ?? problems[0],
        text,
      }));
      const grades = await task.grade(shifted as typeof texts);
      expect(grades.filter(({ correct }) => correct).length).toBeLessThan(0.05 * problems.length);
      const skipped = warnings.filter((message) => message.startsWith('skipped'));
      expect(skipped).toHaveLength(name === 'math-train.json' ? 1 : 0);
    },
  );
});
