// safetensors files: a reader that maps the file and checks everything before it hands out a tensor, and a
// writer. The format: 8 bytes of header length (little endian), a JSON header, the tensors' bytes.
// https://github.com/huggingface/safetensors#format
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace troupe {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as in the file: "BF16"
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the end of the header
};

class MappedFile;

class SafetensorsFile {
 public:
  // Throws (c10::Error), naming the file and the tensor, if the file cannot be read, is truncated, or its
  // header is not what the format takes: bad JSON, sizes that do not fit the shape, tensors that overlap or
  // leave gaps.
  explicit SafetensorsFile(const std::string& path);

  // In the order of the header.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const SafetensorsEntry& entry(const std::string& name) const;

  // A view of the mapped file, which lives as long as its tensors. Pages are private: writing to the tensor
  // does not change the file.
  at::Tensor tensor(const std::string& name) const;

 private:
  std::string path_;
  std::shared_ptr<MappedFile> file_;
  uint64_t data_ = 0;  // where the tensors' bytes begin
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

// The type of a safetensors name ("BF16"), or Undefined if Troupe has none for it.
at::ScalarType safetensors_type(const std::string& name);

// Writes a file tensor by tensor, in the order of `entries` (not atomically: write elsewhere and rename), and to the
// disk. What is not finished, because of an error or of none, leaves no file. Errors name the cause.
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    at::ScalarType type;
    std::vector<int64_t> shape;
  };
  SafetensorsWriter(const std::string& path, const std::vector<Entry>& entries,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  // The next elements of the tensor that is being written, from any device: all of them, or a piece.
  void write(const at::Tensor& piece);
  void finish();

 private:
  class Output;
  std::unique_ptr<Output> output_;
};

// Writes all of `tensors` so.
void save_safetensors(const std::string& path, const std::map<std::string, at::Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata);

}  // namespace troupe
