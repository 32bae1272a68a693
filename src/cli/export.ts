/** `troupe export RUN`: a policy as an adapter or as a model that other programs load, or the streams as Parquet files. */
import type { CommandModule } from 'yargs';
import { divertOutput } from '../config/user-code.js';
import { exportPolicy } from '../learning/export-policy.js';
import { parseWhich } from '../runs/checkpoint.js';
import { exportParquet } from '../runs/parquet.js';
import { readRunConfig } from '../runs/run-directory.js';

interface Arguments {
  run: string;
  adapter: string | undefined;
  merged: string | undefined;
  parquet: string | undefined;
  policy: string | undefined;
  checkpoint: string;
  dtype: 'float32' | 'bfloat16' | undefined;
  json: boolean;
}

export const exportCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'Run directory' })
      .option('adapter', { type: 'string', describe: "Folder for the policy's adapter, in PEFT's layout" })
      .option('merged', {
        type: 'string',
        describe: "Folder for the whole model, in Hugging Face's layout; an adapter is merged into it",
      })
      .option('policy', { type: 'string', describe: 'Which policy, where the run has several' })
      .option('checkpoint', {
        type: 'string',
        default: 'last',
        describe: 'last, best, or the number of a step',
      })
      .option('dtype', {
        choices: ['float32', 'bfloat16'] as const,
        describe: 'Of the merged model; default: the one that the run computes in',
      })
      .option('parquet', { type: 'string', describe: 'Folder for the streams' })
      .option('json', { type: 'boolean', default: false, describe: 'JSON instead of lines' })
      .check(({ adapter, merged, parquet }) => {
        if ((adapter ?? merged ?? parquet) !== undefined) return true;
        throw new Error('It takes --adapter, --merged or --parquet, each with a folder.');
      }),
  handler: async (args) => {
    const { run, adapter, merged, parquet, policy, dtype, json } = args;
    // Says what is wrong with a folder that is no run.
    readRunConfig(run);
    const warn = (message: string) => console.error(message);
    const written: object[] = [];
    const lines: string[] = [];
    if ((adapter ?? merged) !== undefined) {
      const path = { run, checkpoint: parseWhich(args.checkpoint), policy };
      const { checkpoint, policy: found } = await quietly(() =>
        exportPolicy(path, { adapter, merged, dtype, warn }),
      );
      for (const folder of [adapter, merged]) {
        if (folder === undefined) continue;
        written.push({ path: folder, policy: found.name, step: checkpoint.step });
        lines.push(`${folder}: policy ${found.name} of step ${checkpoint.step}`);
      }
    }
    if (parquet !== undefined) {
      for (const { path, rows, ...rest } of exportParquet(run, parquet, warn)) {
        written.push({ ...rest, path, rows });
        lines.push(`${path}: ${rows} rows`);
      }
    }
    for (const line of json ? [JSON.stringify(written)] : lines) console.log(line);
  },
};

/** A run's workflow is a user's file, which may print. */
async function quietly<T>(work: () => Promise<T>): Promise<T> {
  using _output = divertOutput();
  return await work();
}
