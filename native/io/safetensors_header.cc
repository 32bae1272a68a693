#include "io/safetensors_header.h"

#include <limits>
#include <set>
#include <stdexcept>

namespace troupe {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  SafetensorsHeader header() {
    SafetensorsHeader result;
    std::set<std::string> names;
    object([&](std::string name) {
      if (!names.insert(name).second) fail("\"" + name + "\" appears twice");
      if (name == "__metadata__") {
        object([&](std::string key) { result.metadata[std::move(key)] = string(); });
      } else {
        result.entries.push_back(entry(std::move(name)));
      }
    });
    space();
    if (at_ != text_.size()) fail("text after the end");
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(what + " (byte " + std::to_string(at_) + " of the header)");
  }

  void space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }

  bool take(char c) {
    space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!take(c)) fail(std::string("expected '") + c + "'");
  }

  // Calls `member` with each key, at its value.
  template <typename Member>
  void object(Member member) {
    expect('{');
    if (take('}')) return;
    do {
      std::string key = string();
      expect(':');
      member(std::move(key));
    } while (take(','));
    expect('}');
  }

  SafetensorsEntry entry(std::string name) {
    SafetensorsEntry result;
    result.name = std::move(name);
    std::set<std::string> seen;
    object([&](std::string key) {
      seen.insert(key);
      if (key == "dtype") {
        result.dtype = string();
      } else if (key == "shape") {
        for (const uint64_t size : integers()) result.shape.push_back(static_cast<int64_t>(size));
      } else if (key == "data_offsets") {
        const std::vector<uint64_t> offsets = integers();
        if (offsets.size() != 2) fail("data_offsets of \"" + result.name + "\" are not two numbers");
        result.begin = offsets[0];
        result.end = offsets[1];
      } else {
        fail("unknown key \"" + key + "\" in \"" + result.name + "\"");
      }
    });
    if (seen.size() != 3) fail("\"" + result.name + "\" lacks dtype, shape or data_offsets");
    return result;
  }

  std::vector<uint64_t> integers() {
    std::vector<uint64_t> result;
    expect('[');
    if (take(']')) return result;
    do {
      result.push_back(integer());
    } while (take(','));
    expect(']');
    return result;
  }

  uint64_t integer() {
    space();
    constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
    const size_t begin = at_;
    uint64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const auto digit = static_cast<uint64_t>(text_[at_] - '0');
      if (value > (kMost - digit) / 10) fail("a number is too large");
      value = value * 10 + digit;
    }
    if (at_ == begin) fail("expected a whole number");
    return value;
  }

  std::string string() {
    expect('"');
    std::string result;
    while (true) {
      if (at_ >= text_.size()) fail("a string does not end");
      const char c = text_[at_++];
      if (c == '"') return result;
      if (c == '\\') {
        escape(result);
      } else {
        result.push_back(c);
      }
    }
  }

  void escape(std::string& result) {
    if (at_ >= text_.size()) fail("a string does not end");
    static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    const char c = text_[at_++];
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      result.push_back(kTo[i]);
    } else if (c == 'u') {
      append_utf8(result, code_point());
    } else {
      fail("unknown escape in a string");
    }
  }

  // Behind \u: one code unit, or the two of a surrogate pair.
  uint32_t code_point() {
    const uint32_t first = code_unit();
    if (first < 0xD800 || first >= 0xE000) return first;
    const bool paired = first < 0xDC00 && text_.substr(at_, 2) == "\\u";
    if (paired) at_ += 2;
    const uint32_t second = paired ? code_unit() : 0;
    if (second < 0xDC00 || second >= 0xE000) fail("half of a surrogate pair in a string");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  uint32_t code_unit() {
    if (at_ + 4 > text_.size()) fail("a string does not end");
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const size_t digit = std::string_view("0123456789abcdefABCDEF").find(text_[at_++]);
      if (digit == std::string_view::npos) fail("bad \\u in a string");
      value = value * 16 + static_cast<uint32_t>(digit < 16 ? digit : digit - 6);
    }
    return value;
  }

  static void append_utf8(std::string& out, uint32_t point) {
    const auto tail = [&](int shift) { out.push_back(static_cast<char>(0x80 | ((point >> shift) & 0x3F))); };
    if (point < 0x80) {
      out.push_back(static_cast<char>(point));
    } else if (point < 0x800) {
      out.push_back(static_cast<char>(0xC0 | (point >> 6)));
      tail(0);
    } else if (point < 0x10000) {
      out.push_back(static_cast<char>(0xE0 | (point >> 12)));
      tail(6);
      tail(0);
    } else {
      out.push_back(static_cast<char>(0xF0 | (point >> 18)));
      tail(12);
      tail(6);
      tail(0);
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result.push_back('\\');
      result.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      static constexpr char kDigits[] = "0123456789abcdef";
      result += std::string("\\u00") + kDigits[c >> 4] + kDigits[c & 15];
    } else {
      result.push_back(c);
    }
  }
  return result + "\"";
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text) { return Parser(text).header(); }

std::string write_safetensors_header(const SafetensorsHeader& header) {
  std::string text = "{";
  if (!header.metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : header.metadata) text += quoted(key) + ":" + quoted(value) + ",";
    text.back() = '}';
    text += ",";
  }
  for (const SafetensorsEntry& entry : header.entries) {
    std::string shape;
    for (const int64_t size : entry.shape) {
      if (!shape.empty()) shape += ',';
      shape += std::to_string(size);
    }
    text += quoted(entry.name) + ":{\"dtype\":" + quoted(entry.dtype) + ",\"shape\":[" + shape +
            "],\"data_offsets\":[" + std::to_string(entry.begin) + "," + std::to_string(entry.end) + "]},";
  }
  if (text.back() == ',') text.pop_back();
  return text + "}";
}

}  // namespace troupe
