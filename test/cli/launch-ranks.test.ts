/** Fails if a rank that cannot be started is an error without a sentence. What ranks that start do is in test/learning. */
import { afterEach, expect, it } from 'vitest';
import { launchRanks } from '../../src/cli/launch-ranks.js';
import { TroupeError } from '../../src/config/errors.js';

const { execPath } = process;
afterEach(() => {
  process.execPath = execPath;
});

it('says which rank could not be started, and why', async () => {
  process.execPath = '/nowhere/node';
  const listeners = process.listenerCount('SIGTERM');
  const error = await launchRanks(2, []).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(TroupeError);
  expect((error as Error).message).toBe(
    'rank 0: could not be started (spawn /nowhere/node ENOENT). Start fewer ranks.',
  );
  expect(process.listenerCount('SIGTERM')).toBe(listeners);
});
