#include "training/optimizer.h"

#include <cmath>
#include <set>

namespace troupe {
namespace {

bool is_narrow(at::ScalarType type) { return type == at::kBFloat16 || type == at::kHalf; }

void check_group(const OptimizerGroup& group, size_t index) {
  TORCH_CHECK(std::isfinite(group.learning_rate) && group.learning_rate >= 0, "group ", index,
              ": the learning rate must be 0 or more, not ", group.learning_rate);
  TORCH_CHECK(std::isfinite(group.weight_decay) && group.weight_decay >= 0, "group ", index,
              ": the weight decay must be 0 or more, not ", group.weight_decay);
  for (const at::Tensor& parameter : group.parameters) {
    TORCH_CHECK(parameter.is_floating_point(), "group ", index, ": a parameter of type ",
                parameter.scalar_type(), " cannot be trained");
    TORCH_CHECK(parameter.is_leaf(), "group ", index,
                ": a parameter is a result of other tensors, not a leaf");
    TORCH_CHECK(parameter.is_contiguous(), "group ", index, ": a parameter is not contiguous");
  }
}

void check_gradient(const at::Tensor& gradient, const at::Tensor& parameter, size_t group, size_t i) {
  TORCH_CHECK(gradient.sizes() == parameter.sizes(), "group ", group, ": the gradient of parameter ", i,
              " has the shape ", gradient.sizes(), " but the parameter has ", parameter.sizes());
  TORCH_CHECK(gradient.is_floating_point(), "group ", group, ": the gradient of parameter ", i,
              " has the type ", gradient.scalar_type());
}

std::string state_name(size_t parameter, const std::string& name) {
  return std::to_string(parameter) + "." + name;
}

}  // namespace

Optimizer::Optimizer(std::vector<OptimizerGroup> groups) : groups_(std::move(groups)) {
  const at::NoGradGuard no_grad;
  std::set<const void*> seen;
  for (size_t g = 0; g < groups_.size(); ++g) {
    OptimizerGroup& group = groups_[g];
    check_group(group, g);
    std::vector<Slot>& slots = slots_.emplace_back();
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      const at::Tensor& parameter = group.parameters[i];
      TORCH_CHECK(seen.insert(parameter.unsafeGetTensorImpl()).second, "group ", g, ": parameter ", i,
                  " was given twice");
      slots.push_back({parameter,
                       is_narrow(parameter.scalar_type()) ? parameter.detach().to(at::kFloat) : parameter,
                       {}});
    }
  }
}

void Optimizer::step(const std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_grad;
  size_t count = 0;
  for (const auto& slots : slots_) count += slots.size();
  TORCH_CHECK(gradients.empty() || gradients.size() == count, "there are ", count, " parameters but ",
              gradients.size(), " gradients");
  // All are checked before the first parameter changes.
  std::vector<std::vector<Slot*>> active(groups_.size());
  std::vector<std::vector<at::Tensor>> taken(groups_.size());
  size_t next = 0;
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (size_t i = 0; i < slots_[g].size(); ++i, ++next) {
      Slot& slot = slots_[g][i];
      const at::Tensor gradient = gradients.empty() ? slot.parameter.grad() : gradients[next];
      if (!gradient.defined()) continue;
      check_gradient(gradient, slot.parameter, g, i);
      active[g].push_back(&slot);
      taken[g].push_back(gradient.detach().to(slot.master.device(), slot.master.scalar_type()).contiguous());
    }
  }
  // And all have their memory.
  for (const auto& slots : active) {
    for (Slot* slot : slots) {
      if (slot->state.empty()) slot->state = new_state(*slot);
    }
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (active[g].empty()) continue;
    update(active[g], taken[g], groups_[g]);
    for (Slot* slot : active[g]) {
      if (slot->narrow()) slot->parameter.copy_(slot->master);
    }
  }
  ++step_count_;
}

void Optimizer::prepare() {
  const at::NoGradGuard no_grad;
  for (auto& slots : slots_) {
    for (Slot& slot : slots) {
      if (slot.state.empty()) slot.state = new_state(slot);
    }
  }
}

std::pair<Optimizer::Slot*, Optimizer::Slot*> Optimizer::two_slots() {
  TORCH_CHECK(slots_.size() == 2 && slots_[0].size() == 1 && slots_[1].size() == 1,
              "a flat vector is stepped by an optimizer of two groups with one parameter each");
  return {&slots_[0][0], &slots_[1][0]};
}

void Optimizer::zero_grad() {
  const at::NoGradGuard no_grad;
  for (auto& slots : slots_) {
    for (Slot& slot : slots) {
      slot.parameter.mutable_grad().reset();
    }
  }
}

void Optimizer::set_learning_rate(int64_t group, double rate) {
  TORCH_CHECK(group >= 0 && group < static_cast<int64_t>(groups_.size()), "there is no group ", group,
              " among ", groups_.size());
  TORCH_CHECK(std::isfinite(rate) && rate >= 0, "the learning rate must be 0 or more, not ", rate);
  groups_[group].learning_rate = rate;
}

std::map<std::string, at::Tensor> Optimizer::state() const {
  std::map<std::string, at::Tensor> result;
  size_t index = 0;
  for (const auto& slots : slots_) {
    for (const Slot& slot : slots) {
      for (const auto& [name, tensor] : slot.state) result[state_name(index, name)] = tensor;
      // The master holds bits that the parameter does not.
      if (slot.narrow() && !slot.state.empty()) result[state_name(index, "master")] = slot.master;
      ++index;
    }
  }
  return result;
}

void Optimizer::load_state(const std::map<std::string, at::Tensor>& state, int64_t step_count) {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(step_count >= 0, "the step count must be 0 or more, not ", step_count);
  size_t used = 0, index = 0;
  std::vector<std::pair<Slot*, std::map<std::string, at::Tensor>>> loaded;
  for (auto& slots : slots_) {
    for (Slot& slot : slots) {
      std::map<std::string, at::Tensor> fresh = new_state(slot);
      if (slot.narrow()) fresh["master"] = at::empty_like(slot.master);
      size_t found = 0;
      for (auto& [name, tensor] : fresh) {
        const auto given = state.find(state_name(index, name));
        if (given == state.end()) continue;
        TORCH_CHECK(given->second.sizes() == tensor.sizes(), "optimizer state ", given->first,
                    " has the shape ", given->second.sizes(), " but should have ", tensor.sizes());
        tensor.copy_(given->second);
        ++found;
      }
      TORCH_CHECK(found == 0 || found == fresh.size(), "the optimizer state of parameter ", index,
                  " is incomplete");
      used += found;
      loaded.emplace_back(&slot, found == 0 ? std::map<std::string, at::Tensor>() : std::move(fresh));
      ++index;
    }
  }
  TORCH_CHECK(used == state.size(), "the optimizer state has ", state.size(), " tensors, of which ", used,
              " belong to its ", index, " parameters");
  for (auto& [slot, fresh] : loaded) {
    if (const auto master = fresh.find("master"); slot->narrow() && master != fresh.end()) {
      slot->master = master->second;
      slot->parameter.copy_(slot->master);
      fresh.erase(master);
    }
    slot->state = std::move(fresh);
  }
  step_count_ = step_count;
}

AdamW::AdamW(std::vector<OptimizerGroup> groups, double beta1, double beta2, double eps)
    : Optimizer(std::move(groups)), beta1_(beta1), beta2_(beta2), eps_(eps) {
  TORCH_CHECK(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "betas must lie in [0, 1), not ", beta1,
              " and ", beta2);
  TORCH_CHECK(std::isfinite(eps) && eps >= 0, "eps must be 0 or more, not ", eps);
}

std::map<std::string, at::Tensor> AdamW::new_state(const Slot& slot) const {
  const auto options = slot.master.options().requires_grad(false);
  return {{"exp_avg", at::zeros(slot.master.sizes(), options)},
          {"exp_avg_sq", at::zeros(slot.master.sizes(), options)},
          {"step", at::zeros({}, options.dtype(at::kFloat))}};
}

void AdamW::update(const std::vector<Slot*>& slots, const std::vector<at::Tensor>& gradients,
                   const OptimizerGroup& group) {
  // The kernel takes lists of one dtype and device: they go separately.
  std::map<std::pair<at::ScalarType, std::string>, kernels::AdamWTensors> lists;
  for (size_t i = 0; i < slots.size(); ++i) {
    Slot& slot = *slots[i];
    kernels::AdamWTensors& list = lists[{slot.master.scalar_type(), slot.master.device().str()}];
    list.parameters.push_back(slot.master);
    list.gradients.push_back(gradients[i]);
    list.averages.push_back(slot.state.at("exp_avg"));
    list.squares.push_back(slot.state.at("exp_avg_sq"));
    list.steps.push_back(slot.state.at("step") + 1);
  }
  for (const auto& [key, list] : lists) {
    kernels::kernels_for(list.parameters[0])
        .adamw(list, group.learning_rate, beta1_, beta2_, eps_, group.weight_decay);
  }
  // Counted when it has happened.
  for (Slot* slot : slots) slot->state.at("step").add_(1);
}

kernels::AdamWChange AdamW::step_flat(const std::vector<at::Tensor>& vectors,
                                      std::span<const double> coefficients,
                                      std::span<const kernels::FlatRange> ranges, kernels::AdamWStep step) {
  const at::NoGradGuard no_grad;
  const auto [decayed, plain] = two_slots();
  const at::Tensor& theta = step.theta;
  step.decay_size = decayed->master.numel();
  const auto lies_at = [&](const at::Tensor& part, int64_t begin) {
    return part.scalar_type() == theta.scalar_type() &&
           (part.numel() == 0 || part.data_ptr() == theta.narrow(0, begin, part.numel()).data_ptr());
  };
  TORCH_CHECK(step.decay_size + plain->master.numel() == theta.numel() && lies_at(decayed->master, 0) &&
                  lies_at(plain->master, step.decay_size),
              "the optimizer's two parameters are not the flat vector of ", theta.numel(), " parameters");
  TORCH_CHECK(group(0).learning_rate == group(1).learning_rate && group(1).weight_decay == 0,
              "the two parts of a flat vector have one learning rate, and the second has no weight decay");
  step.learning_rate = group(0).learning_rate;
  step.weight_decay = group(0).weight_decay;
  step.beta1 = beta1_;
  step.beta2 = beta2_;
  step.eps = eps_;
  step.step = step_count() + 1;
  for (Slot* slot : {decayed, plain}) {
    if (slot->state.empty()) slot->state = new_state(*slot);
    step.averages.push_back(slot->state.at("exp_avg"));
    step.squares.push_back(slot->state.at("exp_avg_sq"));
  }
  kernels::AdamWChange change = kernels::kernels_for(theta).adamw_step(vectors, coefficients, ranges, step);
  for (Slot* slot : {decayed, plain}) slot->state.at("step").fill_(static_cast<double>(step.step));
  count_step();
  return change;
}

Sgd::Sgd(std::vector<OptimizerGroup> groups, double momentum)
    : Optimizer(std::move(groups)), momentum_(momentum) {
  TORCH_CHECK(momentum >= 0 && momentum < 1, "momentum must lie in [0, 1), not ", momentum);
}

std::map<std::string, at::Tensor> Sgd::new_state(const Slot& slot) const {
  // momentum · 0 + g = g: the first step needs no case of its own.
  return {{"momentum_buffer", at::zeros(slot.master.sizes(), slot.master.options().requires_grad(false))}};
}

void Sgd::update(const std::vector<Slot*>& slots, const std::vector<at::Tensor>& gradients,
                 const OptimizerGroup& group) {
  for (size_t i = 0; i < slots.size(); ++i) {
    Slot& slot = *slots[i];
    at::Tensor& buffer = slot.state.at("momentum_buffer");
    buffer.mul_(momentum_).add_(gradients[i]);
    if (group.weight_decay != 0) buffer.add_(slot.master, group.weight_decay);
    slot.master.sub_(buffer, group.learning_rate);
  }
}

double clip_grad_norm(const std::vector<at::Tensor>& gradients, double max_norm) {
  TORCH_CHECK(max_norm > 0, "maxNorm must be more than 0, not ", max_norm);
  const at::NoGradGuard no_grad;
  // Sums of squares in fp64: fp32 sums of a piece whose squares differ in size by many orders (a new
  // adapter's) are off by more than the 1e-5 that the gradient identity allows.
  std::map<std::string, std::vector<at::Tensor>> by_device;
  for (const at::Tensor& gradient : gradients) {
    TORCH_CHECK(gradient.is_floating_point(), "a gradient of type ", gradient.scalar_type(),
                " cannot be clipped");
    by_device[gradient.device().str()].push_back(gradient);
  }
  double sum = 0;
  for (const auto& [device, list] : by_device) sum += kernels::kernels_for(list[0]).squared_norm(list);
  const double norm = std::sqrt(sum);
  const double scale = max_norm / (norm + 1e-6);
  if (std::isfinite(norm) && scale < 1) {
    for (at::Tensor gradient : gradients) gradient.mul_(scale);
  }
  return norm;
}

}  // namespace troupe
