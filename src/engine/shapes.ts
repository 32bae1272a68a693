/**
 * config.json of published models, for random-weight models of their shape, and of the embedded small ones.
 * Numbers as in the model's own config.json on the Hugging Face hub (instruction-tuned variant).
 */
import { END_OF_TEXT, END_OF_TURN, SMALL_WORDS, smallVocabulary } from './small-tokenizer.js';

type ConfigJson = Record<string, unknown>;

/** hidden, intermediate, layers, heads, key-value heads */
type Sizes = readonly [number, number, number, number, number];

function sizes([hidden, intermediate, layers, heads, kvHeads]: Sizes) {
  return {
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
  };
}

const common = { attention_dropout: 0, hidden_act: 'silu', initializer_range: 0.02, use_cache: true };

function qwen3(shape: Sizes, tied: boolean): ConfigJson {
  return {
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    ...common,
    ...sizes(shape),
    attention_bias: false,
    bos_token_id: 151643,
    eos_token_id: 151645,
    head_dim: 128,
    max_position_embeddings: 40960,
    max_window_layers: shape[2],
    rms_norm_eps: 1e-6,
    rope_scaling: null,
    rope_theta: 1_000_000,
    sliding_window: null,
    tie_word_embeddings: tied,
    torch_dtype: 'bfloat16',
    transformers_version: '4.51.0',
    use_sliding_window: false,
    vocab_size: 151936,
  };
}

function qwen2(shape: Sizes, vocabulary: number, tied: boolean, windowLayers: number): ConfigJson {
  return {
    architectures: ['Qwen2ForCausalLM'],
    model_type: 'qwen2',
    ...common,
    ...sizes(shape),
    bos_token_id: 151643,
    eos_token_id: 151645,
    max_position_embeddings: 32768,
    max_window_layers: windowLayers,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
    sliding_window: 32768,
    tie_word_embeddings: tied,
    torch_dtype: 'bfloat16',
    transformers_version: '4.43.1',
    use_sliding_window: false,
    vocab_size: vocabulary,
  };
}

function llama3(shape: Sizes, headDim: number, factor: number, tied: boolean): ConfigJson {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    ...common,
    ...sizes(shape),
    attention_bias: false,
    bos_token_id: 128000,
    eos_token_id: [128001, 128008, 128009],
    head_dim: headDim,
    max_position_embeddings: 131072,
    mlp_bias: false,
    rms_norm_eps: 1e-5,
    rope_scaling: {
      factor,
      high_freq_factor: 4,
      low_freq_factor: 1,
      original_max_position_embeddings: 8192,
      rope_type: 'llama3',
    },
    rope_theta: 500_000,
    tie_word_embeddings: tied,
    torch_dtype: 'bfloat16',
    vocab_size: 128256,
  };
}

function smollm2(shape: Sizes, theta: number): ConfigJson {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    ...common,
    ...sizes(shape),
    attention_bias: false,
    bos_token_id: 1,
    eos_token_id: 2,
    max_position_embeddings: 8192,
    mlp_bias: false,
    pad_token_id: 2,
    rms_norm_eps: 1e-5,
    rope_scaling: null,
    rope_theta: theta,
    tie_word_embeddings: true,
    torch_dtype: 'bfloat16',
    vocab_size: 49152,
  };
}

/** The embedded models: Qwen3's architecture over the small tokenizer. */
function troupe(shape: Sizes, headDim: number): ConfigJson {
  const vocabulary = smallVocabulary(SMALL_WORDS).length;
  return {
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    ...common,
    ...sizes(shape),
    attention_bias: false,
    bos_token_id: END_OF_TEXT,
    eos_token_id: END_OF_TURN,
    head_dim: headDim,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    tie_word_embeddings: true,
    torch_dtype: 'float32',
    // A multiple of 16: aligned rows of the head.
    vocab_size: Math.ceil(vocabulary / 16) * 16,
  };
}

export const SHAPES: Record<string, ConfigJson> = {
  'qwen3-0.6b': qwen3([1024, 3072, 28, 16, 8], true),
  'qwen3-1.7b': qwen3([2048, 6144, 28, 16, 8], true),
  'qwen3-4b': qwen3([2560, 9728, 36, 32, 8], true),
  'qwen3-8b': qwen3([4096, 12288, 36, 32, 8], false),
  'qwen3-14b': qwen3([5120, 17408, 40, 40, 8], false),
  'qwen3-32b': qwen3([5120, 25600, 64, 64, 8], false),
  'qwen2.5-0.5b': qwen2([896, 4864, 24, 14, 2], 151936, true, 21),
  'qwen2.5-1.5b': qwen2([1536, 8960, 28, 12, 2], 151936, true, 21),
  'qwen2.5-3b': qwen2([2048, 11008, 36, 16, 2], 151936, true, 70),
  'qwen2.5-7b': qwen2([3584, 18944, 28, 28, 4], 152064, false, 28),
  'llama-3.2-1b': llama3([2048, 8192, 16, 32, 8], 64, 32, true),
  'llama-3.2-3b': llama3([3072, 8192, 28, 24, 8], 128, 32, true),
  'llama-3.1-8b': llama3([4096, 14336, 32, 32, 8], 128, 8, false),
  'smollm2-135m': smollm2([576, 1536, 30, 9, 3], 100_000),
  'smollm2-360m': smollm2([960, 2560, 32, 15, 5], 100_000),
  'smollm2-1.7b': smollm2([2048, 8192, 24, 32, 32], 130_000),
  'troupe-0.3m': troupe([64, 192, 5, 4, 2], 16),
  'troupe-1m': troupe([128, 352, 5, 4, 2], 32),
};

/** Shapes that are trained with the small tokenizer; the others come with their publisher's. */
export const isEmbedded = (shape: string) => shape.startsWith('troupe-');
