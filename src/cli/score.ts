/** `troupe score MODEL`: natural log-probability of every token after the first, full softmax, temperature 1. */
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { Engine } from '../engine/engine.js';
import type { Tokenizer } from '../engine/tokenizer.js';
import {
  checkLength,
  checkpointOptions,
  type ModelArguments,
  modelOptions,
  NO_ROLLOUT,
  openModel,
  POLICY,
  readIds,
} from './open-model.js';

interface Arguments extends ModelArguments {
  ids?: string;
  text?: string[];
}

export const scoreCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    checkpointOptions(modelOptions(yargs))
      .option('ids', { type: 'string', describe: 'JSON file: a list of id lists' })
      .option('text', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'Text as it is, without chat template; may be given several times',
      })
      .conflicts('ids', 'text')
      .check(({ ids, text }) => {
        if (ids === undefined && text === undefined) throw new Error('Give --ids FILE or --text TEXT.');
        return true;
      }),
  handler: async (args) => {
    await using engine = new Engine();
    const { description, tokenizer } = await openModel(engine, args, NO_ROLLOUT);
    const sequences =
      args.ids === undefined
        ? encodeAll(args.text ?? [], tokenizer(), description.maxPositions)
        : readIds(args.ids, description);
    const scored = await engine.send('score', { policy: POLICY, sequences, temperature: 1 });
    const logprobs = scored.map((values) => Array.from(values));
    if (args.json) {
      const ids = args.ids === undefined ? { ids: sequences.map((list) => Array.from(list)) } : {};
      console.log(JSON.stringify({ logprobs, ...ids }));
    } else print(sequences, logprobs, tokenizer());
  },
};

function encodeAll(texts: readonly string[], tokenizer: Tokenizer, maxPositions: number): Int32Array[] {
  return texts.map((text) => {
    const ids = tokenizer.encode(text);
    if (ids.length === 0) throw new TroupeError('is empty.', { where: '--text' });
    checkLength(ids.length, maxPositions, '--text');
    return Int32Array.from(ids);
  });
}

function print(sequences: readonly Int32Array[], logprobs: readonly number[][], tokenizer: Tokenizer): void {
  for (const [i, sequence] of sequences.entries()) {
    const values = logprobs[i] ?? [];
    for (const [k, id] of sequence.entries()) {
      const value = k === 0 ? '' : (values[k - 1] ?? Number.NaN).toFixed(4);
      const text = tokenizer.decode([id], { skipSpecialTokens: false });
      console.log(`${value.padStart(10)}  ${String(id).padStart(6)}  ${JSON.stringify(text)}`);
    }
    const total = values.reduce((sum, value) => sum + value, 0);
    const each = values.length === 0 ? '' : `, ${(total / values.length).toFixed(4)} a token`;
    console.log(`${total.toFixed(4).padStart(10)}  in total${each}`);
  }
}
