// The shape of a decoder-only transformer of the Qwen3, Qwen2 and Llama families, as native code needs it.
// src/engine reads config.json, checks it and fills this in; nothing here parses or guesses.
#pragma once

#include <cstdint>
#include <vector>

namespace troupe {

struct ModelConfig {
  int64_t hidden_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t vocabulary_size = 0;
  int64_t max_positions = 0;
  double rms_norm_eps = 1e-6;
  bool tied_embeddings = false;
  bool qkv_bias = false;     // Qwen2; Llama with attention_bias
  bool output_bias = false;  // o_proj; Llama with attention_bias
  bool mlp_bias = false;     // Llama with mlp_bias
  bool qk_norm = false;      // Qwen3: RMS norm over each head of q and k, before RoPE
  // One frequency per pair of dimensions, head_dim / 2 of them, after rope scaling (linear, llama3, yarn).
  std::vector<double> inverse_frequencies;
  double rope_scaling = 1.0;  // factor on cos and sin (yarn's attention factor)
};

}  // namespace troupe
