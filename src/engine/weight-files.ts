/**
 * Which file of a model folder holds which parameter, as transformers 5 reads it: model.safetensors before an index,
 * names with or without the prefix "model.", a head that stands for tied embeddings. What transformers reads in
 * another way than the engine computes is refused.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { shown } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import type { NativeSafetensors } from './native.js';
import { forPeople, openSafetensors } from './safetensors.js';
import { INDEX, readIndex, SINGLE } from './shards.js';

export const EMBEDDING = 'model.embed_tokens.weight';
const HEAD = 'lm_head.weight';
const ADAPTER_CONFIG = 'adapter_config.json';
/** transformers' base_model_prefix of every family here. */
const PREFIX = 'model.';

/** Buffers that old versions of transformers saved; they are computed. */
const BUFFERS = /(^|\.)(rotary_emb\.inv_freq|attn\.(masked_)?bias|self_attn\.masked_bias)$/;
/** Heads of reward, value and classification models, which the language model does not have. */
const OTHER_HEADS = /^(score|v_head|value_head|reward_head|classifier|regression_head)\./;

/** The safetensors files of a folder, each opened when first needed. */
export class WeightFiles {
  readonly #folder: string;
  readonly #where: Map<string, string>;
  readonly #open = new Map<string, NativeSafetensors>();

  private constructor(folder: string, where: Map<string, string>) {
    this.#folder = folder;
    this.#where = where;
  }

  static ofModel(folder: string): WeightFiles {
    if (existsSync(join(folder, ADAPTER_CONFIG))) {
      throw new TroupeError(`holds ${ADAPTER_CONFIG}: transformers reads another model under it.`, {
        where: folder,
        hint: 'Merge the adapter into its model, or remove that file.',
      });
    }
    return new WeightFiles(folder, locateTensors(folder));
  }

  /** Of one file, which `hint` says how to get. */
  static ofFile(folder: string, file: string, hint: string): WeightFiles {
    const path = join(folder, file);
    requireFile(path, hint);
    return new WeightFiles(folder, new Map(namesIn(path).map((name) => [name, file])));
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
      throw new TroupeError(`lacks ${shown(name)}, which ${INDEX} says is there.`, {
        where: this.path(name),
      });
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

/** transformers takes model.safetensors where there is one: an index beside it is left over from another model. */
function locateTensors(folder: string): Map<string, string> {
  const single = join(folder, SINGLE);
  const index = join(folder, INDEX);
  if (existsSync(single)) return new Map(namesIn(single).map((name) => [name, SINGLE]));
  requireFile(index, `A model folder holds ${SINGLE} or ${INDEX}.`, single);
  return new Map(Object.entries(readIndex(folder)));
}

function requireFile(file: string, hint: string, shown = file): void {
  if (!existsSync(file)) throw new TroupeError('no such file.', { where: shown, hint });
}

function namesIn(file: string): string[] {
  const safetensors = openSafetensors(file);
  try {
    return safetensors.names;
  } finally {
    safetensors.dispose();
  }
}

export interface NamedWeights {
  /** Name in the files of every parameter. */
  sources: Map<string, string>;
  /** The files hold a head of their own beside the embeddings that config.json ties it to. */
  tiedHead: string | undefined;
  /** Names in the files that the model does not have and transformers ignores too. */
  ignored: string[];
}

/** Finds every parameter among the files' names. Throws a TroupeError for what `maker` lacks there, or does not know. */
export function nameWeights(
  wanted: readonly string[],
  found: readonly string[],
  folder: string,
  maker = 'config.json',
): NamedWeights {
  const parameters = new Set(wanted);
  const sources = new Map<string, string>();
  const unknown: string[] = [];
  const ignored: string[] = [];
  let tiedHead: string | undefined;
  const known = (name: string) => parameters.has(name) || name === HEAD;
  for (const name of found) {
    const parameter = parameterName(name, known);
    if (parameter === undefined) {
      if (BUFFERS.test(name)) continue;
      (OTHER_HEADS.test(name) ? ignored : unknown).push(name);
    } else if (!parameters.has(parameter)) tiedHead = name;
    else if (sources.has(parameter)) unknown.push(name);
    else sources.set(parameter, name);
  }
  // A head alone stands for both: transformers ties to whichever is there.
  if (tiedHead !== undefined && parameters.has(EMBEDDING) && !sources.has(EMBEDDING)) {
    sources.set(EMBEDDING, tiedHead);
    tiedHead = undefined;
  }
  const missing = wanted.filter((name) => !sources.has(name));
  if (missing.length === 0 && unknown.length === 0) return { sources, tiedHead, ignored };
  const parts = [listed('missing', missing), listed('unknown', unknown)].filter((part) => part !== '');
  throw new TroupeError(`the weights do not fit ${maker}: ${parts.join('; ')}.`, { where: folder });
}

/** transformers adds or takes away its prefix where that makes a name known. */
function parameterName(name: string, known: (name: string) => boolean): string | undefined {
  const shorter = name.startsWith(PREFIX) ? [name.slice(PREFIX.length)] : [];
  return [name, ...shorter, PREFIX + name].find(known);
}

function listed(what: string, names: readonly string[]): string {
  if (names.length === 0) return '';
  const more = names.length > 3 ? ` and ${names.length - 3} more` : '';
  return `${what} ${names.slice(0, 3).join(', ')}${more}`;
}
