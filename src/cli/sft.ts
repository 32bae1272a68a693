/** `troupe sft CONFIG`: supervised start for the roles of workflows. */
import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.js';
import { divertOutput } from '../config/user-code.js';
import { runSft } from '../learning/sft.js';
import { sftSchema } from '../learning/sft-schema.js';
import { repeated } from './options.js';

interface Arguments {
  config: string;
  set: string[];
  json: boolean;
}

export const sftCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('config', {
        type: 'string',
        demandOption: true,
        describe: 'YAML file (docs/configuration.md)',
      })
      .option('set', repeated('Override a key, e.g. --set steps=200'))
      .option('json', {
        type: 'boolean',
        default: false,
        describe: 'One JSON object a step on standard output',
      }),
  handler: async (args) => {
    const { config } = loadConfig(sftSchema, args.config, args.set);
    const every = Math.max(1, Math.floor(config.steps / 20));
    const started = performance.now();
    // Tasks may be users' files, which may print.
    using output = divertOutput();
    await runSft(config, ({ step, loss, tokens }) => {
      const seconds = (performance.now() - started) / 1000;
      if (args.json) output.print(JSON.stringify({ step, loss, tokens, seconds }));
      else if ((step + 1) % every === 0 || step + 1 === config.steps) {
        output.print(`step ${step + 1}/${config.steps}  loss ${loss.toFixed(4)}  ${seconds.toFixed(0)} s`);
      }
    });
    if (!args.json) output.print(`Written to ${config.output}`);
  },
};
