// accumulator += deltaᵀ x for bfloat16 on oneDNN's micro-kernels: sums stay in float32 throughout, where a
// product through ATen rounds each call's to bfloat16. A task owns some rows of the accumulator.
#include "kernels/cpu/weight_gradient.h"

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/cpu/block.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

using BFloat16 = c10::BFloat16;

constexpr int64_t kStrip = 256;        // rows of delta and x to a product
constexpr int64_t kStrips = 32;        // strips of x packed at a time
constexpr int64_t kOutputs = 128;      // rows of the accumulator to a task
constexpr int64_t kInputs = 1024;      // its columns to a task, at most
constexpr int64_t kLeastInputs = 256;  // whole panels, as all widths of tasks but the last

// Rows of one group that are multiplied at once.
struct Strip {
  int64_t row, height;
  float* accumulator;
  int64_t padded() const { return round_up(height, 32); }
};

std::vector<Strip> strips_of(std::span<const WeightGradientGroup> groups) {
  std::vector<Strip> strips;
  for (const WeightGradientGroup& group : groups) {
    for (int64_t row = group.begin; row < group.end; row += kStrip)
      strips.push_back({row, std::min(kStrip, group.end - row), group.accumulator});
  }
  return strips;
}

struct Gradient {
  int64_t outputs, inputs;
  View delta, x;
  int64_t padded_inputs = round_up(inputs, 32);
  Scratch<BFloat16> packed{};  // right operands, [strip][256 · padded_inputs]

  struct Workspace {
    Scratch<BFloat16> plain, left;
    Scratch<float> product;
  };

  static const BFloat16* at(const View& view, int64_t row) {
    return static_cast<const BFloat16*>(view.data) + row * view.row_stride;
  }

  void pack(std::span<const Strip> strips) {
    const auto count = static_cast<int64_t>(strips.size());
    packed.resize(count * kStrip * padded_inputs);
    for_tasks(
        count, [] { return Scratch<BFloat16>(); },
        [&](int64_t i, Scratch<BFloat16>& plain) {
          const Strip& strip = strips[i];
          plain.resize(kStrip * padded_inputs);
          copy_block(at(x, strip.row), x.row_stride, strip.height, inputs, strip.padded(), padded_inputs,
                     plain.data());
          pack_rows(plain.data(), strip.padded(), padded_inputs, packed.data() + i * kStrip * padded_inputs);
        });
  }

  // deltaᵀ of one strip, [padded outputs, 256].
  void transpose_strip(const Strip& strip, int64_t first_output, int64_t count, Workspace& space) const {
    const int64_t padded = round_up(count, 32);
    const BFloat16* source = at(delta, strip.row) + first_output;
    space.left.resize(padded * kStrip);
    if (padded == count && strip.padded() == strip.height) {
      transpose(source, strip.height, count, delta.row_stride, space.left.data(), kStrip);
      return;
    }
    space.plain.resize(kStrip * padded);
    copy_block(source, delta.row_stride, strip.height, count, strip.padded(), padded, space.plain.data());
    transpose(space.plain.data(), strip.padded(), padded, padded, space.left.data(), kStrip);
  }

  // A block of the accumulator of some strips of one group. `right`: their packed rows.
  void add_block(std::span<const Strip> strips, const BFloat16* right, int64_t first_output,
                 int64_t first_input, int64_t most_inputs, Workspace& space) const {
    const int64_t height = std::min(kOutputs, outputs - first_output), padded = round_up(height, 32);
    const int64_t width = std::min(most_inputs, inputs - first_input), padded_width = round_up(width, 32);
    const bool in_place = height == padded && width == padded_width;
    float* target = strips[0].accumulator + first_output * inputs + first_input;
    if (!in_place) {
      space.product.resize(padded * padded_width);
      std::fill_n(space.product.data(), padded * padded_width, 0.0F);
    }
    for (const Strip& strip : strips) {
      transpose_strip(strip, first_output, height, space);
      multiply(padded, padded_width, strip.padded(), space.left.data(), kStrip,
               right + first_input * strip.padded(), in_place ? target : space.product.data(),
               in_place ? inputs : padded_width, true);
      right += kStrip * padded_inputs;
    }
    if (in_place) return;
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) target[i * inputs + j] += space.product[i * padded_width + j];
    }
  }

  void add(std::span<const Strip> strips) {
    pack(strips);
    std::vector<size_t> starts;  // of each group's strips
    for (size_t i = 0; i < strips.size(); ++i) {
      if (i == 0 || strips[i].accumulator != strips[i - 1].accumulator) starts.push_back(i);
    }
    starts.push_back(strips.size());
    const auto groups = static_cast<int64_t>(starts.size()) - 1;
    const int64_t down = (outputs + kOutputs - 1) / kOutputs;
    // Narrow matrices, such as adapters', would leave threads without a task.
    const int64_t wanted = (at::get_num_threads() + groups * down - 1) / (groups * down);
    const int64_t most_inputs = std::clamp(round_up(inputs / wanted, kPanel), kLeastInputs, kInputs);
    const int64_t across = (inputs + most_inputs - 1) / most_inputs;
    for_tasks(
        groups * down * across, [] { return Workspace{}; },
        [&](int64_t task, Workspace& space) {
          const int64_t group = task / (down * across), block = task % (down * across);
          const size_t begin = starts[group];
          add_block(strips.subspan(begin, starts[group + 1] - begin),
                    packed.data() + static_cast<int64_t>(begin) * kStrip * padded_inputs,
                    block / across * kOutputs, block % across * most_inputs, most_inputs, space);
        });
  }
};

}  // namespace

void weight_gradient(int64_t outputs, int64_t inputs, View delta, View x,
                     std::span<const WeightGradientGroup> groups) {
  const std::vector<Strip> strips = strips_of(groups);
  Gradient gradient{outputs, inputs, delta, x};
  for (size_t i = 0; i < strips.size(); i += kStrips)
    gradient.add(std::span(strips).subspan(i, std::min<size_t>(kStrips, strips.size() - i)));
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
