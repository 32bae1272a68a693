/** `troupe train [CONFIG]`: trains the roles of a workflow; without arguments, the default run. */
import type { CommandModule } from 'yargs';
import { hideBin } from 'yargs/helpers';
import { TroupeError } from '../config/errors.js';
import { loadRunConfig } from '../config/load.js';
import { divertOutput } from '../config/user-code.js';
import { placeFrom } from '../engine/rank-place.js';
import { describeRole } from '../judgement/roles-at-end.js';
import type { Accuracy } from '../learning/accuracy.js';
import { checkRun } from '../learning/check-run.js';
import type { Evaluation } from '../learning/evaluate.js';
import { resume, type Trained, train } from '../learning/launch.js';
import { StopSignals } from '../learning/stop-signals.js';
import { isStop } from '../learning/train.js';
import { loadRun } from '../runs/run-config.js';
import { launchRanks, stopWithLauncher } from './launch-ranks.js';
import { repeated } from './options.js';

interface Arguments {
  config: string | undefined;
  set: string[];
  run: string | undefined;
  resume: string | undefined;
  restart: boolean;
  ranks: number | undefined;
  json: boolean;
}

/** Processes of `--ranks` on one machine: more is a slip of the hand. */
const MOST_RANKS = 1024;

export const trainCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('config', { type: 'string', describe: 'File or name of a preset' })
      .option('set', repeated('Override a key, e.g. --set policies.sharing=shared'))
      .option('run', { type: 'string', describe: 'Run directory; default: a new one under runs/' })
      .option('resume', { type: 'string', describe: 'Run directory to continue' })
      .conflicts('resume', ['run', 'config'])
      .option('restart', {
        type: 'boolean',
        default: false,
        describe: 'With --resume: begin again; what the run holds is moved to its folder replaced/',
      })
      .option('ranks', {
        type: 'number',
        describe: 'Divide the run among this many processes on this machine (docs/distributed.md)',
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
    const place = placeFrom(process.env);
    checkRanks(args.ranks);
    if (args.ranks !== undefined && args.ranks > 1 && place === undefined) {
      await check(args);
      process.exitCode = await launchRanks(args.ranks, hideBin(process.argv));
      return;
    }
    if (args.ranks !== undefined && args.ranks !== (place?.size ?? 1)) {
      throw new TroupeError(`is ${args.ranks}, but WORLD_SIZE is ${place?.size}.`, { where: '--ranks' });
    }
    if (place !== undefined) stopWithLauncher();
    const trained = await run(args);
    // All ranks have the same result.
    if (place === undefined || place.rank === 0) report(trained, args.json);
  },
};

function checkRanks(ranks = 1): void {
  if (Number.isInteger(ranks) && ranks >= 1 && ranks <= MOST_RANKS) return;
  throw new TroupeError(`is ${ranks}; it takes a whole number from 1 to ${MOST_RANKS}.`, {
    where: '--ranks',
  });
}

/** What every rank would say of the configuration, said once. Users' files may print. */
async function check({ config = 'default', resume: old, set }: Arguments): Promise<void> {
  using _output = divertOutput();
  const loaded = old === undefined ? loadRunConfig(config, set) : loadRun(old, set);
  await checkRun(loaded.config, { trainable: true, locate: loaded.locate });
}

/** Standard output is kept for the result: users' files may print. */
async function run({ config, run: folder, resume: old, restart, set }: Arguments): Promise<Trained> {
  using _output = divertOutput();
  using signals = new StopSignals();
  const options = { set, signal: signals.abort };
  try {
    if (old !== undefined) return await resume(old, { ...options, restart });
    return await train(config, { ...options, ...(folder !== undefined && { folder }) });
  } catch (error) {
    if (!isStop(error)) throw error;
    throw new TroupeError('stopped before the run began; nothing was kept.', {
      where: signals.received ?? 'another rank',
      cause: error,
    });
  }
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

function report({ outcome, folder, verdict, best }: Trained, json: boolean): void {
  const { before, after, steps, stopped, alarm } = outcome;
  const { label, roles, brokenPrefixes } = verdict;
  if (json) {
    const accuracies = (evaluation: Evaluation | undefined) =>
      evaluation && { ...evaluation.accuracy, greedy: evaluation.greedy?.accuracy };
    const named = best && { step: best.step, accuracy: best.score, folder: best.folder };
    const record = { run: folder, steps, stopped, alarm, label, roles, brokenPrefixes, best: named };
    console.log(JSON.stringify({ ...record, before: accuracies(before), after: accuracies(after) }));
    return;
  }
  if (before !== undefined) console.log(`before   ${accuracies(before)}`);
  if (after !== undefined) console.log(`after    ${accuracies(after)}`);
  if (label !== null) console.log(`label    ${label}`);
  for (const role of roles) console.log(`role     ${role.role}: ${describeRole(role)}`);
  if (brokenPrefixes > 0) {
    console.log(
      `prefixes ${brokenPrefixes} prompts were tokenised anew: the chat template dropped or changed an earlier answer`,
    );
  }
  if (best !== undefined && best.score !== null) {
    console.log(`best     step ${best.step}, ${(100 * best.score).toFixed(1)} %: ${best.folder}`);
  }
  console.log(`streams  ${folder}/streams (Arrow IPC; docs/streams.md)`);
  if (alarm !== undefined) console.log(`alarm    ${alarm}`);
  if (stopped) console.log(`stopped after step ${steps}; continue with: npx troupe train --resume ${folder}`);
}
