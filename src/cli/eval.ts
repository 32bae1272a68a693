/**
 * `troupe eval [CONFIG]`: accuracy of a workflow on held-out problems, with the configured model as it is, or with
 * the policies of a checkpoint of a run (`--run`, `--checkpoint`).
 */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { type LoadedConfig, loadRunConfig } from '../config/load.js';
import type { RunConfig } from '../config/schema.js';
import { divertOutput } from '../config/user-code.js';
import { Engine } from '../engine/engine.js';
import { type Evaluation, evaluate } from '../learning/evaluate.js';
import { brokenOff, throwIfAllBrokeOff } from '../learning/notices.js';
import { setUp } from '../learning/setup.js';
import { type Checkpoint, findCheckpoint, parseWhich } from '../runs/checkpoint.js';
import { Progress } from '../runs/progress.js';
import { readRunConfig } from '../runs/run-directory.js';

interface Arguments {
  config: string | undefined;
  run: string | undefined;
  checkpoint: string;
  set: string[];
  json: boolean;
}

export const evalCommand: CommandModule<object, Arguments> = {
  command: 'eval [config]',
  describe: 'Accuracy of a workflow on held-out problems',
  builder: (yargs) =>
    yargs
      .positional('config', {
        type: 'string',
        describe: 'File or name of a preset; default: the default run',
      })
      .option('run', { type: 'string', describe: 'Run directory: its configuration and a checkpoint of it' })
      .conflicts('run', 'config')
      .option('checkpoint', {
        type: 'string',
        default: 'last',
        describe: 'With --run: last, best, or the number of a step',
      })
      .option('set', {
        type: 'string',
        array: true,
        nargs: 1,
        default: [] as string[],
        describe: 'Override a key, e.g. --set evaluation.problems=500',
      })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on standard output' }),
  handler: async (args) => {
    // Says what is wrong with a folder that is no run.
    if (args.run !== undefined) readRunConfig(args.run);
    const file = args.run === undefined ? (args.config ?? 'default') : join(args.run, 'config.yaml');
    const { config, locate } = loadRunConfig(file, args.set);
    const checkpoint = args.run === undefined ? undefined : await checkpointOf(args.run, args.checkpoint);
    report(await evaluateConfig(config, locate, checkpoint), checkpoint, args.json);
  },
};

function checkpointOf(run: string, which: string): Promise<Checkpoint> {
  return findCheckpoint(run, parseWhich(which), (message) => console.error(message));
}

/** Standard output is kept for the result: users' files may print. */
async function evaluateConfig(
  config: RunConfig,
  locate: LoadedConfig['locate'],
  checkpoint: Checkpoint | undefined,
): Promise<Evaluation> {
  using _output = divertOutput();
  const progress = new Progress({ label: 'eval', total: 1, unit: 'evaluation' });
  await using engine = new Engine();
  const restored = checkpoint === undefined ? {} : { checkpoint: checkpoint.folder };
  const trainer = await setUp(engine, config, { trainable: false, locate, ...restored });
  try {
    const onEnded = (ended: number, of: number) => progress.within(`episodes ${ended}/${of}`);
    const result = await evaluate(trainer, { onEnded });
    throwIfAllBrokeOff(result.episodes, 'evaluation');
    return result;
  } finally {
    progress.finish();
    await trainer.task.close();
  }
}

function report(
  { accuracy, reward, episodes, greedy, seconds }: Evaluation,
  checkpoint: Checkpoint | undefined,
  json: boolean,
): void {
  const counts: Record<string, number> = {};
  for (const episode of episodes) {
    for (const [name, count] of Object.entries(episode.counts)) counts[name] = (counts[name] ?? 0) + count;
  }
  const broken = episodes.filter(({ error }) => error !== undefined).length;
  if (json) {
    const step = checkpoint?.step;
    const rest = { greedy: greedy?.accuracy, reward, broken, counts, seconds, step };
    console.log(JSON.stringify({ ...accuracy, ...rest }));
    return;
  }
  if (checkpoint !== undefined) console.log(`checkpoint of step ${checkpoint.step}, ${checkpoint.folder}`);
  const percent = (share: number | null) => (share === null ? '–' : `${(100 * share).toFixed(1)} %`);
  const { mean, low, high, correct, total } = accuracy;
  console.log(
    `accuracy ${percent(mean)} (95 % interval ${percent(low)} to ${percent(high)}), ${correct} of ${total}`,
  );
  if (greedy !== undefined) {
    const { mean: share, correct: right, total: of } = greedy.accuracy;
    console.log(`greedy   ${percent(share)}, ${right} of ${of}`);
  }
  const why = brokenOff(episodes);
  if (why !== undefined) console.log(why);
  for (const [name, count] of Object.entries(counts)) console.log(`${name} ${count}`);
}
