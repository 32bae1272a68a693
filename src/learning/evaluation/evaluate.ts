/**
 * `troupe eval`: has line-ups of policies play a workflow on held-out problems, several times each where asked for, and
 * measures how often they are right. What a line-up is stands in lineups.ts, what is measured in measures.ts, what is
 * left on disk in records.ts.
 */
import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { changesOf, isMove } from '../../config/changes.js';
import { TroupeError } from '../../config/errors.js';
import { type LoadedConfig, loadRunConfig } from '../../config/load.js';
import { type RunConfig, runSchema } from '../../config/schema.js';
import { limitUserCode } from '../../config/user-code.js';
import { Engine } from '../../engine/engine.js';
import { resolveModel } from '../../engine/model-catalogue.js';
import { modelDigests } from '../../engine/model-digests.js';
import { adapterRanks, type ResolvedPolicy } from '../../policies/routing.js';
import { heldPolicyFile } from '../../runs/checkpoint.js';
import { describeFileChanges, fileChanges, readFileRecord } from '../../runs/file-record.js';
import { warnOfOtherDigests } from '../../runs/model-record.js';
import { loadRun } from '../../runs/run-config.js';
import { isRun, readRunConfig } from '../../runs/run-directory.js';
import { checkSplit } from '../../runs/split-record.js';
import type { Problem } from '../../tasks/types.js';
import { checkWorkflow } from '../../workflows/registry.js';
import { collect, EVALUATION_STEP } from '../collect.js';
import { evaluationFingerprint } from '../fingerprint.js';
import { throwIfAllBrokeOff } from '../notices.js';
import { besideNow, ownFiles } from '../own-files.js';
import { policyRequest, setUp } from '../setup.js';
import { startOf } from '../start.js';
import type { Trainer } from '../trainer.js';
import { type Lineup, type LineupRequest, lineupKey, lineupsOf, type Player, playerKey } from './lineups.js';
import { defaultKs } from './measures.js';
import {
  addResults,
  type EpisodeRecord,
  EpisodeStore,
  type Phase,
  type ResultRow,
  recordOf,
} from './records.js';
import { type LineupResult, type PlayedLineup, playersOf, resultOf, rowOf } from './results.js';

/** What is evaluated, how often, and where the results go. */
export interface EvaluateOptions {
  /** Overrides of the configuration, "key=value" each, e.g. "workflow.name=eval-opt" for transfer. */
  set?: readonly string[];
  /** Of a run: last (default), best, the number of a step, or all that are kept. */
  checkpoints?: readonly string[];
  /** Also the base model in every role. Default false; what is no run is always played by the base. */
  base?: boolean;
  /** Players of single roles: base, or RUN[@CHECKPOINT][:POLICY]. Several of a role: each with each of the others'. */
  roles?: Readonly<Record<string, readonly string[]>>;
  /** Also with each role put back to the base, one at a time. Default false. */
  ablate?: boolean;
  /** Samples of each problem; default: `evaluation.episodes`. */
  samples?: number;
  /** The k of pass@k and majority@k; default: 1, 2, 4, … and the number of samples. */
  ks?: readonly number[];
  /** Folder of results and episodes; default: RUN/eval, of what is no run nothing is written. */
  folder?: string;
  /** Is told how far it is: "step 20: episodes 12/200". */
  onProgress?(what: string): void;
  /** Is told what a person should know, a sentence each. Default: standard error. */
  warn?(message: string): void;
  /** Problems whose episodes are written together; default: so many that they have 1024 episodes. */
  problemsAtOnce?: number;
  /** Aborted to end it; what is written stays, and the same evaluation goes on from there. */
  signal?: AbortSignal;
}

/** What `evaluate` found: one result for each line-up, in their order. */
export interface EvaluationResults {
  /** Where episodes and results lie; undefined: nowhere. */
  folder: string | undefined;
  results: LineupResult[];
}

/** Episodes that are played together and written together. */
const EPISODES_AT_ONCE = 1024;

/**
 * Evaluates a run directory, a configuration file or a preset. Throws a TroupeError for whatever is wrong with it, with
 * the options, or where every episode of a line-up breaks off.
 */
export async function evaluate(target: string, options: EvaluateOptions = {}): Promise<EvaluationResults> {
  const { warn = (message: string) => console.error(message), signal } = options;
  // Every call in flight listens to it.
  if (signal !== undefined) setMaxListeners(0, signal);
  const run = isRun(target) ? target : undefined;
  // Says what is wrong with a folder that is no run.
  if (run === undefined && existsSync(target) && !/\.ya?ml$/.test(target)) readRunConfig(target);
  const { config, locate } = await evaluationConfig(target, run, options, warn);
  const ks = checkKs(options.ks, config.evaluation.episodes);
  const { workflow } = await checkWorkflow(config.workflow, locate);
  const lineups = await lineupsOf(requestOf(run, options), workflow.roles, warn);
  await checkModels(lineups, config);
  const folder = options.folder ?? (run === undefined ? undefined : join(run, 'eval'));

  await using engine = new Engine();
  const adapterRanks = ranksOf(lineups);
  const trainer = await setUp(engine, config, { trainable: false, locate, warn, adapterRanks });
  try {
    const digests = await modelDigests(trainer.model.folder);
    if (run !== undefined) {
      await checkHeldOut(run, config, trainer);
      await warnEdited(run, trainer, warn);
    }
    const played = lineups.flatMap(({ players }) => Object.values(players));
    for (const other of new Set(played.flatMap((player) => (player === 'base' ? [] : [player.run])))) {
      warnOfOtherDigests(other, { folder: trainer.model.folder, digests }, warn);
    }
    const stage = new Stage(trainer, await evaluationFingerprint(trainer, digests));
    const keys = lineups.map((lineup) => keyOf(lineup, stage));
    const evaluation = checksum([keys, ks]);
    const task = config.task.module ?? config.task.python ?? config.task.name;
    const results: LineupResult[] = [];
    const rows: ResultRow[] = [];
    let first: EpisodeRecord[] | undefined;
    for (const lineup of lineups) {
      const played = await playLineup(stage, lineup, folder, options);
      first ??= played.sampled;
      const result = resultOf(lineup, played, { ks, first, samples: config.evaluation.episodes });
      results.push(result);
      const place = { evaluation, episodes: keyOf(lineup, stage), workflow: workflow.name, task };
      rows.push(rowOf(result, place));
    }
    if (folder !== undefined) addResults(folder, evaluation, rows);
    return { folder, results };
  } finally {
    await trainer.close();
  }
}

/**
 * Throws where problems would be evaluated that the run was trained on. Another task (`set`) is no such case; the same data
 * in another place are.
 */
async function checkHeldOut(run: string, config: RunConfig, { task }: Trainer): Promise<void> {
  const split = await task.split?.();
  const before = loadRun(run).config;
  const isSame = changesOf(before, { ...before, task: config.task }).every(isMove);
  if (split !== undefined && isSame) checkSplit(run, split);
}

/**
 * What the run measured was of other files. A task or workflow of another name (`set`) is no edit. Rewards, loss and
 * estimator are not loaded: what they import is known from the run's record alone.
 */
async function warnEdited(run: string, trainer: Trainer, warn: (message: string) => void): Promise<void> {
  const { learning } = loadRun(run).config;
  const files = await ownFiles({ ...trainer, config: { ...trainer.config, learning } });
  const pairs = await besideNow(readFileRecord(run) ?? [], files);
  const edited = fileChanges(
    pairs.map(({ before }) => before),
    pairs.map(({ now }) => now),
  );
  if (edited.length > 0) warn(`${run}: since it last ran ${describeFileChanges(edited)}`);
}

function requestOf(run: string | undefined, options: EvaluateOptions): LineupRequest {
  const { checkpoints = ['last'], base = false, roles = {}, ablate = false } = options;
  if (run === undefined && options.checkpoints !== undefined) {
    throw new TroupeError('goes with a run directory.', { where: '--checkpoint' });
  }
  return { run, checkpoints, base, roles, ablate };
}

/**
 * The configuration that is evaluated. Which policies there are, what they earned and what was done to their gradients is the
 * business of the runs they come from; settings of roles that another workflow does not have are left out, and named.
 */
async function evaluationConfig(
  target: string,
  run: string | undefined,
  { set = [], samples }: EvaluateOptions,
  warn: (message: string) => void,
): Promise<LoadedConfig> {
  const { config, locate } = run === undefined ? loadRunConfig(target, set) : loadRun(run, set);
  limitUserCode(config.run);
  const { workflow } = await checkWorkflow(config.workflow, locate);
  const { policies, interventions, learning } = runSchema.parse({ policies: { sharing: 'shared' } });
  const roles = Object.entries(config.rollout.roles);
  const left = run === undefined ? roles : roles.filter(([role]) => workflow.roles.includes(role));
  for (const [role] of roles) {
    if (left.every(([kept]) => kept !== role)) {
      warn(`rollout.roles.${role} is left out: the workflow ${workflow.name} has no such role.`);
    }
  }
  const evaluation = { ...config.evaluation, episodes: checkSamples(samples ?? config.evaluation.episodes) };
  const rollout = { ...config.rollout, roles: Object.fromEntries(left) };
  return { config: { ...config, policies, interventions, learning, evaluation, rollout }, locate };
}

function checkSamples(samples: number): number {
  if (Number.isInteger(samples) && samples >= 1) return samples;
  throw new TroupeError(`is ${samples}; it takes a whole number from 1.`, { where: '--samples' });
}

function checkKs(ks: readonly number[] | undefined, samples: number): number[] {
  const wrong = ks?.find((k) => !Number.isInteger(k) || k < 1 || k > samples);
  if (wrong === undefined) return [...new Set(ks ?? defaultKs(samples))].sort((a, b) => a - b);
  throw new TroupeError(`is ${wrong}; it takes whole numbers from 1 to ${samples}, the number of samples.`, {
    where: '--k',
  });
}

/** Roles that play together share a tokenizer, and so a model. */
async function checkModels(lineups: readonly Lineup[], config: RunConfig): Promise<void> {
  const wanted = await resolveModel(config.model.path);
  for (const player of lineups.flatMap(({ players }) => Object.values(players))) {
    if (player === 'base') continue;
    const model = await resolveModel(player.config.model.path);
    if (model === wanted) continue;
    throw new TroupeError(`was trained from the model ${model}; the others play with ${wanted}.`, {
      where: player.run,
      hint: 'Policies that play together need one base model.',
    });
  }
}

/** The players of each line-up that are adapters, by their places in it: the largest rank that each place has. */
export function ranksOf(lineups: readonly Lineup[]): number[] {
  const largest: number[] = [];
  for (const { players } of lineups) {
    const distinct = new Map(Object.values(players).map((player) => [playerKey(player), player]));
    const trained = [...distinct.values()].filter((player) => player !== 'base');
    const ranks = adapterRanks(trained.map(({ policy }) => policy));
    for (const [place, rank] of ranks.entries()) largest[place] = Math.max(largest[place] ?? 0, rank);
  }
  return largest;
}

/** The engine's policies, as many as a line-up has different players. */
class Stage {
  readonly trainer: Trainer;
  /** What the configuration does not say of what is played with. */
  readonly fingerprint: Record<string, string>;
  /** Key of the player that each policy of the engine is. */
  readonly #loaded = new Map<string, string>();

  constructor(trainer: Trainer, fingerprint: Record<string, string>) {
    this.trainer = trainer;
    this.fingerprint = fingerprint;
  }

  /** Makes the line-up's players the engine's policies; returns them with the roles that they play. */
  async cast({ players }: Lineup): Promise<ResolvedPolicy[]> {
    const distinct = new Map<string, { player: Player; roles: string[] }>();
    for (const [role, player] of Object.entries(players)) {
      const key = playerKey(player);
      const found = distinct.get(key) ?? { player, roles: [] };
      found.roles.push(role);
      distinct.set(key, found);
    }
    const { defaults } = this.trainer.config.policies;
    const policies: ResolvedPolicy[] = [];
    for (const [key, { player, roles }] of distinct) {
      // The base takes no memory of its own; the others take places, so that no more are held than play.
      const name = player === 'base' ? 'base' : `player-${policies.length}`;
      if (this.#loaded.get(name) !== key) await this.#load(name, player);
      this.#loaded.set(name, key);
      policies.push({ ...defaults, name, roles });
    }
    return policies;
  }

  async #load(name: string, player: Player): Promise<void> {
    const { engine, config, policies } = this.trainer;
    const [base] = policies;
    if (base === undefined) throw new Error('the base has no policy');
    const restored = player !== 'base' && !player.policy.freeze;
    const request =
      player === 'base' ? policyRequest(config, base) : policyRequest(player.config, player.policy);
    // A frozen policy is what it began with.
    const begins = player !== 'base' && player.policy.freeze;
    const start = begins ? await startOf(player.policy, player.config, () => {}) : undefined;
    await engine.send('createPolicy', { ...request, name, trainable: false, restored, start });
    if (player === 'base' || !restored) return;
    const file = heldPolicyFile(player.checkpoint.folder, player.policy.name);
    await engine.send('restorePolicy', { policy: name, file });
  }
}

async function playLineup(
  stage: Stage,
  lineup: Lineup,
  folder: string | undefined,
  options: EvaluateOptions,
): Promise<PlayedLineup> {
  const { config, task } = stage.trainer;
  const { problems: count, episodes, sampling, greedy } = config.evaluation;
  const problems = task.evaluation(count);
  const { fingerprint } = stage;
  const about = { name: lineup.name, players: playersOf(lineup), ...evaluatedWith(config), fingerprint };
  const store = new EpisodeStore(folder, keyOf(lineup, stage), about);
  const phase = (which: Phase, samples: number, over: typeof sampling) =>
    playPhase(stage, lineup, store, problems, { ...options, which, samples, sampling: over });
  const sampled = await phase('sampled', episodes, sampling);
  const wantsGreedy = greedy && sampling.temperature !== 0;
  return {
    sampled,
    greedy: wantsGreedy ? await phase('greedy', 1, { ...sampling, temperature: 0 }) : undefined,
  };
}

interface PhaseOptions extends Pick<EvaluateOptions, 'onProgress' | 'signal' | 'problemsAtOnce'> {
  which: Phase;
  samples: number;
  sampling: RunConfig['evaluation']['sampling'];
}

/** The episodes that are there, and those that are not yet, played. */
async function playPhase(
  stage: Stage,
  lineup: Lineup,
  store: EpisodeStore,
  problems: readonly Problem[],
  { which, samples, sampling, signal, onProgress, problemsAtOnce }: PhaseOptions,
): Promise<EpisodeRecord[]> {
  const records = store.read(which, samples);
  const atOnce = problemsAtOnce ?? Math.max(1, Math.floor(EPISODES_AT_ONCE / samples));
  for (let first = records.length / samples; first < problems.length; first += atOnce) {
    const policies = await stage.cast(lineup);
    const some = problems.slice(first, first + atOnce);
    const episodes = await collect({ ...stage.trainer, policies }, some, {
      step: EVALUATION_STEP,
      episodesPerProblem: samples,
      indices: some.map((_, i) => first + i),
      sampling,
      signal,
      onEnded: (ended) => {
        const of = problems.length * samples;
        onProgress?.(`${lineup.name}: ${which} episodes ${first * samples + ended}/${of}`);
      },
    });
    throwIfAllBrokeOff(episodes, lineup.name);
    const part = episodes.map((episode) => recordOf(episode, stage.trainer.task));
    store.write(which, first, part);
    records.push(...part);
    await stage.trainer.engine.send('clearCache', null);
  }
  return records;
}

/** What of the configuration an evaluation depends on. */
function evaluatedWith({ seed, model, task, workflow, rollout, evaluation, deterministic }: RunConfig) {
  const { every: _, ...rest } = evaluation;
  return { seed, deterministic, model, task, workflow, rollout, evaluation: rest };
}

function keyOf(lineup: Lineup, { trainer, fingerprint }: Stage): string {
  return checksum([lineupKey(lineup), evaluatedWith(trainer.config), fingerprint]);
}

const checksum = (value: unknown) =>
  createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16);
