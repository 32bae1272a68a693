/** `troupe export RUN --parquet FOLDER`: the streams of a run as Parquet files. */
import type { CommandModule } from 'yargs';
import { exportParquet } from '../runs/parquet.js';

interface Arguments {
  run: string;
  parquet: string;
  json: boolean;
}

export const exportCommand: CommandModule<object, Arguments> = {
  command: 'export <run>',
  describe: 'Write the streams of a run as Parquet files',
  builder: (yargs) =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'Run directory' })
      .option('parquet', { type: 'string', demandOption: true, describe: 'Folder for the files' })
      .option('json', { type: 'boolean', default: false, describe: 'JSON instead of lines' }),
  handler: ({ run, parquet, json }) => {
    const tables = exportParquet(run, parquet, (message) => console.error(message));
    if (json) console.log(JSON.stringify(tables));
    else for (const { path, rows } of tables) console.log(`${path}: ${rows} rows`);
  },
};
