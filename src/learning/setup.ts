/** Builds what a run needs from its configuration: task, workflow, tokenizer, engine, policies. */
import { TroupeError } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import type { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import type { ModelDescription } from '../engine/protocol.js';
import { Tokenizer } from '../engine/tokenizer.js';
import { type ResolvedPolicy, resolvePolicies } from '../policies/routing.js';
import { trainingTemperature } from '../policies/sampling.js';
import type { ChatTokenizer } from '../rollout/conversation.js';
import { createTask } from '../tasks/registry.js';
import type { Task } from '../tasks/types.js';
import { type OpenWorkflow, openWorkflow } from '../workflows/registry.js';
import { chatTokenizer } from './chat.js';
import { checkInterventions } from './interventions.js';
import { type LoopState, newLoopState } from './loop-state.js';
import { openReward, type RewardFunction } from './rewards.js';

/** One model for all policies today; each policy names its model, so that roles may differ later. */
const MODEL = 'base';

export interface Trainer {
  config: RunConfig;
  task: Task;
  open: OpenWorkflow;
  reward: RewardFunction;
  tokenizer: Tokenizer;
  chat: ChatTokenizer;
  engine: Engine;
  model: ModelDescription & { folder: string };
  policies: ResolvedPolicy[];
  state: LoopState;
}

export interface SetupOptions {
  /** false: policies only sample (evaluation). */
  trainable: boolean;
}

/** Checks the configuration against task, workflow and model, then loads it into the engine. */
export async function setUp(
  engine: Engine,
  config: RunConfig,
  { trainable }: SetupOptions,
): Promise<Trainer> {
  const task = await createTask(config.task, { strict: config.strict });
  const open = await openWorkflow(config.workflow, task.kind);
  const policies = resolvePolicies(config.policies, open.workflow.roles);
  if (trainable) for (const policy of policies) trainingTemperature(config.rollout, policy);
  checkInterventions(config, policies);
  const reward = await openReward(config.learning);
  const folder = await resolveModel(config.model.path);
  const tokenizer = Tokenizer.load(folder);
  try {
    const model = await loadModel(engine, config, folder);
    for (const policy of policies) await createPolicy(engine, config, policy, trainable);
    return {
      config,
      task,
      open,
      reward,
      tokenizer,
      chat: chatTokenizer(tokenizer),
      engine,
      model: { ...model, folder },
      policies,
      state: newLoopState(),
    };
  } catch (error) {
    await task.close();
    throw error;
  }
}

function loadModel(engine: Engine, config: RunConfig, folder: string): Promise<ModelDescription> {
  const { cacheBytes, maxBatch, prefillTokens } = config.rollout;
  const { dtype, device } = config.model;
  const { seed, deterministic } = config;
  if (deterministic && device !== 'cpu' && device !== 'auto') {
    throw new TroupeError(`deterministic runs are for the CPU, not for ${device}.`, {
      where: 'deterministic',
    });
  }
  const rollout = { cacheBytes, maxBatch, prefillTokens, seed, deterministic };
  return engine.send('loadModel', {
    name: MODEL,
    folder,
    dtype,
    device: deterministic ? 'cpu' : device,
    rollout,
  });
}

async function createPolicy(
  engine: Engine,
  config: RunConfig,
  policy: ResolvedPolicy,
  trainable: boolean,
): Promise<void> {
  const { betas, eps } = config.learning.optimizer;
  await engine.send('createPolicy', {
    name: policy.name,
    model: MODEL,
    parameters: policy.parameters === 'lora' ? { kind: 'lora', ...policy.lora } : { kind: 'full' },
    trainable: trainable && !policy.freeze,
    optimizer: { betas, eps, weightDecay: policy.weightDecay },
    seed: config.seed,
  });
}
