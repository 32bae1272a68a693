/**
 * Training from the outside: a configuration becomes a run directory and a run in it, divided among the ranks that a
 * launcher has started (docs/distributed.md). The loop itself is in train.ts.
 */
import { availableParallelism } from 'node:os';
import { changesOf, checkChanges } from '../config/changes.js';
import { TroupeError } from '../config/errors.js';
import { goingOn } from '../config/files.js';
import { type LoadedConfig, loadRunConfig, runConfigOf } from '../config/load.js';
import { printConfig } from '../config/print.js';
import type { RunConfig, RunInput } from '../config/schema.js';
import { untilAborted } from '../config/user-code.js';
import { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import { placeFrom } from '../engine/rank-place.js';
import { Ranks } from '../engine/ranks.js';
import type { Verdict } from '../judgement/verdict.js';
import { bestCheckpoint, hasCheckpoints, type KeptCheckpoint, listCheckpoints } from '../runs/checkpoint.js';
import { describeEnvironment, type Environment } from '../runs/environment.js';
import { checkModel } from '../runs/model-record.js';
import { editsOf, loadRun } from '../runs/run-config.js';
import { createRun, isRun, newRunFolder, type RunDirectory, resumeRun } from '../runs/run-directory.js';
import { checkRun } from './check-run.js';
import { RankRecorder } from './rank-recorder.js';
import { DirectoryRecorder } from './run-recorder.js';
import { type TrainOutcome, trainRun } from './train.js';

/** How a run is started. */
export interface StartOptions {
  /** Overrides of keys, "key=value" each, as `--set` takes them. */
  set?: readonly string[];
  /** Folder of a new run; default: `run.folder` of the configuration, or a new one under runs/. */
  folder?: string;
  /**
   * Aborted to stop: the run saves and ends (`outcome.stopped`); with another reason than an AbortError it fails with it.
   * `events.setMaxListeners(0, signal)` spares a warning: every call in flight listens.
   */
  signal?: AbortSignal;
}

/** How a run is gone on with. */
export interface ResumeOptions extends Omit<StartOptions, 'folder'> {
  /** Begins again at step 0; what the run holds is moved to its folder replaced/. Default false. */
  restart?: boolean;
}

/** What a run left when it ended. */
export interface Trained {
  /** Its folder. */
  folder: string;
  /** Steps, evaluations before and after, whether and why it stopped early. */
  outcome: TrainOutcome;
  /** What its streams say of it. */
  verdict: Verdict;
  /** The checkpoint with the highest evaluated accuracy. */
  best: KeptCheckpoint | undefined;
}

/**
 * Trains the roles of a workflow: a configuration file, the name of a preset, or the configuration itself. Progress goes to
 * standard error. Throws a TroupeError for whatever is wrong with the configuration, before anything is written; where the
 * run fails later it saves first, if it can.
 *
 * @example
 * const { folder, outcome } = await train({ steps: 20, workflow: { module: './debate.ts' } });
 * console.log(folder, outcome.before?.accuracy.mean, outcome.after?.accuracy.mean);
 */
export async function train(
  config: string | RunInput = 'default',
  { set = [], folder: given, signal }: StartOptions = {},
): Promise<Trained> {
  const layer = { value: config as Record<string, unknown>, locate: () => undefined };
  const loaded = typeof config === 'string' ? loadRunConfig(config, set) : runConfigOf([layer], set);
  const { run, workflow } = loaded.config;
  const named = given ?? run.folder;
  const place = placeFrom(process.env);
  if (named === '' && (place?.maxRestarts ?? 0) > 0) {
    throw new TroupeError('is not set; a run that torchrun may start again needs a folder to be found in.', {
      where: '--run',
    });
  }
  const folder = named || newRunFolder(workflow.name);
  const open = (environment: Environment) => {
    // torchrun has started all ranks again.
    if ((place?.restarts ?? 0) > 0 && isRun(folder))
      return takeUp(folder, loaded.config, environment, signal);
    return createRun(folder, printConfig(loaded.config), environment);
  };
  return start(loaded, open, signal);
}

/** Goes on with the run; begins again where it had saved nothing. */
function takeUp(
  folder: string,
  config: RunConfig,
  environment: Environment,
  signal: AbortSignal | undefined,
): Promise<RunDirectory> {
  const changes = changesOf(loadRun(folder).config, config);
  checkChanges(changes, folder);
  const restart = !hasCheckpoints(folder);
  const check = sameModel(folder, config, signal);
  return resumeRun(folder, { config: printConfig(config), environment, changes, restart, check, warn });
}

/** Checks the model that the run would go on with; one of the hub may have to be downloaded first. */
function sameModel(
  folder: string,
  { model }: RunConfig,
  signal: AbortSignal | undefined,
): () => Promise<void> {
  const check = async () => checkModel(folder, await resolveModel(model.path));
  return () => untilAborted(check(), signal);
}

const warn = (message: string) => void process.stderr.write(`${message}\n`);

/**
 * Goes on with a run from its newest checkpoint. `set` takes the keys that may change on the way (docs/runs.md). Throws a
 * TroupeError where another key would change, where it has done more steps already, where the folder is no run, or where
 * another process works on it.
 */
export async function resume(
  folder: string,
  { set = [], restart = false, signal }: ResumeOptions = {},
): Promise<Trained> {
  if (restart && (placeFrom(process.env)?.maxRestarts ?? 0) > 0) {
    throw new TroupeError('would begin again whenever torchrun starts the run again.', {
      where: '--restart',
      hint: 'Give torchrun --max-restarts 0.',
    });
  }
  const before = loadRun(folder).config;
  const loaded = loadRun(folder, set);
  const changes = [...editsOf(folder), ...changesOf(before, loaded.config)];
  if (!restart) {
    checkChanges(changes, folder);
    checkSteps(folder, loaded.config);
  }
  const check = sameModel(folder, loaded.config, signal);
  const options = { config: printConfig(loaded.config), changes, restart, check, warn, signal };
  return start(loaded, (environment) => resumeRun(folder, { ...options, environment }), signal);
}

/** Else the run's own record would say that it has fewer steps than it has done. */
function checkSteps(folder: string, { steps }: RunConfig): void {
  const done = listCheckpoints(folder).at(-1)?.step ?? 0;
  if (steps >= done) return;
  throw new TroupeError(
    `is ${steps}, and the run has done ${done} already: it can be made longer, not shorter.`,
    {
      where: 'steps',
      hint: `With ${done} there is nothing left to do; eval and export take --checkpoint.`,
    },
  );
}

async function start(
  { config, locate }: LoadedConfig,
  open: (environment: Environment) => RunDirectory | Promise<RunDirectory>,
  signal: AbortSignal | undefined,
): Promise<Trained> {
  await checkRun(config, { trainable: true, locate });
  const place = placeFrom(process.env);
  const threads = Math.max(1, Math.floor(availableParallelism() / (place?.localSize ?? 1)));
  await using engine = new Engine({ threads });
  const ranks =
    place === undefined
      ? Ranks.alone(engine, signal)
      : await Ranks.join(engine, place, { ...config.distributed, signal });
  let recorder: DirectoryRecorder | undefined;
  let failed = true;
  let folder: string | undefined;
  try {
    const environment = describeEnvironment(await engine.send('describe', null));
    const kept = await ranks.lead('run directory', async () => {
      const directory = await open(environment);
      recorder = new DirectoryRecorder(directory, config);
      return directory.folder;
    });
    folder = kept;
    const outcome = await trainRun(engine, config, new RankRecorder(ranks, recorder), { ranks, locate });
    const found = await ranks.lead('result', async () => {
      if (recorder === undefined) throw new Error('rank 0 has no recorder');
      return { verdict: recorder.verdict(), best: bestCheckpoint(listCheckpoints(kept)) };
    });
    failed = false;
    return { folder: kept, outcome, ...found };
  } catch (error) {
    if (folder === undefined) throw error;
    const again = isRun(folder) && !hasCheckpoints(folder) ? ' --restart' : '';
    throw goingOn(error, `npx troupe train --resume ${folder}${again}`);
  } finally {
    recorder?.close();
    // After an error the others may be anywhere, and what went wrong is known.
    if (failed) await ranks.leave(true).catch(() => {});
    else await ranks.leave();
  }
}
