/** A reward function from a user's TypeScript file, asked call by call, all at once. It sees `call.unread` and decides. */
import { basename, extname } from 'node:path';
import { TroupeError } from '../../config/errors.js';
import { importWithSchema } from '../../config/import-module.js';
import { findPath } from '../../config/package.js';
import { readOnly } from '../../config/read-only.js';
import { type Entry, withFields } from '../../config/registry.js';
import { shownValue } from '../../config/thrown.js';
import { caught, settled, shownFile, thrownAt } from '../../config/user-code.js';
import type { Episode, RoleCall } from '../../workflows/types.js';
import {
  type CallToReward,
  callName,
  common,
  type RewardContext,
  type RewardFunction,
  type RewardSource,
} from './types.js';

/** Throws a TroupeError if the file is not there or exports no function. */
export async function userReward(module: string): Promise<Entry<RewardSource, RewardContext>> {
  const { exported, schema } = await importWithSchema<RewardFunction>(module, {
    what: 'reward',
    takes: 'a function (call, episode) => number',
    is: (value): value is RewardFunction => typeof value === 'function',
  });
  const path = findPath(module);
  const where = shownFile(path);
  const label = basename(path, extname(path));
  return {
    schema: withFields(schema, common, where),
    make: (settings) =>
      functionReward((call, episode) => exported(call, episode, settings as Record<string, unknown>), {
        label,
        where,
      }),
  };
}

/** `where`: whom errors are about. */
export function functionReward(
  reward: (call: RoleCall, episode: Episode) => unknown,
  { label, where }: { label: string; where: string },
): RewardSource {
  const valueFor = async (
    one: CallToReward,
    shown: ReturnType<typeof views>,
    signal: AbortSignal | undefined,
  ): Promise<number | TroupeError> => {
    try {
      const { call, episode } = shown(one);
      const promise = Promise.resolve(reward(call, episode));
      const value = await settled(promise, { where, what: 'the reward function', signal });
      if (typeof value === 'number' && Number.isFinite(value)) return value;
      const got = `the reward function returned ${shownValue(value)} for ${callName(one)}`;
      return new TroupeError(`${got}; it takes a finite number.`, { where });
    } catch (error) {
      signal?.throwIfAborted();
      const known = caught(error);
      if (known instanceof TroupeError) return known;
      const what = `the reward function threw on ${callName(one)}: ${known.message}.`;
      return new TroupeError(what, { where: thrownAt(where, error), cause: error });
    }
  };
  return {
    label,
    values: (calls, { signal }) => {
      const shown = views();
      return Promise.all(calls.map((one) => valueFor(one, shown, signal)));
    },
  };
}

/** Calls and episodes as a reward sees them: what it overwrites would be in the streams, and in other rewards. */
function views(): (one: CallToReward) => CallToReward {
  const copies = new Map<unknown, unknown>();
  return (one) => readOnly({ call: one.call, episode: one.episode }, copies);
}
