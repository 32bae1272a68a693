/** How each role samples, and the one temperature of each policy. */
import { TroupeError } from '../config/errors.js';
import type { RunConfig, SamplingConfig } from '../config/schema.js';
import type { ResolvedPolicy } from './routing.js';

type Overrides = RunConfig['evaluation']['sampling'];

/** The run's sampling, then the role's, then `above` (evaluation's, or one call's). */
export function roleSampling(
  rollout: RunConfig['rollout'],
  role: string,
  above: Overrides = {},
): SamplingConfig {
  const ofRole = rollout.roles[role]?.sampling ?? {};
  return { ...rollout.sampling, ...given(ofRole), ...given(above) };
}

/** Only the keys that have a value: `undefined` overrides nothing. */
function given(overrides: Overrides): Partial<SamplingConfig> {
  return Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
}

/** Prompt tokens that a call of the role may have. */
export function rolePromptTokens(rollout: RunConfig['rollout'], role: string): number {
  return rollout.roles[role]?.promptTokens ?? rollout.promptTokens;
}

/**
 * The temperature that a policy is trained at: the one that all its roles sample at, because a loss compares
 * log-probabilities at one temperature. Throws a TroupeError where roles differ or a role samples greedily.
 */
export function trainingTemperature(rollout: RunConfig['rollout'], policy: ResolvedPolicy): number {
  const temperatures = policy.roles.map((role) => roleSampling(rollout, role).temperature);
  const [first = 1] = temperatures;
  if (temperatures.some((one) => one !== first)) {
    const listed = policy.roles.map((role, i) => `${role} ${temperatures[i]}`).join(', ');
    throw new TroupeError(
      `the roles of policy "${policy.name}" sample at different temperatures: ${listed}.`,
      {
        where: 'rollout.roles',
        hint: 'Roles that share a policy need one temperature.',
      },
    );
  }
  if (first === 0) {
    throw new TroupeError(
      `policy "${policy.name}" samples at temperature 0; it takes more than 0 to train.`,
      {
        where: 'rollout.sampling.temperature',
      },
    );
  }
  return first;
}

/** What a training run should be told about its sampling, one sentence each. */
export function samplingWarnings(rollout: RunConfig['rollout'], roles: readonly string[]): string[] {
  return roles.flatMap((role) => {
    const { topK, topP, minP } = roleSampling(rollout, role);
    const cuts = [topK > 0 && `topK ${topK}`, topP < 1 && `topP ${topP}`, minP > 0 && `minP ${minP}`].filter(
      Boolean,
    );
    return cuts.length === 0
      ? []
      : [
          `${role} samples with ${cuts.join(', ')}: tokens do not follow the distribution whose log-probabilities the loss uses.`,
        ];
  });
}
