/** `troupe generate MODEL`: samples of a prompt, as text or as JSON with ids and log-probabilities. */
import type { ArgumentsCamelCase, CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { Engine } from '../engine/engine.js';
import type { Tokenizer } from '../engine/tokenizer.js';
import type { Completion, Sampling } from '../engine/types.js';
import {
  checkLength,
  checkpointOptions,
  type ModelArguments,
  modelOptions,
  openModel,
  POLICY,
  readIds,
} from './open-model.js';
import { repeated } from './options.js';

interface Arguments extends ModelArguments {
  prompt?: string;
  ids?: string;
  raw: boolean;
  samples: number;
  'max-tokens': number;
  temperature: number;
  'top-p': number;
  'top-k': number;
  'min-p': number;
  stop: string[];
  seed: number;
}

/** As the handler gets them: `max-tokens` as `maxTokens` too. */
type Given = ArgumentsCamelCase<Arguments>;

const CACHE_BYTES = 2 ** 30;

export const generateCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    checkpointOptions(modelOptions(yargs))
      .option('prompt', {
        type: 'string',
        describe: "The user's message, put into the model's chat template",
      })
      .option('ids', { type: 'string', describe: 'JSON file: a list of id lists, each a whole prompt' })
      .option('raw', { type: 'boolean', default: false, describe: 'The prompt as it is, without template' })
      .option('samples', { type: 'number', default: 1, describe: 'Samples of each prompt' })
      .option('max-tokens', { type: 'number', default: 256, describe: 'Tokens of a sample at most' })
      .option('temperature', { type: 'number', default: 1, describe: '0: greedy' })
      .option('top-p', { type: 'number', default: 1, describe: '1: off' })
      .option('top-k', { type: 'number', default: 0, describe: '0: off' })
      .option('min-p', { type: 'number', default: 0, describe: '0: off' })
      .option('stop', repeated('Text that ends a sample; may be given several times'))
      .option('seed', { type: 'number', default: 0, describe: 'Of the samples' })
      .check(({ prompt, ids, raw }) => {
        if ((prompt === undefined) === (ids === undefined)) {
          throw new Error('Give --prompt TEXT or --ids FILE.');
        }
        if (raw && ids !== undefined) throw new Error('--raw goes with --prompt; ids are taken as they are.');
        return true;
      }),
  handler: async (args) => {
    const sampling = checkSampling(args);
    await using engine = new Engine();
    const rollout = { cacheBytes: CACHE_BYTES, maxBatch: 256, prefillTokens: 2048, seed: args.seed };
    const { description, tokenizer: load } = await openModel(engine, args, rollout);
    const tokenizer = load();
    const prompts = args.ids === undefined ? [encodePrompt(args, tokenizer)] : readIds(args.ids, description);
    checkFits(prompts, args.maxTokens, description.maxPositions);
    const requests = prompts.flatMap((prompt, p) =>
      Array.from({ length: args.samples }, (_, s) => ({
        policy: POLICY,
        prompt,
        sampling,
        counter: [p, s, 0, 0, 0] as const,
      })),
    );
    const completions = await Promise.all(requests.map((request) => engine.complete(request)));
    report(completions, tokenizer, args.json);
  },
};

function encodePrompt({ prompt = '', raw }: Given, tokenizer: Tokenizer): Int32Array {
  const ids = raw
    ? tokenizer.encode(prompt)
    : tokenizer.applyChatTemplate([{ role: 'user', content: prompt }], { addGenerationPrompt: true }).ids;
  if (ids.length === 0) throw new TroupeError('is empty.', { where: '--prompt' });
  return Int32Array.from(ids);
}

/** Every prompt with its longest answer must fit into the model's positions. */
function checkFits(prompts: readonly Int32Array[], maxTokens: number, maxPositions: number): void {
  const longest = Math.max(...prompts.map(({ length }) => length));
  checkLength(longest + 1, maxPositions, 'the prompt with one token after it');
  if (longest + maxTokens <= maxPositions) return;
  throw new TroupeError(
    `is ${maxTokens}, and the prompt has ${longest} tokens; this model takes ${maxPositions} together.`,
    { where: '--max-tokens' },
  );
}

/** What each option takes; yargs lets any number through. */
const RANGES: [keyof Given, string, string, (value: number) => boolean][] = [
  ['samples', '--samples', 'a whole number from 1', (value) => Number.isInteger(value) && value >= 1],
  ['maxTokens', '--max-tokens', 'a whole number from 1', (value) => Number.isInteger(value) && value >= 1],
  ['temperature', '--temperature', 'a number from 0', (value) => value >= 0 && value < Infinity],
  ['topP', '--top-p', 'a number above 0, up to 1', (value) => value > 0 && value <= 1],
  ['topK', '--top-k', 'a whole number from 0', (value) => Number.isInteger(value) && value >= 0],
  ['minP', '--min-p', 'a number from 0 to 1', (value) => value >= 0 && value <= 1],
  ['seed', '--seed', 'a whole number from 0', (value) => Number.isSafeInteger(value) && value >= 0],
];

function checkSampling(args: Given): Sampling {
  for (const [key, option, takes, good] of RANGES) {
    const value = args[key] as number;
    if (!good(value)) throw new TroupeError(`is ${value}; it takes ${takes}.`, { where: option });
  }
  const { temperature, topK, topP, minP, maxTokens, stop } = args;
  return { temperature, topK, topP, minP, maxTokens, stop };
}

function report(completions: readonly Completion[], tokenizer: Tokenizer, json: boolean): void {
  const samples = completions.map(({ ids, logprobs, finish }) => ({
    ids: Array.from(ids),
    text: tokenizer.decode(ids),
    logprobs: Array.from(logprobs),
    finish,
  }));
  if (json) {
    console.log(JSON.stringify({ samples }));
    return;
  }
  for (const [i, { text, finish }] of samples.entries()) {
    if (samples.length > 1) console.log(`--- ${i + 1}${finish === 'length' ? ' (cut at --max-tokens)' : ''}`);
    console.log(text);
  }
}
