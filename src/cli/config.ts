/** `troupe config [FILE]`: prints the resolved configuration of a run, or the presets there are. */
import type { CommandModule } from 'yargs';
import { loadRunConfig, presetNames } from '../config/load.js';
import { printConfig } from '../config/print.js';
import type { RunConfig } from '../config/schema.js';
import { divertOutput } from '../config/user-code.js';
import { checkRun } from '../learning/check-run.js';
import { repeated } from './options.js';

interface Arguments {
  file: string | undefined;
  set: string[];
  presets: boolean;
  json: boolean;
}

export const configCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('file', { type: 'string', describe: 'File or name of a preset' })
      .option('set', repeated('Override a key, e.g. --set learning.groups=slot'))
      .option('presets', { type: 'boolean', default: false, describe: 'List the presets instead' })
      .option('json', { type: 'boolean', default: false, describe: 'JSON instead of YAML' }),
  handler: async ({ file, set, presets, json }) => {
    const value = presets ? presetNames() : await checkedConfig(file, set);
    if (json) console.log(JSON.stringify(value));
    else process.stdout.write(Array.isArray(value) ? `${value.join('\n')}\n` : printConfig(value));
  },
};

/** The whole configuration, the sections of task and workflow filled in too. Opens neither data nor weights. */
export async function checkedConfig(file: string | undefined, set: readonly string[]): Promise<RunConfig> {
  const { config, locate } = loadRunConfig(file, set);
  using _output = divertOutput();
  const checked = await checkRun(config, { trainable: true, locate });
  for (const warning of checked.warnings) console.error(warning);
  return checked.config;
}
