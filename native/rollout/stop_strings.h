// Finds stop strings in a growing response, across token boundaries, in bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::rollout {

class StopStrings {
 public:
  StopStrings() = default;
  explicit StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
    for (const auto& s : strings_) longest_ = std::max(longest_, s.size());
  }

  // Appends a token's bytes; true if a stop string ends in them (or lies in them).
  bool append(std::string_view bytes) {
    if (strings_.empty()) return false;
    tail_ += bytes;
    bool found = false;
    for (const auto& s : strings_) found = found || tail_.find(s) != std::string::npos;
    // A string still to come can reach back by all but its last byte.
    if (tail_.size() >= longest_) tail_.erase(0, tail_.size() - (longest_ - 1));
    return found;
  }

 private:
  std::vector<std::string> strings_;
  size_t longest_ = 0;
  std::string tail_;
};

}  // namespace troupe::rollout
