/** temporary */
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { gradientsCommand } from './gradients.js';
import { sftCommand } from './sft.js';
import { trainCommand } from './train.js';

await yargs(hideBin(process.argv))
  .command(gradientsCommand)
  .command(sftCommand)
  .command(trainCommand)
  .demandCommand()
  .strict()
  .parseAsync();
