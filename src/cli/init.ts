/** `troupe init --shape SHAPE FOLDER`: a random-weight model of a published shape. */
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { writeRandomModel } from '../engine/random-model.js';
import { isEmbedded, SHAPES } from '../engine/shapes.js';

interface Arguments {
  folder: string;
  shape: string;
  seed: number;
  dtype: 'float32' | 'bfloat16';
  tokenizer?: string;
}

export const initCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('folder', { type: 'string', demandOption: true, describe: 'Folder to write' })
      .option('shape', {
        choices: Object.keys(SHAPES),
        demandOption: true,
        describe: 'Whose config.json',
      })
      .option('seed', { type: 'number', default: 0, describe: 'Of the weights' })
      .option('dtype', {
        choices: ['float32', 'bfloat16'] as const,
        default: 'bfloat16' as const,
        describe: 'Of the weights',
      })
      .option('tokenizer', {
        type: 'string',
        describe:
          "Folder with the tokenizer; default: an installed one, else a byte-level one of Troupe's own",
      }),
  handler: ({ folder, shape, seed, dtype, tokenizer }) => {
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) {
      throw new TroupeError(`is ${seed}; it takes a whole number from 0 to 4294967295.`, { where: '--seed' });
    }
    const source = writeRandomModel(shape, folder, {
      seed,
      dtype,
      ...(tokenizer === undefined ? {} : { tokenizer }),
    });
    console.log(`Written to ${folder}`);
    if (source === 'small' && !isEmbedded(shape)) {
      console.log('It has a byte-level tokenizer; give --tokenizer FOLDER for the published one.');
    }
  },
};
