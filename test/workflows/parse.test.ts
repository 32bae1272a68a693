/** Fails if what roles say is read as something else than they mean. */
import { expect, test } from 'vitest';
import { parsePick, parseStrategies, parseVerdict } from '../../src/workflows/parse.js';

test.each([
  ['2', 2],
  [' 3.', 3],
  ['\\boxed{1}', 1],
  ['Candidate 1 adds wrongly, candidate 3 forgets. The answer is \\boxed{2}.', 2],
  ['Candidate 1 is wrong. I pick candidate 3', 3],
  ['Best: candidate #2', 2],
  ['4', undefined],
  ['0', undefined],
  ['', undefined],
  ['1 or 2', undefined],
  ['7 and 8 differ', undefined],
  ['\\boxed{12}', undefined],
])('pick of "%s"', (text, expected) => {
  expect(parsePick(text, 3)).toBe(expected);
});

test.each([
  ['yes', true],
  ['No, 3+4 is 7.', false],
  ['The sum is fine.\nVerdict: correct', true],
  ['Verdict: correct? No. **Verdict:** incorrect.', false],
  ['Verdict: not correct', false],
  ['The draft is wrong', false],
  ['Looks right', true],
  ['That is not right', undefined],
  ['Verdict: maybe', undefined],
  ['7', undefined],
  ['', undefined],
])('verdict of "%s"', (text, expected) => {
  expect(parseVerdict(text)).toBe(expected);
});

test.each([
  ['a ; b ;c', ['a', 'b', 'c']],
  ['Strategies:\n1. Directly.\n2) Backwards\n- By cases', ['Directly.', 'Backwards', 'By cases']],
  ['a', []],
  ['', []],
  ['First this; then that.\nAnd more; and more.', []],
])('strategies of "%s"', (text, expected) => {
  expect(parseStrategies(text)).toEqual(expected);
});
