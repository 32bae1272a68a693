/** `troupe train [CONFIG]`: trains the roles of a workflow; without arguments, the default run. */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { changesOf, checkChanges } from '../config/changes.js';
import { TroupeError } from '../config/errors.js';
import { type LoadedConfig, loadRunConfig } from '../config/load.js';
import { printConfig } from '../config/print.js';
import type { RunConfig } from '../config/schema.js';
import { divertOutput } from '../config/user-code.js';
import { Engine } from '../engine/engine.js';
import { describeRole } from '../judgement/roles-at-end.js';
import type { Verdict } from '../judgement/verdict.js';
import { checkRun } from '../learning/checks.js';
import type { Evaluation } from '../learning/evaluate.js';
import type { Accuracy } from '../learning/interval.js';
import { DirectoryRecorder } from '../learning/run-recorder.js';
import { StopSignals } from '../learning/stop-signals.js';
import { type TrainOutcome, trainRun } from '../learning/train.js';
import { bestCheckpoint, listCheckpoints } from '../runs/checkpoint.js';
import { describeEnvironment, type Environment } from '../runs/environment.js';
import {
  createRun,
  newRunFolder,
  type RunDirectory,
  readRunConfig,
  resumeRun,
} from '../runs/run-directory.js';

interface Arguments {
  config: string | undefined;
  set: string[];
  run: string | undefined;
  resume: string | undefined;
  restart: boolean;
  json: boolean;
}

export const trainCommand: CommandModule<object, Arguments> = {
  command: 'train [config]',
  describe: 'Train the roles of a workflow; without arguments, the default run',
  builder: (yargs) =>
    yargs
      .positional('config', { type: 'string', describe: 'File or name of a preset' })
      .option('set', {
        type: 'string',
        array: true,
        nargs: 1,
        default: [] as string[],
        describe: 'Override a key, e.g. --set policies.sharing=shared',
      })
      .option('run', { type: 'string', describe: 'Run directory; default: a new one under runs/' })
      .option('resume', { type: 'string', describe: 'Run directory to continue' })
      .conflicts('resume', ['run', 'config'])
      .option('restart', {
        type: 'boolean',
        default: false,
        describe: 'With --resume: begin again; what the run holds is moved to its folder replaced/',
      })
      .check(({ restart, resume }) => {
        if (restart && resume === undefined) throw new Error('--restart goes with --resume RUN.');
        return true;
      })
      .option('json', {
        type: 'boolean',
        default: false,
        describe: 'The outcome as JSON on standard output',
      }),
  handler: async (args) => {
    report(await train(args), args.json);
  },
};

/** What is to be run, checked as far as that goes without a model. */
interface Plan {
  config: RunConfig;
  locate: LoadedConfig['locate'];
  open(environment: Environment): RunDirectory | Promise<RunDirectory>;
}

interface Trained {
  outcome: TrainOutcome;
  folder: string;
  verdict: Verdict;
}

/** Standard output is kept for the result: users' files may print. */
async function train(args: Arguments): Promise<Trained> {
  using _output = divertOutput();
  using signals = new StopSignals();
  const { config, locate, open } = args.resume === undefined ? newRun(args) : oldRun(args.resume, args);
  await checkRun(config, { trainable: true, locate });
  await using engine = new Engine();
  const directory = await open(describeEnvironment(await engine.send('describe', null)));
  const recorder = new DirectoryRecorder(directory, config);
  try {
    const outcome = await trainRun(engine, config, recorder, { signal: signals.abort, locate });
    return { outcome, folder: directory.folder, verdict: recorder.verdict() };
  } catch (error) {
    if (error !== signals.abort.reason || signals.received === undefined) throw error;
    throw new TroupeError('stopped before the run began; nothing was kept.', {
      where: signals.received,
      cause: error,
    });
  } finally {
    recorder.close();
  }
}

function newRun(args: Arguments): Plan {
  const { config, locate } = loadRunConfig(args.config ?? 'default', args.set);
  const folder = args.run ?? (config.run.folder || newRunFolder(config.workflow.name));
  return { config, locate, open: (environment) => createRun(folder, printConfig(config), environment) };
}

/** The run's own configuration, with --set where a run that goes on may change. */
function oldRun(folder: string, { set, restart }: Arguments): Plan {
  // Says what is wrong with a folder that is no run.
  readRunConfig(folder);
  const file = join(folder, 'config.yaml');
  const before = loadRunConfig(file).config;
  const { config, locate } = loadRunConfig(file, set);
  const changes = changesOf(before, config);
  if (!restart) checkChanges(changes, folder);
  const warn = (message: string) => void process.stderr.write(`${message}\n`);
  const options = { config: printConfig(config), changes, restart, warn };
  return { config, locate, open: (environment) => resumeRun(folder, { ...options, environment }) };
}

const percent = ({ mean, low, high }: Accuracy) => {
  const shown = (share: number | null) => (share === null ? '–' : (100 * share).toFixed(1));
  return `${shown(mean)} % (95 % interval ${shown(low)} to ${shown(high)})`;
};

function accuracies({ accuracy, greedy }: Evaluation): string {
  return greedy === undefined
    ? percent(accuracy)
    : `${percent(accuracy)}; greedy ${percent(greedy.accuracy)}`;
}

function report({ outcome, folder, verdict }: Trained, json: boolean): void {
  const { before, after, steps, stopped, alarm } = outcome;
  const { label, roles } = verdict;
  const best = bestCheckpoint(listCheckpoints(folder));
  if (json) {
    const accuracies = (evaluation: Evaluation | undefined) =>
      evaluation && { ...evaluation.accuracy, greedy: evaluation.greedy?.accuracy };
    const named = best && { step: best.step, accuracy: best.score, folder: best.folder };
    const record = { run: folder, steps, stopped, alarm, label, roles, best: named };
    console.log(JSON.stringify({ ...record, before: accuracies(before), after: accuracies(after) }));
    return;
  }
  if (before !== undefined) console.log(`before   ${accuracies(before)}`);
  if (after !== undefined) console.log(`after    ${accuracies(after)}`);
  if (label !== null) console.log(`label    ${label}`);
  for (const role of roles) console.log(`role     ${role.role}: ${describeRole(role)}`);
  if (best !== undefined && best.score !== null) {
    console.log(`best     step ${best.step}, ${(100 * best.score).toFixed(1)} %: ${best.folder}`);
  }
  console.log(`streams  ${folder}/streams (Arrow IPC; docs/streams.md)`);
  if (alarm !== undefined) console.log(`alarm    ${alarm}`);
  if (stopped) console.log(`stopped after step ${steps}; continue with: npx troupe train --resume ${folder}`);
}
