/** How each role samples, and what of it can be trained on. */
import { TroupeError } from '../config/errors.js';
import { ownValue } from '../config/own-value.js';
import type { RunConfig, SamplingConfig } from '../config/schema.js';
import type { ResolvedPolicy } from './routing.js';

type Overrides = RunConfig['evaluation']['sampling'];

/** The run's sampling, then the role's, then `above` (evaluation's, or one call's). */
export function roleSampling(
  rollout: RunConfig['rollout'],
  role: string,
  above: Overrides = {},
): SamplingConfig {
  const ofRole = ownValue(rollout.roles, role)?.sampling ?? {};
  return { ...rollout.sampling, ...given(ofRole), ...given(above) };
}

/** Only the keys that have a value: `undefined` overrides nothing. */
function given(overrides: Overrides): Partial<SamplingConfig> {
  return Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
}

/** Prompt tokens that a call of the role may have. */
export function rolePromptTokens(rollout: RunConfig['rollout'], role: string): number {
  return ownValue(rollout.roles, role)?.promptTokens ?? rollout.promptTokens;
}

/**
 * Throws a TroupeError where a role of a policy that is trained samples greedily: what is always the same token is no
 * sample of the policy. Roles may differ in their temperature: every call is scored at its own.
 */
export function checkTrainable(rollout: RunConfig['rollout'], policy: ResolvedPolicy): void {
  const greedy = policy.roles.find((role) => roleSampling(rollout, role).temperature === 0);
  if (greedy === undefined || policy.freeze) return;
  const ofRole = rollout.roles[greedy]?.sampling?.temperature === 0;
  throw new TroupeError(`the role ${greedy} samples at temperature 0; it takes more than 0 to train.`, {
    where: ofRole ? `rollout.roles.${greedy}.sampling.temperature` : 'rollout.sampling.temperature',
    hint: `Or freeze the policy "${policy.name}".`,
  });
}

/** What a training run should be told about its sampling, one sentence each. */
export function samplingWarnings(rollout: RunConfig['rollout'], roles: readonly string[]): string[] {
  return roles.flatMap((role) => {
    const cuts = filters(roleSampling(rollout, role));
    return cuts === undefined ? [] : [`${role} samples with ${cuts}: ${UNLIKE}`];
  });
}

/** What follows from filters, after "with topK 5: ". */
export const UNLIKE = 'tokens do not follow the distribution whose log-probabilities the loss uses.';

/** The filters that cut the distribution, e.g. "topK 5, topP 0.9"; undefined: none. */
export function filters({
  topK,
  topP,
  minP,
}: Pick<SamplingConfig, 'topK' | 'topP' | 'minP'>): string | undefined {
  const cuts = [topK > 0 && `topK ${topK}`, topP < 1 && `topP ${topP}`, minP > 0 && `minP ${minP}`];
  return cuts.filter(Boolean).join(', ') || undefined;
}
