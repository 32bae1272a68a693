#include "source.h"

#include <cctype>
#include <cstring>
#include <sstream>

namespace troupe::kernels::cuda::ptx {
namespace {

bool starts(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }
std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}
std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> all;
  for (std::string word; in >> word;) all.push_back(word);
  return all;
}

size_t bytes_of(const std::string& type) {  // .b8, u32, …
  const size_t digits = type.find_first_of("0123456789");
  if (digits == std::string::npos) throw Fault("a type without a size: " + type);
  return std::stoul(type.substr(digits)) / 8;
}

// `.align N .bM name[count]`, or `.uM name`: the size and alignment, and the name.
struct Variable {
  std::string name;
  size_t bytes = 0, alignment = 0;
};
Variable variable(const std::vector<std::string>& all, size_t at) {
  Variable result;
  if (all.at(at) == ".align") {
    result.alignment = std::stoul(all.at(at + 1));
    at += 2;
  }
  const size_t element = bytes_of(all.at(at));
  std::string name = all.at(at + 1);
  const size_t bracket = name.find('[');
  size_t count = 1;
  if (bracket != std::string::npos) {
    const std::string digits = name.substr(bracket + 1, name.find(']') - bracket - 1);
    count = digits.empty() ? 0 : std::stoul(digits);
    name = name.substr(0, bracket);
  }
  while (!name.empty() && std::strchr(";,", name.back())) name.pop_back();
  result.name = name;
  result.bytes = element * count;
  if (result.alignment == 0) result.alignment = element;
  return result;
}

class Parser {
 public:
  Parser(std::string file, const std::string& text) : file_(std::move(file)), in_(text) {}

  std::vector<KernelText> parse() {
    for (std::string line; next(line);) {
      try {
        take(line);
      } catch (const std::exception& error) {
        throw Fault(file_ + ":" + std::to_string(number_) + ": " + error.what() + ": " + line);
      }
    }
    if (depth_ != 0) throw Fault(file_ + ": ends in the middle of a kernel");
    return std::move(kernels_);
  }

 private:
  bool next(std::string& line) {
    std::string raw;
    if (!std::getline(in_, raw)) return false;
    ++number_;
    line = trimmed(raw.substr(0, raw.find("//")));
    return true;
  }

  void take(const std::string& line) {
    if (line.empty()) return;
    if (depth_ > 0)
      body(line);
    else if (in_head_)
      head(line);
    else
      outside(line);
  }

  void outside(const std::string& line) {
    for (const char* known : {".version", ".target", ".address_size"})
      if (starts(line, known)) return;
    const std::vector<std::string> all = words(line);
    size_t entry = 0;
    while (entry < all.size() && all[entry] != ".entry") ++entry;
    if (entry < all.size()) {
      kernels_.emplace_back();
      kernel().file = file_;
      kernel().name = all.at(entry + 1).substr(0, all[entry + 1].find('('));
      kernel().shared = shared_;
      in_head_ = true;
      return;
    }
    if (!shared(line, shared_)) throw Fault("not known outside of a kernel");
  }

  bool shared(const std::string& line, std::map<std::string, Shared>& to) {
    std::vector<std::string> all = words(line);
    const bool dynamic = all[0] == ".extern";
    if (dynamic) all.erase(all.begin());
    if (all[0] != ".shared") return false;
    const Variable found = variable(all, 1);
    to[found.name] = {found.bytes, found.alignment, dynamic};
    return true;
  }

  void head(const std::string& line) {
    const std::vector<std::string> all = words(line);
    if (all[0] == ".param") {
      const Variable found = variable(all, 1);
      kernel().parameters.push_back({found.name, found.bytes, found.alignment});
    } else if (all[0] == ".maxntid") {
      kernel().most_threads = std::stoi(all.at(1));
      if (all.size() > 2 && (all.at(2) != "1," || all.at(3) != "1"))
        throw Fault("a block of several dimensions");
    } else if (all[0] == "{") {
      in_head_ = false;
      depth_ = 1;
    } else if (all[0] != ")" && all[0] != ".minnctapersm") {
      throw Fault("not known in a kernel's head");
    }
  }

  void body(const std::string& line) {
    if (line == "{") {
      ++depth_;
    } else if (line == "}") {
      --depth_;
    } else if (line[0] == '$' && line.back() == ':') {
      kernel().labels[line.substr(0, line.size() - 1)] = kernel().statements.size();
    } else {
      // Of inline assembly several on one line, and in braces.
      std::string rest = line;
      while (!rest.empty()) {
        if (rest[0] == '{' || rest[0] == '}') {
          rest = trimmed(rest.substr(1));
          continue;
        }
        const size_t end = rest.find(';');
        if (end == std::string::npos) throw Fault("a statement without its end");
        statement(rest.substr(0, end));
        rest = trimmed(rest.substr(end + 1));
      }
    }
  }

  void statement(const std::string& text) {
    if (starts(text, ".pragma")) return;
    if (shared(text, kernel().shared)) return;
    if (starts(text, ".reg")) return registers(words(text));
    Statement result;
    result.line = number_;
    result.text = text;
    std::string rest = text;
    if (rest[0] == '@') {
      const size_t end = rest.find_first_of(" \t");
      result.negated = rest[1] == '!';
      result.guard = rest.substr(result.negated ? 2 : 1, end - (result.negated ? 2 : 1));
      rest = trimmed(rest.substr(end));
    }
    const size_t end = rest.find_first_of(" \t");
    result.operation = rest.substr(0, end);
    if (end != std::string::npos) operands(rest.substr(end), result.operands);
    kernel().statements.push_back(std::move(result));
  }

  void registers(const std::vector<std::string>& all) {
    const std::string type = all.at(1).substr(1);
    const std::string& name = all.at(2);
    auto [at, fresh] = kernel().registers.emplace(name.substr(0, name.find('<')), type);
    if (!fresh && at->second != type) throw Fault("one name for registers of two types");
  }

  static void operands(const std::string& text, std::vector<Operand>& to) {
    std::string now;
    bool address = false;
    const auto end = [&] {
      if (!now.empty()) to.push_back(operand(now, address));
      now.clear();
    };
    for (const char c : text) {
      if (c == '[') address = true;
      if (std::strchr(" \t{}[],|", c)) end();
      if (c == ']') address = false;
      if (!std::strchr(" \t{}[],|", c)) now += c;
    }
    end();
  }

  static Operand operand(const std::string& text, bool address) {
    Operand result;
    result.address = address;
    std::string name = text;
    if (address) {
      const size_t plus = text.find('+');
      if (plus != std::string::npos) result.offset = std::stoll(text.substr(plus + 1));
      name = text.substr(0, plus);
    }
    result.name = name;
    if (name[0] == '%') {
      result.kind = OperandKind::kRegister;
    } else if (starts(name, "0f") || starts(name, "0F") || starts(name, "0d") || starts(name, "0D")) {
      result.kind = OperandKind::kNumber;
      result.number = std::stoull(name.substr(2), nullptr, 16);
    } else if (std::isdigit(static_cast<unsigned char>(name[0])) || name[0] == '-') {
      result.kind = OperandKind::kNumber;
      result.number = name[0] == '-' ? static_cast<uint64_t>(std::stoll(name, nullptr, 0))
                                     : std::stoull(name, nullptr, 0);
    } else {
      result.kind = OperandKind::kSymbol;
    }
    return result;
  }

  KernelText& kernel() { return kernels_.back(); }

  std::string file_;
  std::istringstream in_;
  int number_ = 0, depth_ = 0;
  bool in_head_ = false;
  std::map<std::string, Shared> shared_;
  std::vector<KernelText> kernels_;
};

}  // namespace

std::vector<KernelText> parse(const std::string& file, const std::string& text) {
  return Parser(file, text).parse();
}

}  // namespace troupe::kernels::cuda::ptx
