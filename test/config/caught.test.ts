/** What users' files throw, in words: whatever it is, asking for its message must not throw again. */
import { describe, expect, it } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { shownValue } from '../../src/config/thrown.js';
import { caught, userError } from '../../src/config/user-code.js';

const trap = (): never => {
  throw new Error('a trap');
};
const hostile = new Proxy({}, { get: trap, getPrototypeOf: trap, has: trap, ownKeys: trap });
const withStack = (stack: unknown) => Object.defineProperty(new Error('boom'), 'stack', { get: () => stack });
const refused = Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' });
const withGetter = Object.defineProperty(new Error('before'), 'message', { get: trap });

describe('what was thrown', () => {
  it.each([
    ['a text', 'boom', 'boom'],
    ['null', null, 'null'],
    ['nothing', undefined, 'undefined'],
    ['an object', { code: 3 }, '{ code: 3 }'],
    ['an object without a prototype', Object.create(null), '[Object: null prototype] {}'],
    ['an error without a message', new RangeError(), 'RangeError'],
    [
      'an error whose message is none',
      Object.assign(new Error(), { message: { odd: true } }),
      '[object Object]',
    ],
    ['an error with a getter that throws', withGetter, 'something that cannot be shown'],
    ['a Proxy that throws', hostile, 'something that cannot be shown'],
    ['several lines', new Error('one\n  two\n    at three'), 'one two at three'],
    ['what a terminal obeys', new Error('\x1b[2Jred\x07'), '\\x1b[2Jred\\x07'],
    ['a cause', new TypeError('fetch failed', { cause: refused }), 'fetch failed (ECONNREFUSED)'],
    ['a cause that it tells', new Error('no a: b', { cause: new Error('a: b') }), 'no a: b'],
    ['several errors', new AggregateError([new Error('a'), 'b'], 'none'), 'none (a; b)'],
    ['an endless message', new Error('x'.repeat(1e6)), `${'x'.repeat(1000)}…`],
  ])('%s', (_what, thrown, message) => {
    expect(caught(thrown).message).toBe(message);
    const { message: sentence } = userError('mine.ts', 'the loss', thrown);
    expect(sentence).toMatch(/^mine\.ts( \(.*caught\.test\.ts:\d+\))?: the loss threw: /);
    expect(sentence.endsWith(`: the loss threw: ${message}`)).toBe(true);
  });

  it.each([
    ['the file itself', 'Error: boom\n    at run (file:///a%20b/mine.ts?x:12:5)', '/a b/mine.ts:12'],
    ['TypeScript', 'Error: boom\n    at Module.run (/a b/mine.ts:12:5)', '/a b/mine.ts:12'],
    [
      'a file that it has called',
      'Error: boom\n    at file:///a%20b/node_modules/x/y.js:1:1\n    at async read (file:///a%20b/read.ts:3:1)\n    at run (/a b/mine.ts:12:5)',
      '/a b/mine.ts (/a b/read.ts:3)',
    ],
    ['nothing of a user', 'Error: boom\n    at node:internal/x:1:1', '/a b/mine.ts'],
    ['no stack', trap, '/a b/mine.ts'],
  ])('is said to be of %s', (_what, stack, where) => {
    const thrown =
      typeof stack === 'string'
        ? withStack(stack)
        : Object.defineProperty(new Error('boom'), 'stack', { get: stack });
    expect(userError('/a b/mine.ts', 'the loss', thrown).message).toBe(`${where}: the loss threw: boom`);
  });

  it('is not said to be of a file that its message names', () => {
    const error = new Error('cannot read:\n    at run (/a/answer.js:1:1)');
    expect(userError('mine.ts', 'the loss', error).message).toMatch(
      /^mine\.ts \(.*caught\.test\.ts:\d+\): the loss threw: cannot read: at run/,
    );
  });

  it('is itself where it can be read', () => {
    const [error, known] = [new Error('boom'), new TroupeError('is wrong.', { where: 'a.yaml' })];
    expect(caught(error)).toBe(error);
    expect(caught(known)).toBe(known);
  });
});

it('shows a value whose own way of being shown throws', () => {
  expect(shownValue({ [Symbol.for('nodejs.util.inspect.custom')]: trap })).toContain('inspect.custom');
  expect(shownValue(hostile)).toBe('{}');
});

it('shows an error in a value without its stack', () => {
  const rejected = Promise.reject(new Error('later'));
  rejected.catch(() => {});
  expect(shownValue(rejected)).toBe('Promise { <rejected> Error: later }');
  expect(shownValue([new Error('a'), 1])).toBe('[ Error: a, 1 ]');
});

it('says what to do in a sentence of its own', () => {
  const said = (message: string) => new TroupeError(message, { where: 'a.yaml', hint: 'Mend it.' }).message;
  expect(said('is wrong.')).toBe('a.yaml: is wrong. Mend it.');
  expect(said('is wrong: ENOENT')).toBe('a.yaml: is wrong: ENOENT. Mend it.');
  expect(new TroupeError('is wrong', { where: 'a.yaml' }).message).toBe('a.yaml: is wrong');
});
