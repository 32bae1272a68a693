/**
 * config.json of the Qwen3, Qwen2 and Llama families, in the spelling of transformers 4 (`rope_theta`,
 * `rope_scaling`, `torch_dtype`) and 5 (`rope_parameters`, `dtype`), checked and turned into what native code
 * needs. What the engine does not compute (sliding windows, other activations, partial rotary) is refused.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import type { NativeModelConfig } from './native-model.js';
import { type Rope, rope, ropeSchema } from './rope.js';

const FAMILIES = ['qwen3', 'qwen2', 'llama'] as const;
/** Far above any model there is: a size beyond is damage, and tables of that size would take all memory. */
const size = (most: number) => z.int().positive().max(most);

const familySchema = z.looseObject({ model_type: z.enum(FAMILIES) });

/** The keys that matter; others (token ids, dropout, …) may stand beside them. */
const configSchema = z.looseObject({
  model_type: z.enum(FAMILIES),
  hidden_size: size(2 ** 20),
  num_hidden_layers: size(2 ** 14),
  num_attention_heads: size(2 ** 14),
  num_key_value_heads: size(2 ** 14).nullish(),
  head_dim: size(2 ** 16).nullish(),
  intermediate_size: size(2 ** 24),
  vocab_size: size(2 ** 24),
  max_position_embeddings: size(2 ** 31 - 1),
  rms_norm_eps: z.number().positive().default(1e-6),
  hidden_act: z.literal('silu').default('silu'),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  use_sliding_window: z.literal(false).nullish(),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: z.record(z.string(), z.unknown()).nullish(),
  rope_parameters: z.record(z.string(), z.unknown()).nullish(),
  partial_rotary_factor: z.number().nullish(),
  quantization_config: z.looseObject({ quant_method: z.string().optional() }).nullish(),
  compression_config: z.looseObject({}).nullish(),
  transformers_weights: z.string().nullish(),
});
type ConfigJson = z.output<typeof configSchema>;

const LAYOUT = 'A model is a folder in Hugging Face layout: config.json, model.safetensors, tokenizer.json.';

/** What transformers takes where config.json says nothing. */
const DEFAULT_THETA = 10_000;

/** Reads and checks FOLDER/config.json. Throws a TroupeError that names the file, the key and what it takes. */
export function readModelConfig(folder: string): NativeModelConfig {
  const file = join(folder, 'config.json');
  return nativeModelConfig(readJson(file, LAYOUT), file);
}

/** `where` names the source in errors. */
export function nativeModelConfig(json: unknown, where = 'config.json'): NativeModelConfig {
  // First, and alone: another family's file lacks half of the keys too.
  checkSection(familySchema, json, { locate: () => where });
  const config = checkSection(configSchema, json, { locate: () => where });
  checkPlain(config, where);
  const heads = config.num_attention_heads;
  const { kvHeads, headDim } = headShape(config);
  if (heads % kvHeads !== 0) {
    throw new TroupeError(`${heads} attention heads do not divide into ${kvHeads} key-value heads.`, {
      where,
    });
  }
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw new TroupeError(`heads have ${headDim} dimensions; rotary embeddings take an even number.`, {
      where,
    });
  }
  const { inverseFrequencies, scaling } = readRope(config, headDim, where);
  return {
    hiddenSize: config.hidden_size,
    layers: config.num_hidden_layers,
    heads,
    kvHeads,
    headDim,
    intermediateSize: config.intermediate_size,
    vocabularySize: config.vocab_size,
    maxPositions: config.max_position_embeddings,
    rmsNormEps: config.rms_norm_eps,
    tiedEmbeddings: config.tie_word_embeddings ?? false,
    ...biases(config),
    qkNorm: config.model_type === 'qwen3',
    inverseFrequencies,
    ropeScaling: scaling,
  };
}

/** What transformers would read in another way than plain weights under their names. */
function checkPlain(config: ConfigJson, where: string): void {
  const quantized = config.quantization_config ?? config.compression_config;
  if (quantized) {
    throw new TroupeError(`describes quantized weights (${quantized.quant_method ?? 'compressed'}).`, {
      where,
      hint: 'The engine computes in float32 and bfloat16: take the model as it was before quantization.',
    });
  }
  if (config.transformers_weights) {
    throw new TroupeError(`takes its weights from ${config.transformers_weights} (transformers_weights).`, {
      where,
      hint: 'The engine reads model.safetensors and its index: rename the file and remove the key.',
    });
  }
}

/** transformers 5's defaults: Qwen's classes have 32 key-value heads, Qwen3 128 dimensions, where nothing is said. */
function headShape(config: ConfigJson): { kvHeads: number; headDim: number } {
  const { model_type: family, num_attention_heads: heads, num_key_value_heads: kv, head_dim: dim } = config;
  const otherwise = family === 'llama' || kv === null ? heads : 32;
  const fallback = family === 'qwen3' && dim === undefined ? 128 : config.hidden_size / heads;
  return { kvHeads: kv ?? otherwise, headDim: dim ?? fallback };
}

/** Qwen2 has biases on q, k and v always; Qwen3 and Llama on all four where attention_bias says so. */
function biases(config: ConfigJson): Pick<NativeModelConfig, 'qkvBias' | 'outputBias' | 'mlpBias'> {
  const attention = config.attention_bias ?? false;
  return {
    qkvBias: config.model_type === 'qwen2' || attention,
    outputBias: config.model_type !== 'qwen2' && attention,
    mlpBias: config.model_type === 'llama' && (config.mlp_bias ?? false),
  };
}

/**
 * transformers 5 keeps everything in rope_parameters; 4 has rope_theta beside rope_scaling, whose `type` is older still.
 * Where both are there it takes rope_scaling.
 */
function readRope(config: ConfigJson, headDim: number, where: string): Rope {
  const old = Object.keys(config.rope_scaling ?? {}).length > 0;
  const path = old || !config.rope_parameters ? 'rope_scaling' : 'rope_parameters';
  const given = config[path] ?? {};
  const partial = given.partial_rotary_factor ?? config.partial_rotary_factor ?? 1;
  if (partial !== 1) {
    throw new TroupeError(`turns a part of each head only (partial_rotary_factor ${partial}).`, {
      where,
      hint: 'The engine computes rotary embeddings of whole heads.',
    });
  }
  const nested = Object.entries(given).find(([, value]) => typeof value === 'object' && value !== null);
  if (nested !== undefined) {
    throw new TroupeError(`${path}.${nested[0]} is for some of the layers; all turn in the same way here.`, {
      where,
    });
  }
  const type = given.rope_type ?? given.type ?? 'default';
  const parameters = checkSection(
    ropeSchema,
    {
      original_max_position_embeddings: config.max_position_embeddings,
      ...given,
      rope_type: type,
      rope_theta: given.rope_theta ?? config.rope_theta ?? DEFAULT_THETA,
    },
    { path, locate: () => where },
  );
  return rope(parameters, headDim);
}
