/** How long a step's parts take by what was measured of them on this machine. */
import { at, type StepCosts, type TrainingCosts } from './costs.js';
import type { PhasePlan } from './phase-plan.js';
import type { PolicyWork, StepWork } from './step-work.js';

const measured = (name: string, seconds: number): PhasePlan => ({ name, seconds, bound: 'measured' });

const sum = <T>(items: readonly T[], of: (item: T) => number) =>
  items.reduce((total, item) => total + of(item), 0);

export function measuredPhases(work: StepWork, costs: StepCosts): PhasePlan[] {
  const { policies, devices } = work;
  const rollout =
    costs.rollout === undefined ? rolloutPhases(work, costs) : [measured('rollout', costs.rollout)];
  const training = policies.flatMap((policy) => trainingPhases(policy, costs));
  if (devices === 1) return [...rollout, ...training];
  const exchanges = policies.map(({ policy: { name }, updates }) =>
    measured(`exchange ${name}`, updates * trainingOf(name, costs).exchange),
  );
  return [...rollout, ...training, ...exchanges, measured('records', costs.records)];
}

/** By iterations and messages. */
export function rolloutPhases({ decode, policies, calls }: StepWork, costs: StepCosts): PhasePlan[] {
  // An iteration draws as many tokens as it has sequences, whether it computes their prompts or only their last tokens.
  const prefill = sum(decode.prefills, ({ rows, drawing }) =>
    Math.max(0, at(costs.prefill, rows) - at(costs.prefill, Math.min(rows, drawing))),
  );
  const decoding = sum(decode.phases, ({ steps, bases, sequences, keys }) => {
    const more = Math.max(0, keys - sequences * costs.context);
    return steps * (sum(bases, (base) => at(costs.decode, base.sequences)) + more * costs.perKey);
  });
  const packings = policies.filter(({ parameters }) => parameters.kind === 'full').length;
  return [
    // Before an episode's next call, so that the engine waits for it, or with fewer sequences than there are.
    measured('episodes', calls.seconds),
    measured('messages', calls.count * costs.perCall),
    measured('prefill', prefill),
    measured('decode', decoding),
    // An adapter's are too small for what another iteration of the same size takes more or less.
    ...(packings > 0 ? [measured('packing weights', packings * costs.packing)] : []),
  ];
}

function trainingOf(name: string, { training }: StepCosts): TrainingCosts {
  const own = training[name];
  if (own === undefined) throw new Error(`nothing was measured of policy ${name}`);
  return own;
}

function trainingPhases({ policy: { name }, batches, updates }: PolicyWork, costs: StepCosts): PhasePlan[] {
  const own = trainingOf(name, costs);
  const pass = (part: 'forward' | 'backward') => {
    const curve = own.batches.map(({ rows, [part]: seconds }) => ({ rows, seconds }));
    return sum(batches, ({ rows }) => at(curve, rows));
  };
  return [
    measured(`forward ${name}`, pass('forward')),
    measured(`backward ${name}`, pass('backward')),
    measured(`statistics ${name}`, updates * own.statistics),
    measured(`optimizer ${name}`, updates * own.optimizer),
    measured(`accumulators ${name}`, updates * own.rest),
  ];
}
