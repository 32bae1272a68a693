// Working memory of the kernels: uninitialized, from ATen's CPU allocator, so that it is reused from call to
// call as tensors' memory is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace troupe::kernels {

using ScratchBlock = std::unique_ptr<void, void (*)(void*)>;

// 64-byte aligned; implemented apart from native/kernels/cpu (see cpu/table.h).
ScratchBlock allocate_scratch(size_t bytes);

template <typename T>
class Scratch {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Scratch() = default;
  explicit Scratch(int64_t count) { resize(count); }

  // What was in it is lost.
  void resize(int64_t count) {
    if (count <= size_) return;
    block_ = allocate_scratch(static_cast<size_t>(count) * sizeof(T));
    size_ = count;
  }
  T* data() { return static_cast<T*>(block_.get()); }
  const T* data() const { return static_cast<const T*>(block_.get()); }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }

 private:
  ScratchBlock block_{nullptr, nullptr};
  int64_t size_ = 0;
};

}  // namespace troupe::kernels
