// cuBLASLt's ways to compute a product of bf16 numbers, one by one. Which of them is taken: measured_products.cc.
#include "kernels/cuda/product_candidates.h"

#ifdef TROUPE_CUDA
#include <c10/cuda/CUDAException.h>
#include <dlfcn.h>

#include <map>
#include <vector>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda_kernels.h"
#else
#include "kernels/cuda/emulation/planted_products.h"
#endif

namespace troupe::kernels::cuda {

#ifdef TROUPE_CUDA
namespace {

// Of which the heuristic names the likeliest; on an H100 it names 8 of these shapes.
constexpr int kMostCandidates = 8;
// Beside those that torch's own products have on each stream. As large as theirs on an H100.
constexpr uint64_t kWorkspace = 32 << 20;
// Of every group of parameters (model/parameters.cc); what a step computes is an allocation of its own.
constexpr uint32_t kAlignment = 64;

struct Lt {
  lt::Functions call{};
  std::string problem;  // "": none
};

Lt load_lt() {
  Lt loaded;
  // The one that libtorch itself computes with, whatever its version: a name is looked up in libtorch_cuda and in what that
  // depends on.
  void* const torch = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  lt::for_functions(loaded.call, [&]<typename Function>(const char* name, Function& function) {
    function = torch ? reinterpret_cast<Function>(dlsym(torch, name)) : nullptr;
    if (!function && loaded.problem.empty())
      loaded.problem = std::string("this libtorch's cuBLASLt has no ") + name;
  });
  return loaded;
}

const Lt& loaded_lt() {
  static const Lt loaded = load_lt();
  return loaded;
}

// A descriptor of the library's.
using Descriptor = std::unique_ptr<void, int (*)(void*)>;

void check_lt(int status, const char* what) {
  TORCH_CHECK(status == lt::kSuccess, "cuBLASLt's ", what, " failed with status ", status);
}

template <typename... Parameters, typename... Arguments>
Descriptor made(const char* what, int (*destroy)(void*), int (*create)(void**, Parameters...),
                Arguments... arguments) {
  void* result = nullptr;
  check_lt(create(&result, arguments...), what);
  return {result, destroy};
}

// What a thread's products share on one device. They run one after another, on one stream, and so in one workspace, which
// recordings have the address of: it stays as long as the thread.
class LtWorkplace {
 public:
  explicit LtWorkplace(const at::Tensor& x)
      : workspace_(at::empty({static_cast<int64_t>(kWorkspace)}, x.options().dtype(at::kByte))),
        product_(made("product", call_.cublasLtMatmulDescDestroy, call_.cublasLtMatmulDescCreate,
                      lt::kComputeFloat, lt::kFloat)),
        preference_(
            made("preference", call_.cublasLtMatmulPreferenceDestroy, call_.cublasLtMatmulPreferenceCreate)) {
    // Never destroyed, as libtorch's are not: the process may end the driver first.
    check_lt(call_.cublasLtCreate(&handle_), "handle");
    check_lt(call_.cublasLtMatmulDescSetAttribute(product_.get(), lt::kTransposeA, &lt::kTransposed,
                                                  sizeof lt::kTransposed),
             "product");
    prefer(lt::kMostWorkspace, kWorkspace);
    prefer(lt::kReductionSchemes, lt::kReductionInComputeType);
    for (const int operand : lt::kAlignments) prefer(operand, kAlignment);
  }

  Descriptor matrix(int64_t rows, int64_t columns) const {
    return made("matrix", call_.cublasLtMatrixLayoutDestroy, call_.cublasLtMatrixLayoutCreate, lt::kBf16,
                static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows);
  }
  // Empty where the library has none for these sizes.
  std::vector<lt::Algorithm> algorithms(void* a, void* b, void* c) const {
    lt::Heuristic found[kMostCandidates];
    int count = 0;
    if (call_.cublasLtMatmulAlgoGetHeuristic(handle_, product_.get(), a, b, c, c, preference_.get(),
                                             kMostCandidates, found, &count) != lt::kSuccess)
      return {};
    std::vector<lt::Algorithm> algorithms;
    for (int i = 0; i < count; ++i) {
      if (found[i].status == lt::kSuccess && found[i].workspace <= kWorkspace)
        algorithms.push_back(found[i].algorithm);
    }
    return algorithms;
  }
  bool multiply(const lt::Algorithm& algorithm, const void* weight, void* a, const void* x, void* b, void* y,
                void* c, Stream stream) const {
    const float one = 1, zero = 0;
    return call_.cublasLtMatmul(handle_, product_.get(), &one, weight, a, x, b, &zero, y, c, y, c, &algorithm,
                                workspace_.data_ptr(), kWorkspace, stream) == lt::kSuccess;
  }

 private:
  template <typename T>
  void prefer(int attribute, T value) {
    check_lt(call_.cublasLtMatmulPreferenceSetAttribute(preference_.get(), attribute, &value, sizeof value),
             "preference");
  }

  const lt::Functions& call_ = loaded_lt().call;
  at::Tensor workspace_;
  Descriptor product_, preference_;
  void* handle_ = nullptr;
};

std::shared_ptr<const LtWorkplace> workplace_of(const at::Tensor& x) {
  thread_local std::map<c10::DeviceIndex, std::shared_ptr<const LtWorkplace>> workplaces;
  std::shared_ptr<const LtWorkplace>& found = workplaces[x.get_device()];
  if (!found) found = std::make_shared<const LtWorkplace>(x);
  return found;
}

bool lies_well(const at::Tensor& x) {
  return x.is_contiguous() && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % kAlignment == 0;
}

class LtCandidates : public ProductCandidates {
 public:
  // Rows of a matrix are the library's columns: y = x Wᵀ is its C = Aᵀ B, of A = W and B = x.
  LtCandidates(const at::Tensor& x, const at::Tensor& weight)
      : workplace_(workplace_of(x)),
        a_(workplace_->matrix(weight.size(1), weight.size(0))),
        b_(workplace_->matrix(x.size(1), x.size(0))),
        c_(workplace_->matrix(weight.size(0), x.size(0))),
        algorithms_(workplace_->algorithms(a_.get(), b_.get(), c_.get())) {}

  int32_t count() const override { return static_cast<int32_t>(algorithms_.size()); }
  bool take(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& y) const override {
    return lies_well(x) && lies_well(weight) && lies_well(y);
  }
  bool run(int32_t which, const at::Tensor& x, const at::Tensor& weight, at::Tensor& y) const override {
    const On on(x);
    const bool ran = workplace_->multiply(algorithms_.at(which), weight.const_data_ptr(), a_.get(),
                                          x.const_data_ptr(), b_.get(), y.data_ptr(), c_.get(), on);
    // The runtime's memory of the refusal: the next kernel's launch would be blamed for it. A fault of the device stays.
    if (!ran) static_cast<void>(cudaGetLastError());
    return ran;
  }

 private:
  std::shared_ptr<const LtWorkplace> workplace_;
  Descriptor a_, b_, c_;
  std::vector<lt::Algorithm> algorithms_;
};

}  // namespace

std::unique_ptr<ProductCandidates> product_candidates(const at::Tensor& x, const at::Tensor& weight) {
  if (!loaded_lt().problem.empty()) return nullptr;
  const On on(x);
  return std::make_unique<LtCandidates>(x, weight);
}

std::string no_product_candidates() { return loaded_lt().problem; }

#else

std::unique_ptr<ProductCandidates> product_candidates(const at::Tensor&, const at::Tensor&) {
  return emulation::planted_candidates();
}

std::string no_product_candidates() { return ""; }

#endif

}  // namespace troupe::kernels::cuda
