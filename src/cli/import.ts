/** `troupe import model.gguf FOLDER`: a GGUF model as a Hugging Face folder. */
import type { CommandModule } from 'yargs';
import { importGguf } from '../engine/gguf-model.js';
import { isFetched, withFetchedGguf } from '../engine/model-catalogue.js';

interface Arguments {
  model: string;
  folder: string;
  dtype: 'float32' | 'bfloat16';
}

export const importCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('model', {
        type: 'string',
        demandOption: true,
        describe: 'GGUF file, or smollm2-135m, which is fetched',
      })
      .positional('folder', { type: 'string', demandOption: true, describe: 'Folder to write' })
      .option('dtype', {
        choices: ['float32', 'bfloat16'] as const,
        default: 'bfloat16' as const,
        describe: 'Of the written weights; float32 keeps dequantised values exactly',
      }),
  handler: async ({ model, folder, dtype }) => {
    if (isFetched(model)) await withFetchedGguf(model, async (file) => importGguf(file, folder, { dtype }));
    else importGguf(model, folder, { dtype });
    console.log(`Written to ${folder}`);
  },
};
