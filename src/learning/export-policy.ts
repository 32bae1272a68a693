/**
 * Takes a policy of a run out of it: as an adapter in PEFT's layout, or as a whole model in Hugging Face's, with a
 * README.md that says what it is.
 */
import { existsSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { percent } from '../config/percent.js';
import { printConfig } from '../config/print.js';
import { Engine } from '../engine/engine.js';
import { modelOnHub } from '../engine/hub.js';
import { localModel, resolveModel } from '../engine/model-catalogue.js';
import { History } from '../judgement/history.js';
import { accuracyOf } from '../judgement/paired.js';
import { warnOfOtherModel } from '../runs/model-record.js';
import { addStreams } from '../runs/read-history.js';
import { policyRequest } from './setup.js';
import { type PolicyPath, type TrainedPolicy, trainedPolicy } from './trained-policy.js';

export interface ExportOptions {
  /** Folder for the adapter: adapter_config.json, adapter_model.safetensors. */
  adapter?: string | undefined;
  /** Folder for the model with the adapter in it, or with its trained parameters. */
  merged?: string | undefined;
  /** Of the merged model; default: the one that the run computes in. */
  dtype?: 'float32' | 'bfloat16' | undefined;
  /** Bytes of one file of the merged model at most; default: 5 GB. */
  shardBytes?: number | undefined;
  warn(message: string): void;
}

/** Writes what is asked for; returns the policy. Throws a TroupeError where there is no such policy, or no adapter. */
export async function exportPolicy(path: PolicyPath, options: ExportOptions): Promise<TrainedPolicy> {
  const { adapter, merged, shardBytes, warn } = options;
  const trained = await trainedPolicy(path, { warn });
  const { config, policy, file } = trained;
  if (adapter !== undefined && policy.parameters === 'full') {
    throw new TroupeError(`policy ${policy.name} trains all parameters: it has no adapter.`, {
      where: trained.run,
      hint: 'Export the whole model with --merged.',
    });
  }
  const model = await resolveModel(config.model.path);
  await warnOfOtherModel(trained.run, model, warn);
  await using engine = new Engine();
  await engine.send('loadModel', {
    name: 'base',
    folder: model,
    // Merging and rounding begin at the exact parameters.
    dtype: 'float32',
    device: 'cpu',
    rollout: { cacheBytes: 0, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false },
  });
  const request = policyRequest(config, policy);
  await engine.send('createPolicy', { ...request, trainable: false, restored: true });
  await engine.send('restorePolicy', { policy: policy.name, file });
  const base = baseName(config.model.path);
  const readme = (library: string) => ({ 'README.md': describe(trained, { base, library }) });
  if (adapter !== undefined) {
    const files = readme('peft');
    await engine.send('exportPolicy', { policy: policy.name, folder: adapter, base, files });
  }
  if (merged !== undefined) {
    const { dtype = config.model.dtype === 'bfloat16' ? 'bfloat16' : 'float32' } = options;
    const files = readme('transformers');
    const whole = { policy: policy.name, folder: merged, merged: true, dtype, files, shardBytes };
    await engine.send('exportPolicy', whole);
  }
  return trained;
}

/** What others find the model by: its folder, or its name on the hub. */
function baseName(path: string): string {
  if (modelOnHub(path) !== undefined && !existsSync(path)) return path;
  return resolve(localModel(path) ?? path);
}

/** The README.md of an exported policy: a model card. */
function describe(trained: TrainedPolicy, { base, library }: { base: string; library: string }): string {
  const { config, policy, checkpoint, run, workflow } = trained;
  const { parameters, lora } = policy;
  const rows = [
    ['base model', base],
    [policy.roles.length === 1 ? 'role' : 'roles', policy.roles.join(', ')],
    ['workflow', workflow],
    ['task', config.task.module ?? config.task.python ?? config.task.name],
    ['accuracy', accuracies(trained)],
    ['run', `${run}, step ${checkpoint.step}, policy ${policy.name}`],
    [
      'parameters',
      parameters === 'full'
        ? 'all of the model'
        : `LoRA, rank ${lora.rank}, alpha ${lora.alpha}, on ${lora.targets.join(', ')}`,
    ],
  ];
  return `---
library_name: ${library}
${isAbsolute(base) ? '' : `base_model: ${base}\n`}tags: [reinforcement-learning, troupe]
---
# ${policy.name} of ${workflow}

The policy of ${policy.roles.map((role) => `the role ${role}`).join(' and ')} in a workflow of language models,
trained with Troupe.

| | |
|---|---|
${rows.map(([name, value]) => `| ${name} | ${String(value).replaceAll('|', '\\|')} |`).join('\n')}

## Configuration
\`\`\`yaml
${printConfig(config).trimEnd()}
\`\`\`
`;
}

/** Of the whole workflow, all of whose policies were trained as long. */
function accuracies({ run, checkpoint: { step, score } }: TrainedPolicy): string {
  const history = new History();
  addStreams(history, run);
  const at = (wanted: number) => history.evaluations.find((one) => one.step === wanted)?.correct;
  if (score === null) return 'of the workflow: not evaluated at this step';
  const problems = at(step)?.size;
  const [before, of] = [at(0), problems === undefined ? '' : ` of ${problems} held-out problems`];
  const start = before === undefined ? '' : ` (${percent(accuracyOf(before))} before training)`;
  return `of the workflow: ${percent(score)}${of}${start}`;
}
