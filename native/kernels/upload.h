// Arrays of different types brought to a device in one copy. What a pass brings there comes by upload.cc or waits.cc (a
// test reads the sources), so that tests can count how often it does: on the CPU too.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::kernels {

class Upload {
 public:
  // After send(), `into` holds the values on the device: a view of the upload's buffer. It must stay where it
  // is until then.
  template <typename T>
  void add(std::span<const T> values, at::Tensor& into) {
    add(values.data(), static_cast<int64_t>(values.size()), c10::CppTypeToScalarType<T>::value, into);
  }
  template <typename T>
  void add(const std::vector<T>& values, at::Tensor& into) {
    add(std::span<const T>(values), into);
  }
  // To a GPU by pinned memory, without waiting; into `buffer` where it is defined. Returns the buffer.
  at::Tensor send(const at::Device& device, at::Tensor buffer = {});

 private:
  struct Part {
    int64_t begin, bytes;
    at::ScalarType dtype;
    at::Tensor* into;
  };
  void add(const void* values, int64_t count, at::ScalarType dtype, at::Tensor& into);

  std::vector<uint8_t> bytes_;
  std::vector<Part> parts_;
};

// Told of every copy from the host's memory.
void count_upload();
// How often the host has copied to a device since the process began.
int64_t uploads();

}  // namespace troupe::kernels
