/**
 * A model folder's weights: safetensors, single or sharded, read by memory map into a parameter set and written
 * back as a Hugging Face folder, whole or not at all. Adapters are in adapters.ts.
 */
import { copyFileSync, cpSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import { TEMPLATE_FOLDER } from './chat-template.js';
import type { NativeModelConfig, NativeParameterSet, NativeTensor, ParameterInfo } from './native-model.js';
import { scope } from './scope.js';
import { type SavedDtype, ShardWriter, SINGLE } from './shards.js';
import { noGrad, Tensor } from './tensor.js';
import { TOKENIZER_FILES } from './tokenizer.js';
import { EMBEDDING, nameWeights, WeightFiles } from './weight-files.js';
import { writeFolder } from './whole-folder.js';

const READABLE = new Set(['float64', 'float32', 'float16', 'bfloat16']);

/**
 * Copies the folder's weights into `parameters` and commits. Returns the names of tensors that were not read: heads
 * that a language model does not have. Throws a TroupeError that names file and tensor.
 */
export function loadWeights(parameters: NativeParameterSet, folder: string): string[] {
  const files = WeightFiles.ofModel(folder);
  try {
    const named = nameWeights(
      parameters.parameters.map(({ name }) => name),
      files.names,
      folder,
    );
    if (named.tiedHead !== undefined) checkTied(named.tiedHead, named.sources, files, folder);
    copyAll(parameters, named.sources, files);
    return named.ignored;
  } finally {
    files.close();
  }
}

/** transformers ties only equal tensors: embeddings and a head that differ are two, whatever config.json says. */
function checkTied(head: string, sources: ReadonlyMap<string, string>, files: WeightFiles, folder: string) {
  const embedding = sources.get(EMBEDDING) ?? EMBEDDING;
  const [a, b] = [files.of(head), files.of(embedding)];
  const sameShape = a.info(head).shape.join() === b.info(embedding).shape.join();
  if (sameShape && noGrad(() => scope(() => same(a.tensor(head), b.tensor(embedding))))) return;
  throw new TroupeError(`ties the embeddings, but the weights hold a ${head} that differs from them.`, {
    where: join(folder, 'config.json'),
    hint: 'Set tie_word_embeddings to false, as transformers reads it, or remove that tensor.',
  });
}

const same = (a: NativeTensor, b: NativeTensor) =>
  Tensor.wrap(a).to('float32').eq(Tensor.wrap(b).to('float32')).not().sum().item() === 0;

/** Copies every parameter from the tensor that the files call by the name in `sources`. `makes`: who says its shape. */
export function copyAll(
  parameters: NativeParameterSet,
  sources: ReadonlyMap<string, string>,
  files: WeightFiles,
  makes = 'config.json makes it',
): void {
  for (const parameter of parameters.parameters) {
    copyInto(parameters, parameter, sources.get(parameter.name) ?? parameter.name, { files, makes });
  }
  parameters.commit();
}

/**
 * Whether the files can hold what config.json describes. Asked before memory is taken for it: a damaged size would
 * take all there is. Throws a TroupeError.
 */
export function checkSize(config: NativeModelConfig, folder: string): void {
  const files = WeightFiles.ofModel(folder);
  try {
    const held = files.names.reduce((sum, name) => sum + elements(files.of(name).info(name).shape), 0);
    const described = parameterCount(config);
    if (described <= 2 * held) return;
    throw new TroupeError(`describes ${described} parameters; the weights beside it have ${held}.`, {
      where: join(folder, 'config.json'),
    });
  } finally {
    files.close();
  }
}

const elements = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

/** Of the matrices: the rest is less than a hundredth. */
function parameterCount(config: NativeModelConfig): number {
  const { hiddenSize, layers, heads, kvHeads, headDim, intermediateSize, vocabularySize } = config;
  const perLayer = hiddenSize * (2 * (heads + kvHeads) * headDim + 3 * intermediateSize);
  return layers * perLayer + (config.tiedEmbeddings ? 1 : 2) * vocabularySize * hiddenSize;
}

/** Copies the tensor that the files call `source`. */
function copyInto(
  parameters: NativeParameterSet,
  { name, shape }: ParameterInfo,
  source: string,
  { files, makes }: { files: WeightFiles; makes: string },
): void {
  const where = files.path(source);
  const safetensors = files.of(source);
  const info = safetensors.info(source);
  if (info.shape.join() !== shape.join()) {
    throw new TroupeError(`${source} has shape [${info.shape}]; ${makes} [${shape}].`, { where });
  }
  if (!READABLE.has(info.dtype)) {
    throw new TroupeError(`${source} is ${info.dtype}; weights can be ${[...READABLE].join(', ')}.`, {
      where,
    });
  }
  noGrad(() =>
    scope(() => {
      parameters.write(name, safetensors.tensor(source));
      const target = Tensor.wrap(parameters.view(name));
      // A sum is finite exactly if no element is infinite or NaN and it does not overflow: sums of weights do not.
      if (!Number.isFinite(target.sum().item())) {
        throw new TroupeError(`${source} holds values that are not finite.`, { where });
      }
    }),
  );
}

/** Files beside the weights that a model folder needs to be loaded by others. */
const COMPANIONS = [...TOKENIZER_FILES, 'generation_config.json'];

/** How a folder is written. */
export interface SavedFolder {
  folder: string;
  /** Default: the dtype that they are computed in. */
  dtype?: SavedDtype | undefined;
  /** Other files in it, by name: a README.md. */
  files?: Readonly<Record<string, string>> | undefined;
  /** The parameters, flat, where the set has only a part of its masters. */
  exact?: Tensor | undefined;
  /** Bytes of one file of weights at most; default: 5 GB, as Hugging Face's tools have it. */
  shardBytes?: number | undefined;
  /** Gives each parameter as it is to be written: with an adapter in it. */
  change?: (name: string, weight: Tensor) => Tensor;
}

/**
 * Writes `parameters` as a Hugging Face folder; tokenizer and the like come from `source`, the folder of the model that
 * they were loaded from.
 */
export function saveWeights(
  parameters: NativeParameterSet,
  source: string,
  { folder, dtype, files = {}, shardBytes, ...given }: SavedFolder,
): void {
  writeFolder(folder, (temporary) => {
    for (const name of COMPANIONS) {
      if (existsSync(join(source, name))) copyFileSync(join(source, name), join(temporary, name));
    }
    const templates = join(source, TEMPLATE_FOLDER);
    if (existsSync(templates)) {
      // In the hub's cache they are links.
      cpSync(templates, join(temporary, TEMPLATE_FOLDER), { recursive: true, dereference: true });
    }
    writeFiles(temporary, files);
    const shards = new ShardWriter(temporary, SINGLE, shardBytes);
    const saved = scope(() => {
      const written = addTensors(parameters, shards, { dtype: dtype ?? savedDtype(parameters), ...given });
      shards.finish();
      return written;
    });
    const config = readJson(join(source, 'config.json')) as Record<string, unknown>;
    const key = 'dtype' in config ? 'dtype' : 'torch_dtype';
    writeFiles(temporary, { 'config.json': `${JSON.stringify({ ...config, [key]: saved }, null, 2)}\n` });
  });
}

export function writeFiles(folder: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}

/** The dtype that parameters are computed in, or the nearest that is saved. */
export function savedDtype(parameters: NativeParameterSet): SavedDtype {
  return scope(() => Tensor.wrap(parameters.compute()).dtype) === 'bfloat16' ? 'bfloat16' : 'float32';
}

/** Adds every parameter in `dtype`, from `exact`, or else the master weights where there are any. Returns the dtype. */
export function addTensors(
  parameters: NativeParameterSet,
  shards: ShardWriter,
  {
    dtype,
    exact,
    change = (_name, weight) => weight,
  }: Pick<SavedFolder, 'exact' | 'change'> & { dtype: SavedDtype },
): SavedDtype {
  for (const { name, offset, size, shape } of parameters.parameters) {
    const tensor = scope(() => {
      const view = exact?.narrow(0, offset, size).reshape(shape) ?? Tensor.wrap(parameters.view(name));
      const weight = change(name, view.detach());
      return weight.dtype === dtype ? weight : weight.to(dtype);
    });
    shards.add(name, tensor);
  }
  return dtype;
}
