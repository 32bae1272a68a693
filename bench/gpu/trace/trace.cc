// Begin and end of every kernel of a process, by CUPTI's activity records, for trace.sh: a library that the driver loads into it
// (CUDA_INJECTION64_PATH). At its exit TRACE_OUT gets a line for each of the last TRACE_LAST kernels, in the order in which
// they began: begin and end in nanoseconds, blocks, name, with tabs between. Kernels of a graph are there one by one.
#include <cupti.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Kernel {
  uint64_t begin, end;
  int32_t x, y, z;  // blocks
  std::string name;
};

constexpr size_t kBufferBytes = 8 << 20;

struct Trace {
  std::mutex mutex;
  std::vector<Kernel> kernels;
};
Trace& trace() {
  static Trace only;
  return only;
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = *buffer ? kBufferBytes : 0;
  *most_records = 0;  // as many as fit
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t filled) {
  const std::lock_guard<std::mutex> lock(trace().mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, filled, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto& kernel = *reinterpret_cast<const CUpti_ActivityKernel10*>(record);
    trace().kernels.push_back({kernel.start, kernel.end, kernel.gridX, kernel.gridY, kernel.gridZ,
                               kernel.name ? kernel.name : "?"});
  }
  std::free(buffer);
}

void write() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const char* const path = std::getenv("TRACE_OUT");
  const char* const last = std::getenv("TRACE_LAST");
  std::vector<Kernel>& kernels = trace().kernels;
  std::sort(kernels.begin(), kernels.end(),
            [](const Kernel& a, const Kernel& b) { return a.begin < b.begin; });
  const size_t most = last ? std::strtoull(last, nullptr, 10) : kernels.size();
  std::ofstream out(path ? path : "trace.tsv");
  for (size_t i = kernels.size() - std::min(most, kernels.size()); i < kernels.size(); ++i) {
    const Kernel& one = kernels[i];
    out << one.begin << '\t' << one.end << '\t' << one.x << ',' << one.y << ',' << one.z << '\t' << one.name
        << '\n';
  }
}

}  // namespace

extern "C" int InitializeInjection() {
  trace();  // before atexit, so that it is still there when write is called
  if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
      cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS) {
    std::cerr << "trace: CUPTI refuses to record kernels\n";
    return 0;
  }
  return std::atexit(write) == 0;
}
