// Random weights from a counter: philox-4x32-10 keyed by the seed, one stream per parameter, so that the
// result depends neither on threads nor on the order of parameters.
#include <ATen/Parallel.h>
#include <ATen/core/PhiloxRNGEngine.h>

#include <cmath>
#include <numbers>
#include <string_view>

#include "model/parameters.h"

namespace troupe {
namespace {

constexpr int64_t kChunk = 1 << 16;  // elements drawn at a time, a multiple of 4

// FNV-1a of the name: a parameter's stream.
uint64_t stream_of(std::string_view name) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

// (0, 1]: never 0, whose logarithm is infinite.
float unit(uint32_t bits) { return (static_cast<float>(bits >> 8) + 1.0f) * 0x1p-24f; }

// Four numbers from the counter's block: Normal(0, 1) by Box and Muller, or uniform in [−1, 1].
void draw(uint64_t seed, uint64_t stream, int64_t block, bool normal, float* out) {
  at::Philox4_32 generator(seed, stream, static_cast<uint64_t>(block));
  uint32_t bits[4];
  for (uint32_t& word : bits) word = generator();
  for (int i = 0; i < 4; i += 2) {
    if (!normal) {
      out[i] = 2.0f * unit(bits[i]) - 1.0f;
      out[i + 1] = 2.0f * unit(bits[i + 1]) - 1.0f;
      continue;
    }
    const float radius = std::sqrt(-2.0f * std::log(unit(bits[i])));
    const float angle = 2.0f * std::numbers::pi_v<float> * unit(bits[i + 1]);
    out[i] = radius * std::cos(angle);
    out[i + 1] = radius * std::sin(angle);
  }
}

void fill(const at::Tensor& weight, uint64_t seed, uint64_t stream, bool normal, double scale) {
  const at::Tensor flat = weight.view({-1});
  const int64_t chunks = (flat.numel() + kChunk - 1) / kChunk;
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    const at::Tensor buffer = at::empty({kChunk}, at::kFloat);
    float* values = buffer.mutable_data_ptr<float>();
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t start = chunk * kChunk, length = std::min(kChunk, flat.numel() - start);
      for (int64_t i = 0; i < length; i += 4) draw(seed, stream, (start + i) / 4, normal, values + i);
      flat.narrow(0, start, length).copy_(buffer.narrow(0, 0, length).mul_(scale));
    }
  });
}

}  // namespace

void initialize(ParameterSet& parameters, uint64_t seed, double std) {
  const at::NoGradGuard no_grad;
  const ParameterLayout& layout = parameters.layout();
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    const ParameterSpec& spec = layout.parameters[i];
    const at::ScalarType type =
        (parameters.trainable() ? parameters.master() : parameters.compute()).scalar_type();
    const at::Tensor weight = at::empty(spec.shape, type);
    if (spec.name.ends_with(".lora_B.weight") || spec.name.ends_with(".bias")) {
      weight.zero_();
    } else if (spec.kind == ModuleKind::kNorm) {
      weight.fill_(1);
    } else if (spec.name.ends_with(".lora_A.weight")) {
      fill(weight, seed, stream_of(spec.name), /*normal=*/false,
           1 / std::sqrt(static_cast<double>(spec.shape[1])));
    } else {
      fill(weight, seed, stream_of(spec.name), /*normal=*/true, std);
    }
    parameters.write(static_cast<int64_t>(i), weight);
  }
  parameters.commit();
}

}  // namespace troupe
