// The table of one instruction set.
#include "kernels/cpu/table.h"

#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/logprobs.h"
#include "kernels/cpu/lora.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/observer.h"
#include "kernels/cpu/paged_attention.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/weight_gradient.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

#ifdef CPU_CAPABILITY_AVX2
constexpr FloatPanels kFloatPanels{kPanelColumns, true, float_linear};
#elif defined(CPU_CAPABILITY_AVX512)
constexpr FloatPanels kFloatPanels{kPanelColumns, false, float_linear};
#else
constexpr FloatPanels kFloatPanels{};
#endif

const Table& table() {
  static const Table kernels{
      .rms_norm = rms_norm,
      .rms_norm_backward = rms_norm_backward,
      .rope = rope,
      .swiglu = swiglu,
      .swiglu_backward = swiglu_backward,
      .embedding_backward = embedding_backward,
      .narrow_rows = narrow_rows,
      .float_panels = kFloatPanels,
      .attention = attention,
      .attention_backward = attention_backward,
      .token_logprobs = token_logprobs,
      .token_logprobs_backward = token_logprobs_backward,
      .weight_gradient = weight_gradient,
      .store_keys_values = store_keys_values,
      .paged_attention = paged_attention,
      .add_adapters = add_adapters,
      .sample = sample,
      .gram = gram,
      .step_products = step_products,
      .squared_norm = squared_norm,
  };
  return kernels;
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
