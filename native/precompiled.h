// Headers that nearly every file needs, compiled once. Never torch/torch.h: it takes six times as long. Nor
// autograd's: two files need them, and each file that gets them takes a second longer.
#pragma once
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>
