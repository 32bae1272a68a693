/**
 * Rewards of role calls: what `learning.reward` names, each for the calls of its roles, and their weighted sum. The
 * kinds of rewards are in rewards/.
 */
import { TroupeError } from '../config/errors.js';
import { unknownName } from '../config/nearest.js';
import { checkEntry, type Registry, type Section, type SectionPlace } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import { roleSampling } from '../policies/sampling.js';
import type { Episode } from '../workflows/types.js';
import { builtIn } from './rewards/built-in.js';
import { pythonReward } from './rewards/python.js';
import type { Common, RewardContext, RewardSource, RewardTime, RewardValue } from './rewards/types.js';
import { userReward } from './rewards/user.js';
import { callsOf, type EpisodeCall, type RewardedCall } from './step-call.js';

export type { RewardFunction } from './rewards/types.js';

export const rewards: Registry<RewardSource, RewardContext> = {
  what: 'reward',
  entries: builtIn,
  fromFile: userReward,
  fromPython: pythonReward,
};

/** The rewards of a run. */
export interface Rewards {
  /** Every call of the episodes with its reward, in their order. Throws where no later step could be rewarded either. */
  of(episodes: readonly Episode[], time: RewardTime): Promise<RewardedCall[]>;
  /** Starts what runs beside the program. Throws a TroupeError where it does not start. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** A reward as the configuration has it. */
interface Part extends Omit<Common, 'label'> {
  label: string;
  source: RewardSource;
}

export interface RewardSetting {
  learning: Pick<RunConfig['learning'], 'reward' | 'unread'>;
  rollout: RunConfig['rollout'];
  roles: readonly string[];
  locate?: SectionPlace['locate'];
  /** Hears of a Python process that is started again. */
  warn?: (message: string) => void;
}

/**
 * Opens what `learning.reward` names. Throws a TroupeError for an unknown name, role or setting, a file that is not there
 * or has another shape, two rewards of one label, and a role that no reward is for.
 */
export async function openRewards(setting: RewardSetting): Promise<Rewards> {
  const { learning, rollout, roles, locate, warn = () => {} } = setting;
  const maxTokens = (role: string) => roleSampling(rollout, role).maxTokens;
  const context: RewardContext = { unread: learning.unread, roles, maxTokens, warn, processes: new Map() };
  const parts: Part[] = [];
  for (const [i, section] of learning.reward.entries()) {
    const path = ['learning', 'reward', String(i)];
    const part = await openPart(section, { path, locate }, context);
    const where = `learning.reward[${i}]`;
    checkRoles(part, roles, where);
    if (parts.some(({ label }) => label === part.label)) {
      throw new TroupeError(`is another reward with the name "${part.label}".`, {
        where,
        hint: 'Give it a label.',
      });
    }
    parts.push(part);
  }
  const without = roles.find((role) => !parts.some((part) => isFor(part, role)));
  if (without !== undefined) {
    throw new TroupeError(`has no reward for the role "${without}".`, { where: 'learning.reward' });
  }
  return rewardsOf(parts);
}

async function openPart(section: Section, place: SectionPlace, context: RewardContext): Promise<Part> {
  const given = (['name', 'module', 'python'] as const).filter((key) => section[key] !== undefined);
  if (given.length !== 1) {
    const got = given.length === 0 ? 'none' : given.join(' and ');
    const where = place.path.join('.');
    throw new TroupeError(`has ${got} of name, module and python; it takes one.`, { where });
  }
  const { entry, settings } = await checkEntry(rewards, section, place);
  const { weight, roles, label } = settings as Common;
  const source = await entry.make(settings, context);
  return { weight, roles, label: label ?? source.label, source };
}

const isFor = ({ roles }: Part, role: string) => roles === 'all' || roles.includes(role);

function checkRoles({ roles }: Part, known: readonly string[], where: string): void {
  if (roles === 'all') return;
  for (const role of roles) if (!known.includes(role)) throw unknownName('role', role, known, where);
}

function rewardsOf(parts: readonly Part[]): Rewards {
  const order = new Map(parts.map(({ label }, i) => [label, i]));
  const place = ({ name }: RewardValue) => order.get(name) ?? 0;
  return {
    of: async (episodes, time) => {
      const calls = callsOf(episodes).map((one): CallInReward => ({ ...one, values: [] }));
      await Promise.all(parts.map((part) => addValues(part, calls, time)));
      return calls.map((one) => {
        const values = one.values.toSorted((a, b) => place(a) - place(b));
        return { ...one, values, reward: total(values) };
      });
    },
    start: async () => {
      for (const { source } of parts) await source.start?.();
    },
    close: async () => {
      for (const { source } of parts) await source.close?.();
    },
  };
}

type CallInReward = EpisodeCall & Pick<RewardedCall, 'values'>;

async function addValues(part: Part, calls: readonly CallInReward[], time: RewardTime): Promise<void> {
  const { label: name, weight, source } = part;
  const its = calls.filter(({ call }) => isFor(part, call.role));
  if (its.length === 0) return;
  const given = await source.values(its, time);
  for (const [i, { values }] of its.entries()) {
    const value = given[i] ?? null;
    if (value instanceof TroupeError) values.push({ name, weight, value: null, error: value });
    else values.push({ name, weight, value });
  }
}

/** A part of a sum would be another reward: one that failed leaves the call without any. */
function total(values: readonly RewardValue[]): number | TroupeError {
  const failed = values.find(({ error }) => error !== undefined)?.error;
  if (failed !== undefined) return failed;
  const said = values.filter(({ value }) => value !== null);
  if (said.length === 0) {
    const names = values.map(({ name }) => name).join(', ');
    return new TroupeError(`gave no value (${names}: None).`, { where: 'learning.reward' });
  }
  return said.reduce((sum, { weight, value }) => sum + weight * (value ?? 0), 0);
}
