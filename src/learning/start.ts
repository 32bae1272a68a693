/**
 * Where a policy's parameters begin: `policies.overrides.NAME.start` names an adapter in PEFT's layout, or a policy of
 * another run. What does not fit the policy is refused before anything is loaded.
 */
import { TroupeError } from '../config/errors.js';
import { modelName } from '../config/model-name.js';
import { findPath } from '../config/package.js';
import type { RunConfig } from '../config/schema.js';
import { isAdapter, readPeftConfig } from '../engine/adapters.js';
import { readModelConfig } from '../engine/configuration.js';
import { localModel } from '../engine/model-catalogue.js';
import type { CreatePolicyRequest, StartingParameters } from '../engine/protocol.js';
import type { ResolvedPolicy } from '../policies/routing.js';
import { warnOfOtherModel } from '../runs/model-record.js';
import { parsePolicyPath, trainedPolicy } from './trained-policy.js';

type Warn = (message: string) => void;

/** Of policies that name none, undefined. Throws a TroupeError where it is not there, or does not fit. */
export async function startOf(
  policy: ResolvedPolicy,
  config: RunConfig,
  warn: Warn,
): Promise<StartingParameters | undefined> {
  const { start } = policy;
  if (start === null) return undefined;
  return await parametersAt({ ...policy, start }, config, { warn, key: 'start' });
}

/** `key`: of the configuration, for errors. */
async function parametersAt(
  policy: ResolvedPolicy & { start: string },
  config: RunConfig,
  { warn, key }: { warn: Warn; key: string },
): Promise<StartingParameters> {
  const folder = findPath(policy.start);
  if (isAdapter(folder)) return startOfAdapter(folder, policy, config, warn);
  const path = parsePolicyPath(policy.start);
  if (path !== undefined) {
    const trained = await trainedPolicy(path, { warn, option: `${key}: RUN:POLICY` });
    await checkModel(trained.config.model.path, config, trained.run, warn);
    checkParameters(trained.policy, policy, `${trained.run}: policy ${trained.policy.name}`);
    return { kind: 'state', file: trained.file };
  }
  throw new TroupeError(`${key} is "${policy.start}", where there is neither an adapter nor a run.`, {
    where: `policy ${policy.name}`,
    hint: 'It takes a folder with adapter_config.json, or RUN[@CHECKPOINT][:POLICY].',
  });
}

/**
 * What the KL term keeps a policy near; undefined: where it begins. Of a run whose policy is not named it is the one of the
 * same name, where this run has several. Throws as `startOf` does.
 */
export async function referenceOf(
  policy: ResolvedPolicy,
  config: RunConfig,
  policies: number,
  warn: Warn,
): Promise<CreatePolicyRequest['reference']> {
  const { reference, averageDecay } = config.learning.kl;
  if (reference === 'start') return undefined;
  if (reference === 'average') return { kind: 'average', decay: averageDecay };
  const path = isAdapter(findPath(reference)) ? undefined : parsePolicyPath(reference);
  const named = path?.policy === undefined && path !== undefined && policies > 1;
  const start = named ? `${reference}:${policy.name}` : reference;
  return await parametersAt({ ...policy, start }, config, { warn, key: 'learning.kl.reference' });
}

function startOfAdapter(
  folder: string,
  policy: ResolvedPolicy,
  config: RunConfig,
  warn: Warn,
): StartingParameters {
  const { rank, alpha, targets, base } = readPeftConfig(folder);
  const lora = { rank, alpha, targets: targets ?? policy.lora.targets };
  checkParameters({ parameters: 'lora', lora }, policy, folder);
  if (base !== undefined && anyCase(base) !== anyCase(config.model.path)) {
    warn(`${folder}: the adapter was trained on ${base}; here it is put on ${config.model.path}.`);
  }
  return { kind: 'adapter', folder };
}

/** The hub takes a name in any case. */
const anyCase = (path: string) => modelName(path).toLowerCase();

interface Parameters extends Pick<ResolvedPolicy, 'parameters'> {
  lora: { rank: number; alpha: number; targets: readonly string[] };
}

/** `where`: what they begin from. */
function checkParameters(from: Parameters, policy: ResolvedPolicy, where: string): void {
  const what = { lora: 'an adapter', full: 'all parameters' };
  const settings = `policies.overrides.${policy.name}`;
  if (from.parameters !== policy.parameters) {
    const hint =
      from.parameters === 'lora'
        ? `Set ${settings}.parameters to lora; or merge it (troupe export --merged) and name that as model.path.`
        : `Set ${settings}.parameters to full.`;
    const trains = `policy ${policy.name} trains ${what[policy.parameters]}`;
    throw new TroupeError(`is ${what[from.parameters]}, but ${trains}.`, { where, hint });
  }
  if (from.parameters === 'full') return;
  for (const key of ['rank', 'alpha', 'targets'] as const) {
    const [there, here] = [from.lora[key], policy.lora[key]].map(shownSetting);
    if (there === here) continue;
    const { rank, alpha, targets } = from.lora;
    throw new TroupeError(`has ${key} ${there}; that of policy ${policy.name} is ${here}.`, {
      where,
      hint: `Set ${settings}.lora to { rank: ${rank}, alpha: ${alpha}, targets: [${targets.join(', ')}] }.`,
    });
  }
}

const shownSetting = (value: number | readonly string[]) =>
  typeof value === 'number' ? String(value) : [...value].sort().join(', ');

/** Another model of the same shape is said, also where it has taken the place of the run's own; one of another shape is an error. */
async function checkModel(there: string, config: RunConfig, where: string, warn: Warn): Promise<void> {
  const here = config.model.path;
  const [from, to] = [localModel(there), localModel(here)];
  if (from === undefined || to === undefined) return;
  if (from === to) return await warnOfOtherModel(where, to, warn);
  const [a, b] = [readModelConfig(from), readModelConfig(to)];
  const keys = Object.keys(a) as (keyof typeof a)[];
  const differs = keys.find((key) => String(a[key]) !== String(b[key]));
  if (differs !== undefined) {
    const values = `${differs} ${a[differs]} there, ${b[differs]} here`;
    throw new TroupeError(`was trained on ${there}, which is another model than ${here} (${values}).`, {
      where,
    });
  }
  warn(`${where} was trained on ${there}; here it begins on ${here}.`);
}
