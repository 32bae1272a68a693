/**
 * `troupe eval [CONFIG]`: accuracy of a workflow on held-out problems, with the configured model as it is, or with
 * the policies of a run's newest checkpoint (`--run`).
 */
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { loadRunConfig } from '../config/load.js';
import type { RunConfig } from '../config/schema.js';
import { Engine } from '../engine/engine.js';
import { type Evaluation, evaluate } from '../learning/evaluate.js';
import { policyFile } from '../learning/run-recorder.js';
import { setUp } from '../learning/setup.js';
import { latestCheckpoint } from '../runs/checkpoint.js';
import { readRunConfig } from '../runs/run-directory.js';

interface Arguments {
  config: string | undefined;
  run: string | undefined;
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
      .option('run', { type: 'string', describe: 'Run directory: its configuration, its newest checkpoint' })
      .conflicts('run', 'config')
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
    const { config } = loadRunConfig(file, args.set);
    report(await evaluateConfig(config, args.run), args.json);
  },
};

async function evaluateConfig(config: RunConfig, run: string | undefined): Promise<Evaluation> {
  await using engine = new Engine();
  const trainer = await setUp(engine, config, { trainable: run !== undefined });
  try {
    if (run !== undefined) {
      const checkpoint = await latestCheckpoint(run, (message) => void process.stderr.write(`${message}\n`));
      if (checkpoint === undefined) throw new TroupeError('has no checkpoint yet.', { where: run });
      for (const { name, freeze } of trainer.policies) {
        const file = policyFile(checkpoint.folder, name);
        if (!freeze) await engine.send('restorePolicy', { policy: name, file });
      }
    }
    return await evaluate(trainer);
  } finally {
    await trainer.task.close();
  }
}

function report({ accuracy, reward, episodes, greedy, seconds }: Evaluation, json: boolean): void {
  const counts: Record<string, number> = {};
  for (const episode of episodes) {
    for (const [name, count] of Object.entries(episode.counts)) counts[name] = (counts[name] ?? 0) + count;
  }
  const broken = episodes.filter(({ error }) => error !== undefined).length;
  if (json) {
    console.log(JSON.stringify({ ...accuracy, greedy: greedy?.accuracy, reward, broken, counts, seconds }));
    return;
  }
  const percent = (share: number | null) => (share === null ? '–' : `${(100 * share).toFixed(1)} %`);
  const { mean, low, high, correct, total } = accuracy;
  console.log(
    `accuracy ${percent(mean)} (95 % interval ${percent(low)} to ${percent(high)}), ${correct} of ${total}`,
  );
  if (greedy !== undefined) {
    const { mean: share, correct: right, total: of } = greedy.accuracy;
    console.log(`greedy   ${percent(share)}, ${right} of ${of}`);
  }
  if (broken > 0) console.log(`${broken} episodes broke off: ${episodes.find(({ error }) => error)?.error}`);
  for (const [name, count] of Object.entries(counts)) console.log(`${name} ${count}`);
}
