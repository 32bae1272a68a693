/** What users' files throw, in words: whatever it is, asking for its message must not throw again. */
import { describe, expect, it } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { caught, shownValue, userError } from '../../src/config/user-code.js';

const trap = (): never => {
  throw new Error('a trap');
};
const hostile = new Proxy({}, { get: trap, getPrototypeOf: trap, has: trap, ownKeys: trap });
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
    ['an endless message', new Error('x'.repeat(1e6)), `${'x'.repeat(1000)}…`],
  ])('%s', (_what, thrown, message) => {
    expect(caught(thrown).message).toBe(message);
    expect(userError('mine.ts', 'the loss', thrown).message).toBe(`mine.ts: the loss threw: ${message}`);
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

it('says what to do in a sentence of its own', () => {
  const said = (message: string) => new TroupeError(message, { where: 'a.yaml', hint: 'Mend it.' }).message;
  expect(said('is wrong.')).toBe('a.yaml: is wrong. Mend it.');
  expect(said('is wrong: ENOENT')).toBe('a.yaml: is wrong: ENOENT. Mend it.');
  expect(new TroupeError('is wrong', { where: 'a.yaml' }).message).toBe('a.yaml: is wrong');
});
