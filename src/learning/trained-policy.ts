/** A policy of a checkpoint of a run, as people name it: RUN[@CHECKPOINT][:POLICY]. */
import { TroupeError } from '../config/errors.js';
import { unknownName } from '../config/nearest.js';
import type { RunConfig } from '../config/schema.js';
import { limitUserCode } from '../config/user-code.js';
import { type ResolvedPolicy, resolvePolicies } from '../policies/routing.js';
import {
  type Checkpoint,
  findCheckpoint,
  heldPolicyFile,
  parseWhich,
  type Which,
} from '../runs/checkpoint.js';
import { loadRun } from '../runs/run-config.js';
import { isRun } from '../runs/run-directory.js';
import { checkWorkflow } from '../workflows/registry.js';

export interface PolicyPath {
  run: string;
  checkpoint: Which;
  /** undefined: not said. */
  policy: string | undefined;
}

/** undefined where there is no run of that name. */
export function parsePolicyPath(text: string): PolicyPath | undefined {
  if (isRun(text)) return { run: text, checkpoint: 'last', policy: undefined };
  const [, run = '', which = 'last', policy] = /^(.+?)(?:@(last|best|\d+))?(?::([^/:@]+))?$/.exec(text) ?? [];
  return isRun(run) ? { run, checkpoint: parseWhich(which), policy } : undefined;
}

export interface TrainedPolicy {
  run: string;
  config: RunConfig;
  workflow: string;
  checkpoint: Checkpoint;
  policy: ResolvedPolicy;
  /** Its training state. */
  file: string;
}

/**
 * Throws a TroupeError where the checkpoint or the policy is not there, where the run has several and none is named, and
 * where it was frozen. `option`: what names the policy, for errors.
 */
export async function trainedPolicy(
  { run, checkpoint: which, policy: wanted }: PolicyPath,
  { warn, option = '--policy' }: { warn(message: string): void; option?: string },
): Promise<TrainedPolicy> {
  const { config } = loadRun(run);
  limitUserCode(config.run);
  const { workflow } = await checkWorkflow(config.workflow);
  const policies = resolvePolicies(config.policies, workflow.roles);
  const policy = choose(policies, { run, wanted, option });
  const checkpoint = await findCheckpoint(run, which, warn);
  if (policy.freeze) {
    throw new TroupeError(`policy ${policy.name} is frozen: nothing was trained of it.`, { where: run });
  }
  const file = heldPolicyFile(checkpoint.folder, policy.name);
  return { run, config, workflow: workflow.name, checkpoint, policy, file };
}

function choose(
  policies: readonly ResolvedPolicy[],
  { run, wanted, option }: { run: string; wanted: string | undefined; option: string },
): ResolvedPolicy {
  const names = policies.map(({ name }) => name);
  const policy =
    policies.find(({ name }) => name === wanted) ?? (policies.length === 1 ? policies[0] : undefined);
  if (wanted !== undefined && !names.includes(wanted)) throw unknownName('policy', wanted, names, option);
  if (policy !== undefined) return policy;
  throw new TroupeError(`has the policies ${names.join(', ')}.`, {
    where: run,
    hint: `Name one with ${option}.`,
  });
}
