/**
 * A model folder's weights: safetensors, single or sharded, read by memory map into a parameter set and written
 * back as a Hugging Face folder; adapters in PEFT's layout. Folders are written whole or not at all.
 */
import { copyFileSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import type {
  AdapterConfig,
  ModuleKind,
  NativeModelConfig,
  NativeParameterSet,
  NativeTensor,
  ParameterInfo,
} from './native.js';
import { type SavedDtype, ShardWriter } from './shards.js';
import { noGrad, scope, Tensor } from './tensor.js';
import { TOKENIZER_FILES } from './tokenizer.js';
import { EMBEDDING, nameWeights, WeightFiles } from './weight-files.js';
import { writeFolder } from './whole-folder.js';

const ADAPTER = 'adapter_model.safetensors';
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

function copyAll(parameters: NativeParameterSet, sources: ReadonlyMap<string, string>, files: WeightFiles) {
  for (const parameter of parameters.parameters) {
    copyInto(parameters, parameter, sources.get(parameter.name) ?? parameter.name, files);
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

/** Copies a PEFT adapter of `folder` into `adapter` and commits. */
export function loadAdapter(adapter: NativeParameterSet, folder: string): void {
  const files = WeightFiles.ofFile(
    folder,
    ADAPTER,
    'An adapter is a folder with adapter_config.json and adapter_model.safetensors.',
  );
  try {
    const wanted = adapter.parameters.map(({ name }) => name);
    copyAll(adapter, nameWeights(wanted, files.names, folder).sources, files);
  } finally {
    files.close();
  }
}

/** Copies the tensor that the files call `source`. */
function copyInto(
  parameters: NativeParameterSet,
  { name, shape }: ParameterInfo,
  source: string,
  files: WeightFiles,
): void {
  const where = files.path(source);
  const safetensors = files.of(source);
  const info = safetensors.info(source);
  if (info.shape.join() !== shape.join()) {
    throw new TroupeError(`${source} has shape [${info.shape}]; config.json makes it [${shape}].`, { where });
  }
  if (!READABLE.has(info.dtype)) {
    throw new TroupeError(`${source} is ${info.dtype}; weights can be ${[...READABLE].join(', ')}.`, {
      where,
    });
  }
  noGrad(() =>
    scope(() => {
      const target = Tensor.wrap(parameters.view(name));
      target.copy_(Tensor.wrap(safetensors.tensor(source)));
      // A sum is finite exactly if no element is infinite or NaN and it does not overflow: sums of weights do not.
      if (!Number.isFinite(target.sum().item())) {
        throw new TroupeError(`${source} holds values that are not finite.`, { where });
      }
    }),
  );
}

/** Files beside the weights that a model folder needs to be loaded by others. */
const COMPANIONS = [...TOKENIZER_FILES, 'generation_config.json'];

/**
 * Writes `parameters` as a Hugging Face folder in `dtype`, by default the one that they are computed in; the other
 * files come from `source`, the folder of the model that they were loaded from.
 */
export function saveWeights(
  parameters: NativeParameterSet,
  source: string,
  folder: string,
  dtype?: SavedDtype,
): void {
  writeFolder(folder, (temporary) => {
    for (const name of COMPANIONS) {
      if (existsSync(join(source, name))) copyFileSync(join(source, name), join(temporary, name));
    }
    const shards = new ShardWriter(temporary);
    const saved = scope(() => {
      const written = addTensors(parameters, shards, dtype);
      shards.finish();
      return written;
    });
    const config = readJson(join(source, 'config.json')) as Record<string, unknown>;
    const key = 'dtype' in config ? 'dtype' : 'torch_dtype';
    writeFileSync(
      join(temporary, 'config.json'),
      `${JSON.stringify({ ...config, [key]: saved }, null, 2)}\n`,
    );
  });
}

/** Adds every parameter in `dtype`, from the master weights where there are any. Returns the dtype. */
function addTensors(parameters: NativeParameterSet, shards: ShardWriter, wanted?: SavedDtype): SavedDtype {
  const computed = Tensor.wrap(parameters.compute()).dtype;
  const dtype = wanted ?? (computed === 'bfloat16' ? 'bfloat16' : 'float32');
  for (const { name } of parameters.parameters) {
    const view = Tensor.wrap(parameters.view(name)).detach();
    shards.add(name, view.dtype === dtype ? view : view.to(dtype));
  }
  return dtype;
}

const PEFT_MODULES: Partial<Record<ModuleKind, string>> = {
  q: 'q_proj',
  k: 'k_proj',
  v: 'v_proj',
  o: 'o_proj',
  gate: 'gate_proj',
  up: 'up_proj',
  down: 'down_proj',
};

/** Writes an adapter as PEFT reads it. `base` is the folder of the model that it was trained on. */
export function saveAdapter(
  adapter: NativeParameterSet,
  config: AdapterConfig,
  base: string,
  folder: string,
): void {
  const json = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base,
    r: config.rank,
    lora_alpha: config.alpha,
    lora_dropout: 0,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    target_modules: config.targets.map((kind) => PEFT_MODULES[kind] ?? kind),
  };
  writeFolder(folder, (temporary) => {
    writeFileSync(join(temporary, 'adapter_config.json'), `${JSON.stringify(json, null, 2)}\n`);
    scope(() => {
      const shards = new ShardWriter(temporary, ADAPTER);
      addTensors(adapter, shards, 'float32');
      shards.finish();
    });
  });
}
