// What a row of kernel_times is made of: device memory that its launches rotate through, and the launch.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"

namespace troupe::bench {

constexpr int kWarmUps = 3, kTimed = 20, kLaunches = kWarmUps + kTimed;

// The 4B shape.
constexpr int64_t kHidden = 2560, kIntermediate = 9728, kVocabulary = 151936;
constexpr int32_t kHeads = 32, kKvHeads = 8, kHeadSize = 128;
constexpr int64_t kQueryWidth = kHeads * kHeadSize, kKeyWidth = kKvHeads * kHeadSize,
                  kFusedWidth = kQueryWidth + 2 * kKeyWidth;

// Throws where `error` is none of 0.
void require(int error, const std::string& what);

enum class Fill { kBf16, kFloat, kDouble, kPeakedLogits, kZeroBytes };

// `sets` tensors of `count` elements on the device, of random numbers in [−1, 1), or of float32 as in a model's rows of logits
// (main.cc). Launch i takes set i modulo `sets`:
// where a run's kernel would not find its input in L2, neither does this one. Copies are the same memory.
class Tensor {
 public:
  Tensor(Fill fill, int64_t count, int sets = 1);
  template <typename T>
  static Tensor of(const std::vector<T>& values) {
    Tensor tensor(Fill::kZeroBytes, static_cast<int64_t>(values.size() * sizeof(T)));
    tensor.upload(values.data());
    return tensor;
  }
  void* operator[](int launch) const { return static_cast<char*>(memory_.get()) + launch % sets_ * bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_.get());
  }
  int64_t bytes() const { return bytes_; }  // of one set

 private:
  void upload(const void* from);

  int64_t bytes_;
  int sets_;
  std::shared_ptr<void> memory_;
};

// Rows of training's tensors rotate; each decode launch has weights of its own, and finds what the kernel before it wrote.
constexpr int kRotating = 3;
inline Tensor stream_of(int64_t count, Fill fill = Fill::kBf16) { return Tensor(fill, count, kRotating); }
inline Tensor weights_of(int64_t count) { return Tensor(Fill::kBf16, count, kLaunches); }
inline Tensor warm(int64_t count, Fill fill = Fill::kBf16) { return Tensor(fill, count); }

struct Work {
  int64_t bytes;                   // the least: what must come in and go out
  std::function<int(int)> launch;  // of the launch with this number, on the default stream
};
struct Row {
  std::string name;
  std::function<Work()> prepare;  // makes its tensors, which live as long as the work
};

std::vector<Row> decode_rows();
std::vector<Row> training_rows();

}  // namespace troupe::bench
