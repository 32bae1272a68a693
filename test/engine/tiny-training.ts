/** Small policies that train, and updates of theirs. */
import type { ReferenceSource } from '../../src/engine/kl-reference.js';
import type { LossFunction } from '../../src/engine/loss.js';
import type { DType, NativeModelConfig } from '../../src/engine/native-model.js';
import { PolicyState } from '../../src/engine/policy-state.js';
import type { CreatePolicyRequest } from '../../src/engine/protocol.js';
import type { TrainCall, TrainRequest } from '../../src/engine/types.js';
import { text, tinyConfig, type Workshop } from '../rollout/tiny.js';

/** Where no KL term asks for a reference. */
const noReference: ReferenceSource = {
  make: () => {
    throw new Error('no KL term asks for a reference');
  },
  bytes: () => 0,
};

interface PolicyOptions extends Partial<CreatePolicyRequest> {
  config?: NativeModelConfig;
  dtype?: DType;
  source?: ReferenceSource;
}

/** A policy "p" whose base is its own, or frozen under its adapter. The workshop frees both. */
export function policyState(workshop: Workshop, options: PolicyOptions = {}): PolicyState {
  const { config = tinyConfig(), dtype = 'float32', source = noReference, ...request } = options;
  const settings: CreatePolicyRequest = {
    name: 'p',
    model: 'm',
    parameters: { kind: 'full' },
    trainable: true,
    optimizer: { betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0 },
    seed: 1,
    ...request,
  };
  const trains = settings.parameters.kind === 'full' && settings.trainable;
  const base = workshop.base(config, dtype, 5, trains);
  return workshop.keep(new PolicyState(settings, config, base, 'cpu', source));
}

/** Calls of two groups, by turns, with prompts of `prompt(i)` tokens. */
export const trainCalls = (count: number, prompt: (i: number) => number, response: number): TrainCall[] =>
  Array.from({ length: count }, (_, i) => ({
    prompt: Int32Array.from(text(i, prompt(i))),
    response: Int32Array.from(text(50 + i, response)),
    rolloutLogprobs: new Float32Array(response),
    temperature: 1,
    advantage: i % 2 === 0 ? 1 : -0.5,
    weight: 0.1,
    group: i % 2,
  }));

/** An update of the policy "p". */
export const trainRequest = (calls: TrainCall[], more: Partial<TrainRequest> = {}): TrainRequest => ({
  policy: 'p',
  calls,
  groups: ['a', 'b'],
  mismatchOnly: [],
  loss: { module: '', options: {} },
  reference: false,
  learningRate: 1e-3,
  clipNorm: 0,
  microBatchRows: 10_000,
  update: true,
  ...more,
});

export const loss: LossFunction = ({ logprobs, advantages, weights }) =>
  logprobs.mul(advantages).mul(weights).sum().neg();

export const turn = () => Promise.resolve();
