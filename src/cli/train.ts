/** `troupe train [CONFIG]`: trains the roles of a workflow; without arguments, the default run. */

import { parse } from 'yaml';
import type { CommandModule } from 'yargs';
import { checkSection } from '../config/check.js';
import { loadRunConfig } from '../config/load.js';
import { printConfig } from '../config/print.js';
import { type RunConfig, runSchema } from '../config/schema.js';
import { Engine } from '../engine/engine.js';
import { describeRole } from '../gradients/roles-at-end.js';
import type { Verdict } from '../gradients/verdict.js';
import type { Evaluation } from '../learning/evaluate.js';
import type { Accuracy } from '../learning/interval.js';
import { DirectoryRecorder } from '../learning/run-recorder.js';
import { StopSignals } from '../learning/stop-signals.js';
import { type TrainOutcome, trainRun } from '../learning/train.js';
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
      .option('json', {
        type: 'boolean',
        default: false,
        describe: 'The outcome as JSON on standard output',
      }),
  handler: async (args) => {
    await using engine = new Engine();
    const environment = describeEnvironment(await engine.send('describe', null));
    const { directory, config } = await openRun(args, environment);
    const recorder = new DirectoryRecorder(directory, config);
    using signals = new StopSignals();
    let outcome: TrainOutcome;
    try {
      outcome = await trainRun(engine, config, recorder, signals.abort);
    } finally {
      recorder.close();
    }
    report(outcome, recorder.verdict(), directory.folder, args.json);
  },
};

async function openRun(
  args: Arguments,
  environment: Environment,
): Promise<{ directory: RunDirectory; config: RunConfig }> {
  if (args.resume !== undefined) {
    const before = parse(readRunConfig(args.resume)) as unknown;
    const config = checkSection(runSchema, before, { locate: () => `${args.resume}/config.yaml` });
    const warn = (message: string) => void process.stderr.write(`${message}\n`);
    return { directory: await resumeRun(args.resume, printConfig(config), environment, warn), config };
  }
  const { config } = loadRunConfig(args.config ?? 'default', args.set);
  const folder = args.run ?? (config.run.folder || newRunFolder(config.workflow.name));
  return { directory: createRun(folder, printConfig(config), environment), config };
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

function report(outcome: TrainOutcome, found: Verdict, folder: string, json: boolean): void {
  const { before, after, steps, stopped, alarm } = outcome;
  if (json) {
    const { label, roles } = found;
    const accuracies = (evaluation: Evaluation | undefined) =>
      evaluation && { ...evaluation.accuracy, greedy: evaluation.greedy?.accuracy };
    const record = { run: folder, steps, stopped, alarm, label, roles };
    console.log(JSON.stringify({ ...record, before: accuracies(before), after: accuracies(after) }));
    return;
  }
  if (before !== undefined) console.log(`before   ${accuracies(before)}`);
  if (after !== undefined) console.log(`after    ${accuracies(after)}`);
  if (found.label !== null) console.log(`label    ${found.label}`);
  for (const role of found.roles) console.log(`role     ${role.role}: ${describeRole(role)}`);
  console.log(`streams  ${folder}/streams (Arrow IPC; docs/streams.md)`);
  if (alarm !== undefined) console.log(`alarm    ${alarm}`);
  if (stopped) console.log(`stopped after step ${steps}; continue with: npx troupe train --resume ${folder}`);
}
