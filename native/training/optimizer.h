// Optimizers over parameter tensors, with groups that have their own learning rate and weight decay.
//
// A parameter in bf16 or fp16 keeps an fp32 master inside the optimizer, because at small learning rates an
// update is less than half a unit in the parameter's last place and would be lost. Gradients are given to
// step(), or fixed per group, or else read from the parameters' .grad. Schedules and clipping are the
// caller's.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/kernels.h"

namespace troupe {

struct OptimizerGroup {
  std::vector<at::Tensor> parameters;  // contiguous floating-point leaves
  double learning_rate = 0;
  double weight_decay = 0;
};

class Optimizer {
 public:
  explicit Optimizer(std::vector<OptimizerGroup> groups);
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // `gradients`: one for every parameter, group after group, in any floating-point dtype; empty: the
  // parameters' .grad. A parameter without a gradient is left alone. What throws for a gradient that does not fit or for
  // want of memory throws before anything has changed.
  void step(const std::vector<at::Tensor>& gradients = {});
  // Makes the state of every parameter that has none, as its first step would.
  void prepare();
  // Drops the parameters' .grad.
  void zero_grad();
  void set_learning_rate(int64_t group, double rate);
  int64_t step_count() const { return step_count_; }

  // State tensors by "<parameter>.<name>", parameters counted group after group; empty before the first step and
  // prepare().
  // The tensors are the optimizer's own, not copies.
  std::map<std::string, at::Tensor> state() const;
  // Copies the values in. Throws, without changing anything, if names or shapes do not fit.
  void load_state(const std::map<std::string, at::Tensor>& state, int64_t step_count);

 protected:
  // One parameter as the update sees it.
  struct Slot {
    at::Tensor parameter;
    at::Tensor master;                        // the parameter itself unless its dtype is narrower than fp32
    std::map<std::string, at::Tensor> state;  // empty until the parameter's first step
    bool narrow() const { return !master.is_same(parameter); }
  };
  // Updates the masters of one group's slots from `gradients`, which have the masters' dtype.
  virtual void update(const std::vector<Slot*>& slots, const std::vector<at::Tensor>& gradients,
                      const OptimizerGroup& group) = 0;
  virtual std::map<std::string, at::Tensor> new_state(const Slot& slot) const = 0;
  // One parameter of each of two groups; throws where there are others.
  std::pair<Slot*, Slot*> two_slots();
  const OptimizerGroup& group(size_t index) const { return groups_.at(index); }
  void count_step() { ++step_count_; }

 private:
  std::vector<OptimizerGroup> groups_;
  std::vector<std::vector<Slot>> slots_;  // by group
  int64_t step_count_ = 0;
};

// Loshchilov & Hutter 2019, as torch.optim.AdamW: p ← p − lr·wd·p − lr·m̂ / (√v̂ + eps). State: exp_avg,
// exp_avg_sq, step.
class AdamW : public Optimizer {
 public:
  AdamW(std::vector<OptimizerGroup> groups, double beta1, double beta2, double eps);

  // One step as one pass over the gradients that are added up for it (kernels/kernels.h), of an optimizer of two
  // groups with one parameter each: the parts of the flat vector step.theta with weight decay and without. Of `step`
  // are given theta, copy, clip, measure, keep_total and before_change. Where it throws before it calls that, nothing has
  // changed but the gradients.
  kernels::AdamWChange step_flat(const std::vector<at::Tensor>& vectors, std::span<const double> coefficients,
                                 std::span<const kernels::FlatRange> ranges, kernels::AdamWStep step);

 protected:
  void update(const std::vector<Slot*>& slots, const std::vector<at::Tensor>& gradients,
              const OptimizerGroup& group) override;
  std::map<std::string, at::Tensor> new_state(const Slot& slot) const override;

 private:
  double beta1_, beta2_, eps_;
};

// As torch.optim.SGD: g ← g + wd·p, b ← momentum·b + g (first step: b = g), p ← p − lr·b. State:
// momentum_buffer.
class Sgd : public Optimizer {
 public:
  Sgd(std::vector<OptimizerGroup> groups, double momentum);

 protected:
  void update(const std::vector<Slot*>& slots, const std::vector<at::Tensor>& gradients,
              const OptimizerGroup& group) override;
  std::map<std::string, at::Tensor> new_state(const Slot& slot) const override;

 private:
  double momentum_;
};

// Scales the gradients in place by max_norm / (norm + 1e-6) if that is below 1, as
// torch.nn.utils.clip_grad_norm_; returns the Euclidean norm before, summed in fp64. A norm that is not
// finite scales nothing.
double clip_grad_norm(const std::vector<at::Tensor>& gradients, double max_norm);

}  // namespace troupe
