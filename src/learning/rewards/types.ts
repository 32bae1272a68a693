/** What a kind of reward is to the others: values for calls. */
import { z } from 'zod';
import type { TroupeError } from '../../config/errors.js';
import type { PythonProcess } from '../../config/python-process.js';
import type { RunConfig } from '../../config/schema.js';
import type { Episode, RoleCall } from '../../workflows/types.js';

/** Settings that every entry of `learning.reward` has. */
export const common = {
  label: z.string().optional().describe('Name in the stream `rewards`; default: the name, function or file.'),
  weight: z.number().default(1).describe('Factor of its values in the sum.'),
  roles: z
    .union([z.literal('all'), z.array(z.string()).min(1)])
    .default('all')
    .describe('Roles whose calls it rewards.'),
};
export type Common = z.output<z.ZodObject<typeof common>>;

/** What making a reward needs to know. */
export interface RewardContext {
  unread: RunConfig['learning']['unread'];
  /** Of the workflow. */
  roles: readonly string[];
  /** Response tokens that a call of the role may have. */
  maxTokens(role: string): number;
  warn(message: string): void;
  /** The processes of Python files by their paths: functions of one file share one. */
  processes: Map<string, PythonProcess>;
}

/**
 * Reward of one call of a graded episode; a finite number. A user's file exports one as default. An example:
 * `export default (call, episode) => episode.grade.reward - (call.completion.finish === 'length' ? 0.5 : 0)`.
 * `settings`: the entry of the configuration, as the file's `schema` gives it where it exports one.
 */
export type RewardFunction = (
  call: RoleCall,
  episode: Episode,
  settings: Record<string, unknown>,
) => number | Promise<number>;

export interface CallToReward {
  episode: Episode;
  call: RoleCall;
}

/** Where the run is. */
export interface RewardTime {
  /** The step, from 0. */
  step: number;
  /** Steps of the run. */
  steps: number;
  signal?: AbortSignal | undefined;
}

export interface RewardSource {
  /** What the stream calls it, unless the configuration gives it a label. */
  label: string;
  /**
   * A value for each call: a finite number; null, it says nothing of this call; or why there is none. Throws where no
   * later call could be rewarded either.
   */
  values(calls: readonly CallToReward[], time: RewardTime): Promise<(number | null | TroupeError)[]>;
  start?(): Promise<void>;
  close?(): Promise<void>;
}

/** One value that one reward gave a call. */
export interface RewardValue {
  name: string;
  weight: number;
  /** null: it says nothing of the call, or failed. */
  value: number | null;
  error?: TroupeError;
}

/** A call in a message. */
export const callName = ({ episode, call }: CallToReward) =>
  `call ${call.role}/${call.slot}/${call.turn} on problem ${episode.problem.id}`;
