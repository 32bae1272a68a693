// accumulator += deltaᵀ x for bfloat16 on oneDNN's micro-kernels: sums stay in float32 throughout, where a
// product through ATen rounds each call's to bfloat16. A task owns some rows of the accumulator.
#include "model/cpu/weight_gradient.h"

#include <vector>

#include "model/cpu/block.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {
namespace {

using BFloat16 = c10::BFloat16;

constexpr int64_t kStrip = 256;    // rows of delta and x to a product
constexpr int64_t kRows = 8192;    // rows of x packed at a time
constexpr int64_t kOutputs = 128;  // rows of the accumulator to a task
constexpr int64_t kInputs = 1024;  // its columns to a task

struct Gradient {
  int64_t rows, outputs, inputs;
  View delta, x;
  float* accumulator;
  int64_t padded_inputs = round_up(inputs, 32);
  Scratch<BFloat16> packed{};  // right operands, [strip][256 · padded_inputs]

  struct Workspace {
    Scratch<BFloat16> plain, left;
    Scratch<float> product;
  };

  static const BFloat16* at(const View& view, int64_t row) {
    return static_cast<const BFloat16*>(view.data) + row * view.row_stride;
  }

  static int64_t padded_strip(int64_t count) { return round_up(count, 32); }

  void pack(int64_t begin, int64_t count) {
    const int64_t strips = (count + kStrip - 1) / kStrip;
    packed.resize(strips * kStrip * padded_inputs);
    for_tasks(
        strips, [] { return Scratch<BFloat16>(); },
        [&](int64_t strip, Scratch<BFloat16>& plain) {
          const int64_t first = strip * kStrip, height = std::min(kStrip, count - first);
          plain.resize(kStrip * padded_inputs);
          copy_block(at(x, begin + first), x.row_stride, height, inputs, padded_strip(height), padded_inputs,
                     plain.data());
          pack_rows(plain.data(), padded_strip(height), padded_inputs, packed.data() + first * padded_inputs);
        });
  }

  // deltaᵀ of one strip, [padded outputs, 256].
  void transpose_strip(int64_t row, int64_t height, int64_t first_output, int64_t count,
                       Workspace& space) const {
    const int64_t padded = round_up(count, 32), padded_height = padded_strip(height);
    const BFloat16* source = at(delta, row) + first_output;
    space.left.resize(padded * kStrip);
    if (padded == count && padded_height == height) {
      transpose(source, height, count, delta.row_stride, space.left.data(), kStrip);
      return;
    }
    space.plain.resize(kStrip * padded);
    copy_block(source, delta.row_stride, height, count, padded_height, padded, space.plain.data());
    transpose(space.plain.data(), padded_height, padded, padded, space.left.data(), kStrip);
  }

  void add_block(int64_t begin, int64_t count, int64_t first_output, int64_t first_input,
                 Workspace& space) const {
    const int64_t height = std::min(kOutputs, outputs - first_output), padded = round_up(height, 32);
    const int64_t width = std::min(kInputs, inputs - first_input), padded_width = round_up(width, 32);
    const bool in_place = height == padded && width == padded_width;
    float* target = accumulator + first_output * inputs + first_input;
    if (!in_place) {
      space.product.resize(padded * padded_width);
      std::fill_n(space.product.data(), padded * padded_width, 0.0F);
    }
    for (int64_t row = 0; row < count; row += kStrip) {
      const int64_t strip = std::min(kStrip, count - row);
      transpose_strip(begin + row, strip, first_output, height, space);
      const BFloat16* right = packed.data() + row * padded_inputs + first_input * padded_strip(strip);
      multiply(padded, padded_width, padded_strip(strip), space.left.data(), kStrip, right,
               in_place ? target : space.product.data(), in_place ? inputs : padded_width, true);
    }
    if (in_place) return;
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) target[i * inputs + j] += space.product[i * padded_width + j];
    }
  }

  void run() {
    const int64_t across = (inputs + kInputs - 1) / kInputs, down = (outputs + kOutputs - 1) / kOutputs;
    for (int64_t begin = 0; begin < rows; begin += kRows) {
      const int64_t count = std::min(kRows, rows - begin);
      pack(begin, count);
      for_tasks(
          across * down, [] { return Workspace{}; },
          [&](int64_t task, Workspace& space) {
            add_block(begin, count, task / across * kOutputs, task % across * kInputs, space);
          });
    }
  }
};

}  // namespace

void weight_gradient(int64_t rows, int64_t outputs, int64_t inputs, View delta, View x, float* accumulator) {
  Gradient{rows, outputs, inputs, delta, x, accumulator}.run();
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
