// The JSON header of a safetensors file, to and from text. Reads exactly the shape that the format has.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace troupe {

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

// Throws std::runtime_error with the byte at which the text stops being a header.
SafetensorsHeader parse_safetensors_header(std::string_view text);

std::string write_safetensors_header(const SafetensorsHeader& header);

}  // namespace troupe
