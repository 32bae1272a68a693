/** Graded episodes made by hand, for tests of credit and updates. */
import type { RewardContext } from '../../src/learning/rewards/types.js';
import type { Episode, RoleCall } from '../../src/workflows/types.js';

export interface CallSketch {
  role?: string;
  slot?: number;
  turn?: number;
  tokens?: number;
  own?: number;
}

export function roleCall({ role = 'generator', slot = 0, turn = 0, tokens = 2, own }: CallSketch): RoleCall {
  return {
    role,
    slot,
    turn,
    policy: 'shared',
    messages: [],
    prompt: Int32Array.of(1),
    sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 8, stop: [] },
    completion: {
      ids: new Int32Array(tokens),
      logprobs: new Float32Array(tokens),
      finish: 'stop',
      policy: 'shared',
      version: 0,
      cachedTokens: 0,
    },
    text: '',
    ...(own === undefined ? {} : { ownGrade: { correct: own > 0, reward: own, reason: '' } }),
  };
}

export function episode(problemIndex: number, sample: number, reward: number, calls: CallSketch[]): Episode {
  return {
    step: 0,
    problemIndex,
    sample,
    problem: { id: `p${problemIndex}`, question: '' },
    calls: calls.map(roleCall),
    answer: '',
    grade: { correct: reward > 0, reward, reason: '' },
    counts: {},
  };
}

/** What a reward is made with, in a workflow of one role. */
export function rewardContext(unread: RewardContext['unread']): RewardContext {
  return { unread, roles: ['generator'], maxTokens: () => 8, warn: () => {}, processes: new Map() };
}
