/**
 * Everything of a configuration that can be wrong without a model being loaded: sections that other folders own, users'
 * files, names of roles and policies, and what the engine would refuse call by call. `troupe config` runs it, and
 * every command that loads a model runs it first.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { KeyPath } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { unknownName } from '../config/nearest.js';
import { checkEntry, type Registry, type Section } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import { limitUserCode } from '../config/user-code.js';
import { readModelConfig } from '../engine/configuration.js';
import { refuseDeterministic } from '../engine/deterministic.js';
import { localModel } from '../engine/model-catalogue.js';
import type { NativeModelConfig } from '../engine/native-model.js';
import type { CreatePolicyRequest, StartingParameters } from '../engine/protocol.js';
import { type ResolvedPolicy, resolvePolicies } from '../policies/routing.js';
import { checkTrainable, roleSampling, samplingWarnings } from '../policies/sampling.js';
import { tasks } from '../tasks/registry.js';
import { checkWorkflow, openWorkflow } from '../workflows/registry.js';
import { estimators } from './estimators.js';
import { losses } from './losses.js';
import { checkMethod, methodWarnings } from './method.js';
import { openRewards } from './rewards.js';
import { referenceOf, startOf } from './start.js';
import { checkInterventions } from './treatment.js';

type Locate = (path: KeyPath) => string | undefined;

export interface CheckOptions {
  /** Whether policies are trained; else they only sample. */
  trainable: boolean;
  /** Where a key was written, for errors. */
  locate?: Locate;
}

export interface CheckedRun {
  /** The configuration with the sections of task and workflow filled in. */
  config: RunConfig;
  roles: readonly string[];
  policies: ResolvedPolicy[];
  /** Where policies begin that begin elsewhere than the model, by name. */
  starts: ReadonlyMap<string, StartingParameters>;
  /** What policies are kept near that is not where they begin, by name. */
  references: ReadonlyMap<string, CreatePolicyRequest['reference']>;
  /** What a person should know before the run, one sentence each. */
  warnings: string[];
}

/** Throws a TroupeError for the first thing that is wrong. Opens neither data nor weights. */
export async function checkRun(given: RunConfig, options: CheckOptions): Promise<CheckedRun> {
  const { trainable, locate = () => undefined } = options;
  limitUserCode(given.run);
  const task = await filledIn(tasks, given.task, ['task'], locate);
  const { workflow, options: workflowOptions } = await checkWorkflow(given.workflow, locate);
  const config = { ...given, task: task.section, workflow: { ...given.workflow, options: workflowOptions } };
  // Of a user's task only the task itself says which kind it is.
  const { kind } = task.entry;
  if (kind !== undefined) await openWorkflow(config.workflow, kind, locate);

  const policies = resolvePolicies(config.policies, workflow.roles, locate);
  checkRoles(config, workflow.roles, locate);
  await openRewards({ ...config, roles: workflow.roles, locate });
  if (trainable) {
    for (const policy of policies) checkTrainable(config.rollout, policy);
    const loss = await filledIn(losses, config.learning.loss, ['learning', 'loss'], locate);
    const estimator = await filledIn(
      estimators,
      config.learning.estimator,
      ['learning', 'estimator'],
      locate,
    );
    config.learning = { ...config.learning, loss: loss.section, estimator: estimator.section };
    checkMethod(config, locate);
  }
  checkInterventions(config, policies);
  checkDevice(config, locate);
  const folder = localModel(config.model.path);
  if (folder !== undefined && existsSync(join(folder, 'config.json'))) {
    checkFits(config, workflow.roles, readModelConfig(folder), locate);
  }
  const warnings = trainable
    ? [...samplingWarnings(config.rollout, workflow.roles), ...methodWarnings(config)]
    : [];
  const starts = new Map<string, StartingParameters>();
  for (const policy of policies) {
    const start = await startOf(policy, config, (message) => warnings.push(message));
    if (start !== undefined) starts.set(policy.name, start);
  }
  const references = new Map<string, CreatePolicyRequest['reference']>();
  for (const policy of trainable ? policies.filter(({ freeze }) => !freeze) : []) {
    const warn = (message: string) => warnings.push(message);
    references.set(policy.name, await referenceOf(policy, config, policies.length, warn));
  }
  return { config, roles: workflow.roles, policies, starts, references, warnings };
}

/** A section with the settings of what it names filled in. */
async function filledIn<S extends Section, Made, Context, About>(
  registry: Registry<Made, Context, About>,
  section: S,
  path: readonly string[],
  locate: Locate,
): Promise<{ section: S; entry: Partial<About> }> {
  const { entry, settings } = await checkEntry(registry, section, { path, locate });
  return { section: { ...section, ...(settings as object) }, entry };
}

function checkRoles({ rollout }: RunConfig, roles: readonly string[], locate: Locate): void {
  for (const role of Object.keys(rollout.roles)) {
    const where = locate(['rollout', 'roles', role]) ?? 'rollout.roles';
    if (!roles.includes(role)) throw unknownName('role', role, roles, where);
  }
}

function checkDevice({ deterministic, model: { device } }: RunConfig, locate: Locate): void {
  if (deterministic) refuseDeterministic(device, locate(['deterministic']) ?? 'deterministic');
}

/** Tokens of a page of the KV cache, and how many values are padded to (native/kernels/cpu/table.h). */
const PAGE_TOKENS = 16;
const PADDING = 16;
const BYTES = { bfloat16: 2, float32: 4, float64: 8 };

/** The shortest prompt with the longest response must fit into the model's positions, and into the KV cache. */
function checkFits(
  { rollout, evaluation, model: { dtype } }: RunConfig,
  roles: readonly string[],
  model: NativeModelConfig,
  locate: Locate,
): void {
  const { cacheBytes } = rollout;
  const values = Math.ceil(model.headDim / PADDING) * PADDING;
  const page = model.layers * model.kvHeads * PAGE_TOKENS * (model.headDim + values) * BYTES[dtype];
  const samplings: [KeyPath, RunConfig['evaluation']['sampling']][] = [
    [['rollout', 'sampling', 'maxTokens'], {}],
    [['evaluation', 'sampling', 'maxTokens'], evaluation.sampling],
  ];
  for (const role of roles) {
    for (const [key, above] of samplings) {
      const { maxTokens } = roleSampling(rollout, role, above);
      if (maxTokens >= model.maxPositions) {
        throw new TroupeError(
          `${role} may answer with ${maxTokens} tokens; this model has ${model.maxPositions} positions, its prompt included.`,
          { where: locate(key) ?? key.join('.'), hint: 'Set maxTokens lower.' },
        );
      }
      const needed = (Math.ceil(maxTokens / PAGE_TOKENS) + 1) * page;
      if (cacheBytes !== 'auto' && needed > cacheBytes) {
        throw new TroupeError(
          `is ${cacheBytes} bytes; one response of ${role} with ${maxTokens} tokens takes ${needed}.`,
          { where: locate(['rollout', 'cacheBytes']) ?? 'rollout.cacheBytes' },
        );
      }
    }
  }
}
