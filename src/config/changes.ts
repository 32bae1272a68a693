/** What of a run's configuration may change when it goes on, and what did. */
import { basename } from 'node:path';
import { TroupeError } from './errors.js';
import { modelName } from './model-name.js';
import type { RunConfig } from './schema.js';

/** One key whose value differs; null where there is none. */
export interface Change {
  /** Dotted. */
  key: string;
  from: unknown;
  to: unknown;
}

/**
 * Keys that leave what was measured before comparable with what comes: how long, how fast and how closely watched the
 * run is, and how much of the machine it takes.
 */
const MAY_CHANGE = [
  /^steps$/,
  /^policies\.(defaults|overrides\.[^.]+)\.learningRate$/,
  /^learning\.schedule\./,
  /^sinks$/,
  /^(evaluation|checkpoints|alarms|distributed)\./,
  /^rollout\.(cacheBytes|maxBatch|prefillTokens|episodeSeconds)$/,
  /^run\.(blockedSeconds|answerSeconds)$/,
];

/** Keys that name files and folders: those of a run that was moved lie elsewhere. */
const PLACES = [
  /^(model\.path|run\.folder|policies\.overrides\.[^.]+\.start)$/,
  /^(task|workflow)\.(module|python|prompts|files|evaluationFiles)$/,
  /^learning\.(reward|kl\.reference|(estimator|loss)\.module)$/,
];

/** Whether a run that goes on may take the new value. */
export const mayChange = (change: Change): boolean =>
  MAY_CHANGE.some((allowed) => allowed.test(change.key)) || isMove(change);

/** Whether the new value names another place of what has the same name; for a model of the hub, another revision too. */
export function isMove({ key, from, to }: Change): boolean {
  if (!PLACES.some((place) => place.test(key))) return false;
  if (key === 'model.path') return modelName(String(from)) === modelName(String(to));
  return JSON.stringify(withoutFolders(from)) === JSON.stringify(withoutFolders(to));
}

/** Every path in it as its last part. */
function withoutFolders(value: unknown): unknown {
  if (typeof value === 'string') return basename(value);
  if (Array.isArray(value)) return value.map(withoutFolders);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, withoutFolders(child)]));
}

/** The leaves in which two configurations differ, in the order of the second. */
export function changesOf(before: RunConfig, after: RunConfig): Change[] {
  const [from, to] = [leaves(before), leaves(after)];
  const keys = [...new Set([...to.keys(), ...from.keys()])];
  return keys.flatMap((key) => {
    const change = { key, from: from.get(key) ?? null, to: to.get(key) ?? null };
    return JSON.stringify(change.from) === JSON.stringify(change.to) ? [] : [change];
  });
}

/** Throws a TroupeError that names the keys that may not change. */
export function checkChanges(changes: readonly Change[], run: string): void {
  const refused = changes.filter((change) => !mayChange(change));
  if (refused.length === 0) return;
  const listed = refused.map(
    ({ key, from, to }) => `${key} (${JSON.stringify(from)} → ${JSON.stringify(to)})`,
  );
  throw new TroupeError(`a run that goes on keeps ${listed.join(', ')}.`, {
    where: run,
    hint:
      'What may change: steps, learning rates and their schedule, evaluation, checkpoints, alarms, distributed, sinks, ' +
      'rollout.cacheBytes, maxBatch, prefillTokens and episodeSeconds, run.blockedSeconds and answerSeconds, and where files ' +
      'and folders of the same name lie, or which revision of a model of the hub is named. For anything else start a new run.',
  });
}

function leaves(value: unknown, path: string[] = []): Map<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return new Map([[path.join('.'), value]]);
  return new Map(Object.entries(value).flatMap(([key, child]) => [...leaves(child, [...path, key])]));
}
