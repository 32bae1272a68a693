// Times Troupe's own CUDA kernels at the 4B shape, by their launchers and CUDA events: a JSON line each, with the least
// bytes that a launch must move and their share of the rate of a copy on the device. Needs no torch. docs/cuda.md has the command.
//
//     kernel_times [SUBSTRING…] [--out FILE]     rows whose names contain one of them; all without
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "times.h"

namespace troupe::bench {
namespace {

constexpr int64_t kCopied = int64_t{512} << 20;
// Until then the first launches have been queued, so that none waits for the host.
constexpr uint64_t kHeadStart = 1'000'000;  // ns

__device__ __forceinline__ float random_number(uint64_t at) {
  at = (at + 1) * 0x9e3779b97f4a7c15u;
  at = (at ^ at >> 31) * 0xbf58476d1ce4e5b9u;
  return static_cast<float>(at >> 40) * (2.0f / (1 << 24)) - 1;
}
struct Uniform {
  __device__ float operator()(uint64_t at) const { return random_number(at); }
};
// One of 16,384 within 3 below 0, about nine of a vocabulary; the others 8 to 20 below it, the more the further, so that they
// have a twentieth of the mass.
struct Peaked {
  __device__ float operator()(uint64_t at) const {
    const float share = (random_number(at) + 1) / 2;
    return at % 16384 == 7 ? -3 * share : -8 - 12 * cbrtf(share);
  }
};
template <typename Value, typename T>
__global__ void fill_kernel(T* to, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const float value = Value{}(i);
    if constexpr (sizeof(T) == 2)
      to[i] = static_cast<T>(__float_as_uint(value) >> 16);  // bf16
    else
      to[i] = value;
  }
}
template <typename T, typename Value = Uniform>
void fill(void* to, int64_t count) {
  fill_kernel<Value><<<1024, 256>>>(static_cast<T*>(to), count);
  require(cudaGetLastError(), "fill");
}

__global__ void wait_kernel(uint64_t nanoseconds) {
  uint64_t begin, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  while (now - begin < nanoseconds);
}

int64_t size_of(Fill fill) {
  switch (fill) {
    case Fill::kBf16:
      return 2;
    case Fill::kFloat:
    case Fill::kPeakedLogits:
      return 4;
    case Fill::kDouble:
      return 8;
    case Fill::kZeroBytes:
      return 1;
  }
  return 0;
}

class Event {
 public:
  Event() { require(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record() { require(cudaEventRecord(event_), "cudaEventRecord"); }
  double microseconds_since(const Event& begin) const {
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "cudaEventElapsedTime");
    return 1e3 * milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

int copy(const Tensor& to, const Tensor& from) {
  return cudaMemcpyAsync(to[0], from[0], kCopied, cudaMemcpyDeviceToDevice);
}

// Median of the timed launches, in microseconds, of which events take part: the row "nothing" says how much.
double time_of(const Work& work, const std::string& name) {
  int launch = 0;
  for (; launch < kWarmUps; ++launch) require(work.launch(launch), name);
  std::vector<Event> begin(kTimed), end(kTimed);
  wait_kernel<<<1, 1>>>(kHeadStart);
  for (int i = 0; i < kTimed; ++i, ++launch) {
    begin[i].record();
    require(work.launch(launch), name);
    end[i].record();
  }
  require(cudaDeviceSynchronize(), name);
  std::vector<double> times;
  for (int i = 0; i < kTimed; ++i) times.push_back(end[i].microseconds_since(begin[i]));
  std::sort(times.begin(), times.end());
  return (times[kTimed / 2 - 1] + times[kTimed / 2]) / 2;
}

struct Options {
  std::vector<std::string> names;
  const char* out = nullptr;
};
Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--out") != 0) {
      options.names.emplace_back(arguments[i]);
    } else if (++i < count) {
      options.out = arguments[i];
    } else {
      throw std::runtime_error("--out needs a file");
    }
  }
  return options;
}

class Output {
 public:
  explicit Output(const char* path) : file_(path ? std::fopen(path, "w") : nullptr, &std::fclose) {
    if (path && !file_) throw std::runtime_error(std::string("cannot write ") + path);
  }
  void line(const std::string& text) const {
    std::puts(text.c_str());
    if (file_) std::fprintf(file_.get(), "%s\n", text.c_str());
    std::fflush(nullptr);
  }

 private:
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

// copy: bytes a second that a copy on the device reads and writes.
std::string json(const std::string& name, double microseconds, int64_t bytes, double copy) {
  char text[300];
  const double rate = static_cast<double>(bytes) / microseconds * 1e6;
  std::snprintf(
      text, sizeof text,
      "{\"name\":\"%s\",\"microseconds\":%.1f,\"bytes\":%lld,\"gb_per_second\":%.0f,\"of_copy\":%.2f}",
      name.c_str(), microseconds, static_cast<long long>(bytes), rate / 1e9, rate / copy);
  return text;
}

// Rows that could not be timed.
int run(const Options& options) {
  cudaDeviceProp device;
  require(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  const Output output(options.out);
  output.line(std::string("{\"device\":\"") + device.name + "\"}");
  const Tensor from(Fill::kFloat, kCopied / 4), to(Fill::kZeroBytes, kCopied);
  const double copied = time_of({2 * kCopied, [&](int) { return copy(to, from); }}, "copy");
  const double rate = 2 * kCopied / copied * 1e6;
  output.line(json("copy", copied, 2 * kCopied, rate));
  output.line(json("nothing", time_of({0, [](int) { return 0; }}, "nothing"), 0, rate));
  int failed = 0;
  for (const auto& rows : {decode_rows(), training_rows()}) {
    for (const Row& row : rows) {
      const auto has = [&](const std::string& part) { return row.name.find(part) != std::string::npos; };
      if (!options.names.empty() && std::none_of(options.names.begin(), options.names.end(), has)) continue;
      try {
        const Work work = row.prepare();
        require(copy(to, from), "copy");  // nothing of what filled the tensors stays in L2
        output.line(json(row.name, time_of(work, row.name), work.bytes, rate));
      } catch (const std::exception& error) {
        ++failed;
        output.line("{\"name\":\"" + row.name + "\",\"error\":\"" + error.what() + "\"}");
      }
    }
  }
  return failed;
}

}  // namespace

void require(int error, const std::string& what) {
  if (error != 0) throw std::runtime_error(what + ": " + kernels::cuda::error_text(error));
}

Tensor::Tensor(Fill kind, int64_t count, int sets) : bytes_(count * size_of(kind)), sets_(sets) {
  void* memory = nullptr;
  require(cudaMalloc(&memory, bytes_ * sets), "cudaMalloc of " + std::to_string(bytes_ * sets) + " bytes");
  memory_ = std::shared_ptr<void>(memory, [](void* address) { cudaFree(address); });
  switch (kind) {
    case Fill::kBf16:
      fill<uint16_t>(memory, count * sets);
      break;
    case Fill::kFloat:
      fill<float>(memory, count * sets);
      break;
    case Fill::kPeakedLogits:
      fill<float, Peaked>(memory, count * sets);
      break;
    case Fill::kDouble:
      fill<double>(memory, count * sets);
      break;
    case Fill::kZeroBytes:
      require(cudaMemset(memory, 0, bytes_ * sets), "cudaMemset");
      break;
  }
}

void Tensor::upload(const void* from) {
  require(cudaMemcpy(memory_.get(), from, bytes_, cudaMemcpyHostToDevice), "cudaMemcpy");
}

}  // namespace troupe::bench

int main(int count, char** arguments) {
  try {
    return troupe::bench::run(troupe::bench::parse(count, arguments)) == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
