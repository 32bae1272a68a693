#include "io/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "io/safetensors_header.h"
#include "kernels/waits.h"

namespace troupe {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMostHeader = 100'000'000;  // the format's own limit

struct TypeName {
  at::ScalarType type;
  const char* name;
  uint64_t bytes;  // 0: unknown to Troupe
};
constexpr TypeName kTypes[] = {
    {at::kDouble, "F64", 8}, {at::kFloat, "F32", 4}, {at::kBFloat16, "BF16", 2}, {at::kHalf, "F16", 2},
    {at::kLong, "I64", 8},   {at::kInt, "I32", 4},   {at::kByte, "U8", 1},       {at::kBool, "BOOL", 1},
};

const TypeName* find_type(const std::string& name) {
  const auto found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeName& t) { return t.name == name; });
  return found == std::end(kTypes) ? nullptr : found;
}

const TypeName& name_of(at::ScalarType type, const std::string& tensor) {
  const auto found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeName& t) { return t.type == type; });
  TORCH_CHECK(found != std::end(kTypes), "tensor \"", tensor, "\" of type ", type,
              " cannot be saved as safetensors");
  return *found;
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }
  // Closes now; whether that worked (a full network disk may only say so here).
  bool close() { return ::close(std::exchange(value_, -1)) == 0; }

 private:
  int value_;
};

// Checks one entry against its shape and the bytes that there are.
void check_entry(const std::string& path, const SafetensorsEntry& entry, uint64_t data_bytes) {
  TORCH_CHECK(entry.begin <= entry.end, path, ": tensor \"", entry.name, "\" ends before it begins");
  TORCH_CHECK(entry.end <= data_bytes, path, ": tensor \"", entry.name, "\" ends at byte ", entry.end,
              " of the data, but the file holds ", data_bytes, ": it is truncated or damaged");
  const TypeName* type = find_type(entry.dtype);
  if (type == nullptr) return;  // An error only when it is asked for.
  uint64_t bytes = type->bytes;
  for (const int64_t size : entry.shape) {
    TORCH_CHECK(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes), path, ": tensor \"",
                entry.name, "\" has an impossible shape");
  }
  TORCH_CHECK(bytes == entry.end - entry.begin, path, ": tensor \"", entry.name, "\" takes ", bytes,
              " bytes (", entry.dtype, " ", at::IntArrayRef(entry.shape), ") but has ",
              entry.end - entry.begin);
}

// Every byte of the data belongs to exactly one tensor.
void check_coverage(const std::string& path, const std::vector<SafetensorsEntry>& entries,
                    uint64_t data_bytes) {
  std::vector<const SafetensorsEntry*> sorted;
  for (const SafetensorsEntry& entry : entries) sorted.push_back(&entry);
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t at = 0;
  for (const SafetensorsEntry* entry : sorted) {
    TORCH_CHECK(entry->begin >= at, path, ": tensor \"", entry->name, "\" overlaps another");
    TORCH_CHECK(entry->begin == at, path, ": ", entry->begin - at, " bytes before tensor \"", entry->name,
                "\" belong to none");
    at = entry->end;
  }
  TORCH_CHECK(at == data_bytes, path, ": ", data_bytes - at, " bytes after the last tensor belong to none");
}

void write_all(const Descriptor& file, const void* data, uint64_t bytes, const std::string& path) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(file.get(), at, std::min<uint64_t>(bytes, 1 << 30));
    if (written < 0 && errno == EINTR) continue;
    TORCH_CHECK(written >= 0, "cannot write ", path, ": ", std::strerror(errno));
    at += written;
    bytes -= static_cast<uint64_t>(written);
  }
}

}  // namespace

class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    TORCH_CHECK(file.get() >= 0, "cannot open ", path, ": ", std::strerror(errno));
    struct stat status {};
    TORCH_CHECK(::fstat(file.get(), &status) == 0, "cannot read ", path, ": ", std::strerror(errno));
    TORCH_CHECK(S_ISREG(status.st_mode), "cannot read ", path, ": not a file");
    size_ = static_cast<uint64_t>(status.st_size);
    TORCH_CHECK(size_ >= kLengthBytes, path, " is no safetensors file: it has ", size_, " bytes");
    // Private and writable, so that nothing that is done to a tensor can crash the process or change the
    // file.
    void* address =
        ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
    TORCH_CHECK(address != MAP_FAILED, "cannot map ", path, ": ", std::strerror(errno));
    bytes_ = static_cast<uint8_t*>(address);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (bytes_ != nullptr) ::munmap(bytes_, size_);
  }
  uint8_t* bytes() const { return bytes_; }
  uint64_t size() const { return size_; }

 private:
  uint8_t* bytes_ = nullptr;
  uint64_t size_ = 0;
};

at::ScalarType safetensors_type(const std::string& name) {
  const TypeName* type = find_type(name);
  return type == nullptr ? at::ScalarType::Undefined : type->type;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : path_(path), file_(std::make_shared<MappedFile>(path)) {
  uint64_t length = 0;
  std::memcpy(&length, file_->bytes(), kLengthBytes);
  TORCH_CHECK(length <= kMostHeader, path, " is no safetensors file: its header would have ", length,
              " bytes");
  TORCH_CHECK(length <= file_->size() - kLengthBytes, path, ": the header has ", length,
              " bytes but the file only ", file_->size() - kLengthBytes, ": it is truncated");
  data_ = kLengthBytes + length;
  try {
    SafetensorsHeader header =
        parse_safetensors_header({reinterpret_cast<const char*>(file_->bytes()) + kLengthBytes, length});
    entries_ = std::move(header.entries);
    metadata_ = std::move(header.metadata);
  } catch (const std::runtime_error& error) {
    TORCH_CHECK(false, path, ": bad safetensors header: ", error.what());
  }
  for (const SafetensorsEntry& entry : entries_) check_entry(path, entry, file_->size() - data_);
  check_coverage(path, entries_, file_->size() - data_);
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const SafetensorsEntry& entry) { return entry.name == name; });
  TORCH_CHECK(found != entries_.end(), path_, " has no tensor \"", name, "\"");
  return *found;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& found = entry(name);
  const TypeName* type = find_type(found.dtype);
  TORCH_CHECK(type != nullptr, path_, ": tensor \"", name, "\" has the dtype ", found.dtype,
              ", which is not supported (F64, F32, BF16, F16, I64, I32, U8 and BOOL are)");
  uint8_t* address = file_->bytes() + data_ + found.begin;
  const auto options = at::TensorOptions().dtype(type->type);
  if (reinterpret_cast<uintptr_t>(address) % type->bytes == 0) {
    return at::from_blob(
        address, found.shape, [file = file_](void*) {}, options);
  }
  // The format does not promise alignment, kernels need it.
  const at::Tensor copy = at::empty(found.shape, options);
  std::memcpy(copy.mutable_data_ptr(), address, found.end - found.begin);
  return copy;
}

class SafetensorsWriter::Output {
 public:
  Output(const std::string& path, std::vector<SafetensorsEntry> entries, std::vector<at::ScalarType> types)
      : path_(path),
        file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)),
        entries_(std::move(entries)),
        types_(std::move(types)) {
    TORCH_CHECK(file_.get() >= 0, "cannot create ", path, ": ", std::strerror(errno));
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() {
    struct stat status {};
    if (!finished_ && ::stat(path_.c_str(), &status) == 0 && S_ISREG(status.st_mode)) ::unlink(path_.c_str());
  }

  void write_header(const SafetensorsHeader& header) {
    std::string text = write_safetensors_header(header);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t length = text.size();
    write_all(file_, &length, kLengthBytes, path_);
    write_all(file_, text.data(), text.size(), path_);
  }

  void write(const at::Tensor& piece) {
    if (piece.numel() == 0) return;  // its entry ends where it begins, and is skipped below
    while (next_ < entries_.size() && at_ == entries_[next_].end) ++next_;
    TORCH_CHECK(next_ < entries_.size() && at_ + piece.nbytes() <= entries_[next_].end &&
                    piece.scalar_type() == types_[next_],
                path_, ": ", piece.numel(), " elements of ", piece.scalar_type(), " are not what comes next");
    const at::Tensor bytes = kernels::to_host(piece.detach()).contiguous();
    write_all(file_, bytes.const_data_ptr(), bytes.nbytes(), path_);
    at_ += bytes.nbytes();
  }

  void finish() {
    TORCH_CHECK(entries_.empty() || at_ == entries_.back().end, path_, ": a tensor was not written");
    TORCH_CHECK(::fsync(file_.get()) == 0 || errno == EINVAL, "cannot write ", path_, ": ",
                std::strerror(errno));
    TORCH_CHECK(file_.close(), "cannot write ", path_, ": ", std::strerror(errno));
    finished_ = true;
  }

 private:
  std::string path_;
  Descriptor file_;
  std::vector<SafetensorsEntry> entries_;
  std::vector<at::ScalarType> types_;
  bool finished_ = false;
  size_t next_ = 0;
  uint64_t at_ = 0;  // bytes of data so far
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<Entry>& entries,
                                     const std::map<std::string, std::string>& metadata) {
  SafetensorsHeader header{{}, metadata};
  std::vector<at::ScalarType> types;
  uint64_t at = 0;
  for (const Entry& entry : entries) {
    TORCH_CHECK(entry.name != "__metadata__", "__metadata__ cannot name a tensor");
    const TypeName& type = name_of(entry.type, entry.name);
    uint64_t end = type.bytes;
    bool fits = true;
    for (const int64_t size : entry.shape) {
      fits = fits && size >= 0 && !__builtin_mul_overflow(end, static_cast<uint64_t>(size), &end);
    }
    TORCH_CHECK(fits && !__builtin_add_overflow(end, at, &end), path, ": tensor \"", entry.name,
                "\" has an impossible shape, ", at::IntArrayRef(entry.shape));
    header.entries.push_back({entry.name, type.name, entry.shape, at, end});
    types.push_back(entry.type);
    at = end;
  }
  output_ = std::make_unique<Output>(path, header.entries, std::move(types));
  output_->write_header(header);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const at::Tensor& piece) { output_->write(piece); }

void SafetensorsWriter::finish() { output_->finish(); }

void save_safetensors(const std::string& path, const std::map<std::string, at::Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  // Larger elements first: then every tensor is aligned to its element size.
  std::vector<const std::pair<const std::string, at::Tensor>*> order;
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->second.element_size() > b->second.element_size();
  });
  std::vector<SafetensorsWriter::Entry> entries;
  for (const auto* item : order)
    entries.push_back({item->first, item->second.scalar_type(), item->second.sizes().vec()});
  SafetensorsWriter writer(path, entries, metadata);
  for (const auto* item : order) writer.write(item->second);
  writer.finish();
}

}  // namespace troupe
