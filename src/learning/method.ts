/** What a run learns with: the estimator and the loss of its configuration, and which settings go together. */
import { TroupeError } from '../config/errors.js';
import type { SectionPlace } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import type { Estimator } from './estimators/types.js';
import { openEstimator } from './estimators.js';
import { type OpenLoss, openLoss } from './losses.js';
import { klCoefficient } from './treatment.js';

type Locate = SectionPlace['locate'];

export interface Method {
  estimator: Estimator;
  loss: OpenLoss;
}

export async function openMethod({ learning }: RunConfig, locate?: Locate): Promise<Method> {
  return {
    estimator: await openEstimator(learning.estimator, locate),
    loss: await openLoss(learning.loss, locate),
  };
}

/** Of a run that was set up for training. */
export function methodOf({ method }: { method: Method | undefined }): Method {
  if (method === undefined) throw new Error('the run was not set up for training');
  return method;
}

/** Settings that contradict each other, and what to do about it. The sections are filled in. */
const RULES: {
  key: string;
  breaks(config: RunConfig): boolean;
  message: string;
  hint: string;
}[] = [
  {
    key: 'learning.estimator.name',
    breaks: ({ learning: { estimator, loss } }) =>
      estimator.module === undefined && estimator.name === 'dr-grpo' && loss.aggregation !== 'constant',
    message: 'dr-grpo is the estimator of a loss that is divided by a constant length.',
    hint: 'Set learning.loss.aggregation: constant; advantages without the deviation alone are grpo with normalise: none.',
  },
  {
    key: 'learning.importance.level',
    breaks: ({ learning: { importance, oldLogprobs } }) =>
      importance.level !== 'none' && oldLogprobs === 'rollout',
    message: "the loss's ratio compares with the rollout already: importance weights would count it twice.",
    hint: 'Set learning.oldLogprobs: trainer.',
  },
  {
    key: 'learning.kl.reference',
    breaks: (config) =>
      config.learning.kl.reference !== 'start' &&
      klCoefficient(config, '') === 0 &&
      !Object.keys(config.interventions.roles).some((role) => klCoefficient(config, role) > 0),
    message: 'there is a reference, and no KL term that compares with it.',
    hint: 'Set learning.kl.coefficient above 0.',
  },
  {
    key: 'learning.importance.low',
    breaks: ({ learning: { importance } }) => importance.low > importance.high,
    message: 'learning.importance.low is above high.',
    hint: 'The ratio is kept in [low, high].',
  },
];

/** What a person should know of settings that go together but do not do what they seem to, one sentence each. */
export function methodWarnings({ learning: { kl } }: RunConfig): string[] {
  if (kl.coefficient === 0 || kl.in === 'reward' || kl.estimator !== 'k1') return [];
  return [
    'learning.kl: k1 in the loss has a gradient whose expectation is 0, so that it holds a policy back by chance alone; take k2 or k3, or in: reward.',
  ];
}

/** Throws a TroupeError for settings that do not go together. */
export function checkMethod(config: RunConfig, locate: Locate): void {
  for (const { key, breaks, message, hint } of RULES) {
    if (breaks(config)) throw new TroupeError(message, { where: locate?.(key.split('.')) ?? key, hint });
  }
}
