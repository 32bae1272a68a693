// The table of one instruction set.
#include "model/cpu/table.h"

#include "model/cpu/attention.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/logprobs.h"
#include "model/cpu/norm.h"
#include "model/cpu/weight_gradient.h"

namespace troupe::kernels::cpu::CPU_CAPABILITY {

const Table& table() {
  static const Table kernels{
      .rms_norm = rms_norm,
      .rms_norm_backward = rms_norm_backward,
      .rope = rope,
      .swiglu = swiglu,
      .swiglu_backward = swiglu_backward,
      .embedding_backward = embedding_backward,
      .attention = attention,
      .attention_backward = attention_backward,
      .token_logprobs = token_logprobs,
      .token_logprobs_backward = token_logprobs_backward,
      .weight_gradient = weight_gradient,
  };
  return kernels;
}

}  // namespace troupe::kernels::cpu::CPU_CAPABILITY
