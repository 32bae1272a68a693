/**
 * A GGUF model as a Hugging Face folder: configuration, weights under Hugging Face's names, tokenizer, chat
 * template. Families llama and qwen3. Files are written whole or not at all.
 */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { shown } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { writeAll } from '../config/files.js';
import { GgufFile, type GgufTensor, type GgufValue } from './gguf.js';
import { ggufTokenizer } from './gguf-tokenizer.js';
import { writeFolder } from './whole-folder.js';

export interface ImportOptions {
  dtype: 'float32' | 'bfloat16';
}

interface Family {
  modelType: string;
  architecture: string;
  /** llama.cpp stores q and k of Llama models with each head's rotary pairs side by side. */
  permuted: boolean;
}

const FAMILIES: Record<string, Family> = {
  llama: { modelType: 'llama', architecture: 'LlamaForCausalLM', permuted: true },
  qwen3: { modelType: 'qwen3', architecture: 'Qwen3ForCausalLM', permuted: false },
};

const LAYER_NAMES: Record<string, string> = {
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};
const TOP_NAMES: Record<string, string> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
};
/** Tables that llama.cpp keeps and Hugging Face computes. */
const COMPUTED = new Set(['rope_freqs.weight']);

/** Converts `path` into the folder `folder`. Throws a TroupeError for what cannot be converted. */
export function importGguf(path: string, folder: string, options: ImportOptions): void {
  const file = new GgufFile(path);
  try {
    const keys = new Keys(file);
    const family = FAMILIES[keys.text('general.architecture')];
    if (family === undefined) {
      const architecture = keys.text('general.architecture');
      throw keys.error(
        `holds the architecture ${architecture}; ${Object.keys(FAMILIES).join(' and ')} can be imported.`,
      );
    }
    const config = modelConfig(keys, family, file, options);
    const tokenizer = ggufTokenizer(file);
    writeFolder(folder, (temporary) => {
      const write = (name: string, value: unknown) =>
        writeFileSync(join(temporary, name), `${JSON.stringify(value, null, 2)}\n`);
      write('config.json', config);
      write('generation_config.json', {
        eos_token_id: config.eos_token_id,
        bos_token_id: config.bos_token_id,
      });
      write('tokenizer_config.json', tokenizer.config);
      writeFileSync(join(temporary, 'tokenizer.json'), JSON.stringify(tokenizer.json));
      if (tokenizer.chatTemplate !== undefined) {
        writeFileSync(join(temporary, 'chat_template.jinja'), tokenizer.chatTemplate);
      }
      writeWeights(file, keys, family, join(temporary, 'model.safetensors'), options);
    });
  } finally {
    file.close();
  }
}

/** Typed look-ups in the metadata. */
class Keys {
  readonly #file: GgufFile;

  constructor(file: GgufFile) {
    this.#file = file;
  }

  error(message: string): TroupeError {
    return new TroupeError(message, { where: this.#file.path });
  }

  optional(key: string): GgufValue | undefined {
    return this.#file.metadata.get(key);
  }

  number(key: string): number {
    const value = this.optional(key);
    if (typeof value !== 'number' && typeof value !== 'bigint') throw this.error(`lacks the number ${key}.`);
    // Stored as fp32: 9.99999974e-6 is 1e-5.
    return Number(Number(value).toPrecision(7));
  }

  text(key: string): string {
    const value = this.optional(key);
    if (typeof value !== 'string') throw this.error(`lacks the text ${key}.`);
    return value;
  }
}

function modelConfig(keys: Keys, family: Family, file: GgufFile, options: ImportOptions) {
  const prefix = keys.text('general.architecture');
  const number = (key: string) => keys.number(`${prefix}.${key}`);
  if (keys.optional(`${prefix}.rope.scaling.type`) !== undefined) {
    throw keys.error(`scales its rotary embeddings (${prefix}.rope.scaling.type), which is not imported.`);
  }
  const heads = number('attention.head_count');
  const keyLength = keys.optional(`${prefix}.attention.key_length`);
  const embedding = file.tensors.find(({ name }) => name === 'token_embd.weight');
  return {
    architectures: [family.architecture],
    model_type: family.modelType,
    hidden_size: number('embedding_length'),
    num_hidden_layers: number('block_count'),
    num_attention_heads: heads,
    num_key_value_heads: number('attention.head_count_kv'),
    head_dim: keyLength === undefined ? number('embedding_length') / heads : Number(keyLength),
    intermediate_size: number('feed_forward_length'),
    vocab_size: embedding?.shape[0] ?? number('vocab_size'),
    max_position_embeddings: number('context_length'),
    rms_norm_eps: number('attention.layer_norm_rms_epsilon'),
    rope_theta: keys.optional(`${prefix}.rope.freq_base`) === undefined ? 10_000 : number('rope.freq_base'),
    hidden_act: 'silu',
    attention_bias: file.tensors.some(({ name }) => name === 'blk.0.attn_q.bias'),
    mlp_bias: false,
    tie_word_embeddings: !file.tensors.some(({ name }) => name === 'output.weight'),
    bos_token_id: keys.number('tokenizer.ggml.bos_token_id'),
    eos_token_id: keys.number('tokenizer.ggml.eos_token_id'),
    torch_dtype: options.dtype,
  };
}

/** Hugging Face's name of a tensor, or undefined for tables that are not weights. */
function translate(name: string, keys: Keys): string | undefined {
  if (COMPUTED.has(name)) return undefined;
  const top = TOP_NAMES[name];
  if (top !== undefined) return top;
  const [, layer, part, kind] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const module = LAYER_NAMES[part ?? ''];
  if (module === undefined)
    throw keys.error(`holds ${shown(name)}, which this architecture does not have here.`);
  return `model.layers.${layer}.${module}.${kind}`;
}

function writeWeights(
  file: GgufFile,
  keys: Keys,
  family: Family,
  path: string,
  { dtype }: ImportOptions,
): void {
  const bytes = dtype === 'float32' ? 4 : 2;
  const entries = file.tensors.flatMap((tensor) => {
    const name = translate(tensor.name, keys);
    return name === undefined ? [] : [{ name, tensor }];
  });
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const { name, tensor } of entries) {
    const end = offset + tensor.elements * bytes;
    header[name] = {
      dtype: dtype === 'float32' ? 'F32' : 'BF16',
      shape: tensor.shape,
      data_offsets: [offset, end],
    };
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const descriptor = openSync(path, 'w');
  try {
    writeAll(descriptor, length);
    writeAll(descriptor, padded);
    for (const { tensor } of entries) {
      const values = unpermuted(tensor, file.read(tensor), keys, family);
      writeAll(descriptor, dtype === 'float32' ? bytesOf(values) : bytesOf(toBfloat16(values)));
    }
  } finally {
    closeSync(descriptor);
  }
}

function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Rounds to nearest, ties to even. */
export function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const rounded = new Uint16Array(bits.length);
  // Plain loop: the iterator that Uint16Array.from takes costs a hundred times as much. NaN stays NaN.
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i] as number;
    const noNumber = (word & 0x7fffffff) > 0x7f800000;
    rounded[i] = noNumber ? 0x7fc0 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return rounded;
}

/**
 * llama.cpp permutes rows of q and k from (head, half, pair) to (head, pair, half); this is the way back.
 * Rows [heads · dim], each of `columns` values; biases have one column.
 */
function unpermuted(tensor: GgufTensor, values: Float32Array, keys: Keys, family: Family): Float32Array {
  const [, which] = /\.attn_([qk])\.(?:weight|bias)$/.exec(tensor.name) ?? [];
  if (!family.permuted || which === undefined) return values;
  const heads = keys.number(`llama.attention.head_count${which === 'k' ? '_kv' : ''}`);
  const [rows = 0, columns = 1] = tensor.shape;
  const dim = rows / heads;
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const head = Math.floor(row / dim);
    const within = row % dim;
    const half = within >= dim / 2 ? 1 : 0;
    const source = head * dim + (within - half * (dim / 2)) * 2 + half;
    result.set(values.subarray(source * columns, (source + 1) * columns), row * columns);
  }
  return result;
}
