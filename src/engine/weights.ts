/**
 * A model folder's weights: safetensors, single or sharded, read by memory map into a parameter set and written
 * back as a Hugging Face folder; adapters in PEFT's layout. Folders are written whole or not at all.
 */
import { copyFileSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import type {
  AdapterConfig,
  ModuleKind,
  NativeModelConfig,
  NativeParameterSet,
  NativeSafetensors,
  ParameterInfo,
} from './native.js';
import { forPeople, openSafetensors } from './safetensors.js';
import { INDEX, type SavedDtype, ShardWriter, SINGLE } from './shards.js';
import { noGrad, scope, Tensor } from './tensor.js';
import { TOKENIZER_FILES } from './tokenizer.js';
import { writeFolder } from './whole-folder.js';

const ADAPTER = 'adapter_model.safetensors';
const READABLE = new Set(['float64', 'float32', 'float16', 'bfloat16']);

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/** Copies the folder's weights into `parameters` and commits. Throws a TroupeError that names file and tensor. */
export function loadWeights(parameters: NativeParameterSet, folder: string): void {
  const files = new OpenFiles(folder, locateTensors(folder));
  try {
    checkNames(parameters, files, folder);
    for (const parameter of parameters.parameters) copyInto(parameters, parameter, files);
  } finally {
    files.close();
  }
  parameters.commit();
}

/**
 * Whether the files can hold what config.json describes. Asked before memory is taken for it: a damaged size would
 * take all there is. Throws a TroupeError.
 */
export function checkSize(config: NativeModelConfig, folder: string): void {
  const files = new OpenFiles(folder, locateTensors(folder));
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
  const file = join(folder, ADAPTER);
  requireFile(file, 'An adapter is a folder with adapter_config.json and adapter_model.safetensors.');
  const names = openFile(file, (safetensors) => safetensors.names);
  const files = new OpenFiles(folder, new Map(names.map((name) => [name, ADAPTER])));
  try {
    checkNames(adapter, files, folder);
    for (const parameter of adapter.parameters) copyInto(adapter, parameter, files);
  } finally {
    files.close();
  }
  adapter.commit();
}

/** Which file of the folder holds each tensor. */
function locateTensors(folder: string): Map<string, string> {
  const index = join(folder, INDEX);
  if (existsSync(index)) {
    const { weight_map } = checkSection(indexSchema, readJson(index), { locate: () => index });
    return new Map(Object.entries(weight_map));
  }
  const file = join(folder, SINGLE);
  requireFile(file, `A model folder holds ${SINGLE} or ${INDEX}.`);
  return new Map(openFile(file, (safetensors) => safetensors.names).map((name) => [name, SINGLE]));
}

function requireFile(file: string, hint: string): void {
  if (!existsSync(file)) throw new TroupeError('no such file.', { where: file, hint });
}

function openFile<T>(file: string, use: (safetensors: NativeSafetensors) => T): T {
  const safetensors = openSafetensors(file);
  try {
    return use(safetensors);
  } finally {
    safetensors.dispose();
  }
}

/** The safetensors files of a folder, each opened when first needed. */
class OpenFiles {
  readonly #folder: string;
  readonly #where: Map<string, string>;
  readonly #open = new Map<string, NativeSafetensors>();

  constructor(folder: string, where: Map<string, string>) {
    this.#folder = folder;
    this.#where = where;
  }

  get names(): string[] {
    return [...this.#where.keys()];
  }

  path(name: string): string {
    return join(this.#folder, this.#where.get(name) ?? '');
  }

  /** The file that holds `name`, and does. */
  of(name: string): NativeSafetensors {
    const safetensors = this.#opened(name);
    if (!safetensors.names.includes(name)) {
      throw new TroupeError(`lacks ${name}, which ${INDEX} says is there.`, { where: this.path(name) });
    }
    // A name that is no text is listed as another one, under which nothing is found.
    forPeople(this.path(name), () => safetensors.info(name));
    return safetensors;
  }

  #opened(name: string): NativeSafetensors {
    const path = this.path(name);
    const opened = this.#open.get(path);
    if (opened !== undefined) return opened;
    requireFile(path, `${INDEX} names it; download the whole model.`);
    const safetensors = openSafetensors(path);
    this.#open.set(path, safetensors);
    return safetensors;
  }

  close(): void {
    for (const safetensors of this.#open.values()) safetensors.dispose();
  }
}

/** Names that files may hold although the model has no such parameter: a tied head, old rotary buffers. */
const IGNORED = /^lm_head\.weight$|rotary_emb\.inv_freq$/;

function checkNames(parameters: NativeParameterSet, files: OpenFiles, folder: string): void {
  const wanted = new Set(parameters.parameters.map(({ name }) => name));
  const found = new Set(files.names);
  const missing = [...wanted].filter((name) => !found.has(name));
  const unknown = [...found].filter((name) => !wanted.has(name) && !IGNORED.test(name));
  if (missing.length === 0 && unknown.length === 0) return;
  const parts = [listed('missing', missing), listed('unknown', unknown)].filter((part) => part !== '');
  throw new TroupeError(`the weights do not fit config.json: ${parts.join('; ')}.`, { where: folder });
}

function listed(what: string, names: readonly string[]): string {
  if (names.length === 0) return '';
  const more = names.length > 3 ? ` and ${names.length - 3} more` : '';
  return `${what} ${names.slice(0, 3).join(', ')}${more}`;
}

function copyInto(parameters: NativeParameterSet, parameter: ParameterInfo, files: OpenFiles): void {
  const { name, shape } = parameter;
  const where = files.path(name);
  const safetensors = files.of(name);
  const info = safetensors.info(name);
  if (info.shape.join() !== shape.join()) {
    throw new TroupeError(`${name} has shape [${info.shape}]; config.json makes it [${shape}].`, { where });
  }
  if (!READABLE.has(info.dtype)) {
    throw new TroupeError(`${name} is ${info.dtype}; weights can be ${[...READABLE].join(', ')}.`, { where });
  }
  noGrad(() =>
    scope(() => {
      const target = Tensor.wrap(parameters.view(name));
      target.copy_(Tensor.wrap(safetensors.tensor(name)));
      // A sum is finite exactly if no element is infinite or NaN and it does not overflow: sums of weights do not.
      if (!Number.isFinite(target.sum().item())) {
        throw new TroupeError(`${name} holds values that are not finite.`, { where });
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
