/** What `troupe serve` answers with: the roles of a run, or one model, loaded into the engine. */
import { basename } from 'node:path';
import { TroupeError } from '../../config/errors.js';
import { loadRunConfig } from '../../config/load.js';
import { type RunConfig, runSchema } from '../../config/schema.js';
import { limitUserCode } from '../../config/user-code.js';
import type { Engine } from '../../engine/engine.js';
import { resolveModel } from '../../engine/model-catalogue.js';
import { Tokenizer } from '../../engine/tokenizer.js';
import type { Sampling } from '../../engine/types.js';
import { adapterRanks, policyOf, type ResolvedPolicy, resolvePolicies } from '../../policies/routing.js';
import { roleSampling } from '../../policies/sampling.js';
import type { ChatTokenizer } from '../../rollout/conversation.js';
import { findCheckpoint, heldPolicyFile, parseWhich } from '../../runs/checkpoint.js';
import { warnOfOtherModel } from '../../runs/model-record.js';
import { loadRun } from '../../runs/run-config.js';
import { isRun } from '../../runs/run-directory.js';
import { checkWorkflow } from '../../workflows/registry.js';
import { chatTokenizer } from '../chat.js';
import { loadModel, policyRequest } from '../setup.js';

/** One model name of the API. */
export interface ServedModel {
  policy: string;
  /** What a request does not say. */
  sampling: Sampling;
}

export interface Served {
  engine: Engine;
  /** By name: the roles of a run, or the one model. */
  models: ReadonlyMap<string, ServedModel>;
  tokenizer: Tokenizer;
  chat: ChatTokenizer;
  vocabularySize: number;
  bytesOf(token: number): Uint8Array;
  maxPositions: number;
}

export interface ServeOptions {
  /** Of a run: last, best, or the number of a step. */
  checkpoint?: string;
  /** Overrides of the configuration, as `--set` takes them. */
  set: readonly string[];
  warn(message: string): void;
}

/** Loads the policies of a run's checkpoint, or the model of that name or folder. */
export async function loadServed(engine: Engine, target: string, options: ServeOptions): Promise<Served> {
  const { checkpoint: which = 'last', set, warn } = options;
  const run = isRun(target);
  if (!run && options.checkpoint !== undefined) {
    throw new TroupeError('is no run directory; --checkpoint goes with one.', { where: target });
  }
  const config = run ? loadRun(target, set).config : modelConfig(target, set);
  limitUserCode(config.run);
  const roles = run ? (await checkWorkflow(config.workflow)).workflow.roles : [basename(target)];
  const policies = resolvePolicies(config.policies, roles);
  const checkpoint = run ? await findCheckpoint(target, parseWhich(which), warn) : undefined;
  if (checkpoint !== undefined) warn(`step ${checkpoint.step}, ${checkpoint.folder}`);

  const folder = await resolveModel(config.model.path);
  if (run) await warnOfOtherModel(target, folder, warn);
  const tokenizer = Tokenizer.load(folder);
  const { vocabularySize, maxPositions } = await loadModel(engine, config, folder, adapterRanks(policies));
  for (const policy of policies) await loadPolicy(engine, config, policy, checkpoint?.folder);
  const models = roles.map((role): [string, ServedModel] => {
    return [role, { policy: policyOf(policies, role).name, sampling: roleSampling(config.rollout, role) }];
  });
  const chat = chatTokenizer(tokenizer, config.model.template, config.rollout.roles);
  const { bytes, offsets } = tokenizer.tokenBytes(vocabularySize);
  const bytesOf = (id: number) => bytes.subarray(offsets[id], offsets[id + 1]);
  return { engine, models: new Map(models), tokenizer, chat, vocabularySize, bytesOf, maxPositions };
}

/** A model by itself, with the defaults of a run. */
function modelConfig(path: string, set: readonly string[]): RunConfig {
  const { config } = loadRunConfig('default', [`model.path=${JSON.stringify(path)}`, ...set]);
  const { policies } = runSchema.parse({ policies: { sharing: 'shared' } });
  return { ...config, policies };
}

async function loadPolicy(
  engine: Engine,
  config: RunConfig,
  policy: ResolvedPolicy,
  checkpoint: string | undefined,
): Promise<void> {
  if (policy.freeze && policy.start !== null) {
    throw new TroupeError(`policy ${policy.name} was frozen at ${policy.start}: the run has nothing of it.`);
  }
  const restored = checkpoint !== undefined && !policy.freeze;
  await engine.send('createPolicy', { ...policyRequest(config, policy), trainable: false, restored });
  if (!restored) return;
  await engine.send('restorePolicy', { policy: policy.name, file: heldPolicyFile(checkpoint, policy.name) });
}
