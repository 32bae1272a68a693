/** Opens what a run works with: task, workflow, rewards, method and tokenizer, then the engine with its model and policies. */
import type { RunConfig } from '../config/schema.js';
import { deterministicNotice } from '../engine/deterministic.js';
import type { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import type { CreatePolicyRequest, ModelDescription } from '../engine/protocol.js';
import { Ranks } from '../engine/ranks.js';
import { Tokenizer } from '../engine/tokenizer.js';
import { adapterRanks, parametersOf, type ResolvedPolicy } from '../policies/routing.js';
import { policyFile } from '../runs/checkpoint.js';
import { checkHeldOut, type Trained } from '../tasks/held-out.js';
import { createTask } from '../tasks/registry.js';
import { openWorkflow } from '../workflows/registry.js';
import { chatTokenizer, checkChat } from './chat.js';
import { type CheckOptions, checkRun } from './check-run.js';
import { newLoopState } from './loop-state.js';
import { openMethod } from './method.js';
import { openRewards, type Rewards } from './rewards.js';
import type { RunParts, Trainer } from './trainer.js';
import { keptByTraining } from './treatment.js';

/** One model for all policies today; each policy names its model, so that roles may differ later. */
const MODEL = 'base';

const EMULATED =
  'model.dtype: this processor has no bfloat16 instructions and emulates them; float32 is many times as fast here.';

export interface OpenOptions extends CheckOptions {
  /** Is told what a person should know before the run, a sentence at a time. Default: standard error. */
  warn?: (message: string) => void;
}

export interface SetupOptions extends OpenOptions {
  /** Default: the process is the only one of its run. */
  ranks?: Ranks;
  /** A checkpoint's folder, whose parameters the policies get; for runs that do not train. */
  checkpoint?: string;
  /** Ranks of adapters that are going to decode beside the policies' own. */
  adapterRanks?: readonly number[];
}

/** Checks the configuration and opens its task, workflow, rewards, method and tokenizer. The caller closes them. */
export async function openParts(given: RunConfig, options: OpenOptions): Promise<RunParts> {
  const { trainable, locate, warn = toStandardError } = options;
  const { config, roles, policies, starts, references, warnings } = await checkRun(given, options);
  const task = await createTask(config.task, { strict: config.strict, warn, ...(locate && { locate }) });
  let rewards: Rewards | undefined;
  const close = async () => {
    await rewards?.close();
    await task.close();
  };
  try {
    rewards = await openRewards({ ...config, roles, locate, warn });
    if (options.trainable) checkHeldOut(task, problemsOf(config));
    const open = await openWorkflow(config.workflow, task.kind, locate);
    // Before a model loads, which may take minutes. Else they start when they are asked.
    if (trainable) await rewards.start();
    const method = trainable ? await openMethod(config, locate) : undefined;
    const folder = await resolveModel(config.model.path);
    const tokenizer = Tokenizer.load(folder);
    for (const warning of warnings) warn(warning);
    const chat = chatTokenizer(tokenizer, config.model.template, config.rollout.roles);
    for (const refused of checkChat(chat, open)) warn(refused);
    return {
      config,
      task,
      open,
      rewards,
      method,
      tokenizer,
      chat,
      policies,
      starts,
      references,
      folder,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function problemsOf({ seed, steps, rollout, learning, evaluation }: RunConfig): Trained {
  const drawn = rollout.promptsPerStep * (1 + learning.dynamicSampling);
  return { seed, training: steps * drawn, evaluation: evaluation.problems };
}

/** The same with the model and its policies in the engine. */
export async function setUp(engine: Engine, given: RunConfig, options: SetupOptions): Promise<Trainer> {
  const { trainable, checkpoint, warn = toStandardError } = options;
  const { folder, ...parts } = await openParts(given, options);
  const { config, policies, starts, references } = parts;
  try {
    const ranks = [...adapterRanks(policies), ...(options.adapterRanks ?? [])];
    const model = await loadModel(engine, config, folder, ranks);
    if (model.emulated) warn(EMULATED);
    if (config.deterministic) {
      const { devices } = await engine.send('describe', null);
      const notice = deterministicNotice(config.model.device, devices);
      if (notice !== undefined) warn(notice);
    }
    const notices = new Set<string>();
    for (const policy of policies) {
      const restored = checkpoint !== undefined && !policy.freeze;
      const created = await engine.send('createPolicy', {
        ...policyRequest(config, policy),
        trainable: trainable && !policy.freeze,
        restored,
        start: starts.get(policy.name),
        reference: references.get(policy.name),
        keeps: keptByTraining(config, policy),
      });
      for (const notice of created.notices) notices.add(notice);
      const file = policyFile(checkpoint ?? '', policy.name);
      if (restored) await engine.send('restorePolicy', { policy: policy.name, file });
    }
    for (const notice of notices) warn(notice);
    return {
      ...parts,
      engine,
      ranks: options.ranks ?? Ranks.alone(engine),
      model: { ...model, folder },
      state: newLoopState(),
      betweenSteps: false,
    };
  } catch (error) {
    await parts.close();
    throw error;
  }
}

const toStandardError = (message: string) => console.error(message);

/** The configured model into the engine. `ranks`: of the adapters that are going to decode on it. */
export function loadModel(
  engine: Engine,
  config: RunConfig,
  folder: string,
  ranks: readonly number[],
): Promise<ModelDescription> {
  const { maxBatch, prefillTokens } = config.rollout;
  const cacheBytes = config.rollout.cacheBytes === 'auto' ? 0 : config.rollout.cacheBytes;
  const { dtype, device } = config.model;
  const { seed, deterministic } = config;
  const rollout = { cacheBytes, maxBatch, prefillTokens, seed, deterministic };
  return engine.send('loadModel', {
    name: MODEL,
    folder,
    dtype,
    device: deterministic ? 'cpu' : device,
    adapterRanks: ranks,
    rollout,
  });
}

/** What the configuration says of a policy, as the engine takes it. */
export function policyRequest(
  config: RunConfig,
  policy: ResolvedPolicy,
): Omit<CreatePolicyRequest, 'trainable' | 'restored'> {
  const { betas, eps } = config.learning.optimizer;
  return {
    name: policy.name,
    model: MODEL,
    parameters: parametersOf(policy),
    optimizer: { betas, eps, weightDecay: policy.weightDecay },
    seed: config.seed,
  };
}
