// From a kernel's text to instructions whose operands are places in a warp's registers.
#include <cstring>

#include "isa.h"

namespace troupe::kernels::cuda::ptx {
namespace {

const Table& table() {
  static const Table all = [] {
    Table table;
    add_integers(table);
    add_floats(table);
    add_memory(table);
    add_warp(table);
    return table;
  }();
  return all;
}

constexpr uint32_t kFixed = 1u << 31;  // of a place until it is known where the fixed ones begin
constexpr size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

class Decoder {
 public:
  explicit Decoder(KernelText text) { program_.text = std::move(text); }

  Program decode() {
    place_parameters();
    place_shared();
    const std::vector<Statement>& statements = program_.text.statements;
    for (size_t i = 0; i < statements.size(); ++i) {
      try {
        program_.code.push_back(decode(statements[i], static_cast<int>(i)));
      } catch (const std::exception& error) {
        throw Fault(program_.text.file + ":" + std::to_string(statements[i].line) + ": " + error.what() +
                    ": " + statements[i].text);
      }
    }
    const auto before = static_cast<uint32_t>(program_.register_bytes);
    for (Instruction& in : program_.code) {
      for (uint32_t& place : in.at)
        if (place & kFixed) place = before + (place & ~kFixed);
    }
    return std::move(program_);
  }

 private:
  void place_parameters() {
    size_t at = 0;
    for (const Parameter& parameter : program_.text.parameters) {
      at = round_up(at, parameter.alignment);
      program_.parameter_offsets.push_back(at);
      at += parameter.bytes;
    }
    program_.parameter_bytes = at;
  }

  // Static variables that the kernel uses, and behind them what the launch gives.
  void place_shared() {
    size_t at = 0;
    std::string dynamic;
    for (const auto& [name, variable] : program_.text.shared) {
      if (!uses(name)) continue;
      if (variable.dynamic) {
        dynamic = name;
        continue;
      }
      at = round_up(at, variable.alignment);
      shared_[name] = kSharedBase + at;
      at += variable.bytes;
    }
    if (!dynamic.empty()) {
      at = round_up(at, program_.text.shared.at(dynamic).alignment);
      shared_[dynamic] = kSharedBase + at;
    }
    program_.static_shared = at;
  }
  bool uses(const std::string& name) const {
    for (const Statement& statement : program_.text.statements) {
      for (const Operand& operand : statement.operands)
        if (operand.name == name) return true;
    }
    return false;
  }

  Instruction decode(const Statement& statement, int number) {
    Instruction in;
    in.statement = number;
    if (!statement.guard.empty()) {
      in.guard = register_place(statement.guard, 'p');
      in.guarded = true;
      in.negated = statement.negated;
    }
    const auto found = table().find(statement.operation);
    if (found == table().end()) throw Fault("not known to the interpreter");
    for (const Entry& entry : found->second) {
      if (!fits(entry.signature, statement.operands)) continue;
      in.run = entry.run;
      for (size_t i = 0; i < statement.operands.size(); ++i)
        take(entry.signature[i], statement.operands[i], i, in);
      return in;
    }
    throw Fault("its operands are not known to the interpreter");
  }

  bool fits(const std::string& signature, const std::vector<Operand>& operands) const {
    if (signature.size() != operands.size()) return false;
    for (size_t i = 0; i < operands.size(); ++i)
      if (!fits(signature[i], operands[i])) return false;
    return true;
  }
  bool fits(char letter, const Operand& operand) const {
    const bool address = std::strchr("GSP", letter) != nullptr;
    if (operand.address != address) return false;
    const char width = address ? (letter == 'S' ? 'w' : 'd') : letter;
    switch (operand.kind) {
      case OperandKind::kRegister:
        return letter_of(operand.name) == width;
      case OperandKind::kNumber:
        return letter == 'i' || std::strchr("whdp", letter) != nullptr;
      case OperandKind::kSymbol:
        if (letter == 'l') return program_.text.labels.contains(operand.name);
        return shared_.contains(operand.name) ? width == 'w' : width == 'd' && parameter(operand.name) >= 0;
    }
    return false;
  }

  char letter_of(const std::string& name) const {
    if (name.find('.') != std::string::npos || name == "%laneid") return 'w';
    const auto& registers = program_.text.registers;
    auto found = registers.find(name);
    if (found == registers.end()) found = registers.find(name.substr(0, name.find_first_of("0123456789")));
    if (found == registers.end()) throw Fault("no register " + name);
    const std::string& type = found->second;
    if (type == "pred") return 'p';
    return type.ends_with("64") ? 'd' : type.ends_with("32") ? 'w' : 'h';
  }

  void take(char letter, const Operand& operand, size_t i, Instruction& in) {
    if (operand.address) in.offset = operand.offset;
    if (letter == 'l') {
      in.target = static_cast<int>(program_.text.labels.at(operand.name));
    } else if (letter == 'i') {
      in.number = static_cast<int64_t>(operand.number);
    } else if (operand.kind == OperandKind::kRegister) {
      in.at[i] = register_place(operand.name, letter);
    } else if (operand.kind == OperandKind::kNumber) {
      in.at[i] = number_place(letter, operand.number);
    } else if (shared_.contains(operand.name)) {
      in.at[i] = number_place('w', shared_.at(operand.name));
    } else {
      in.at[i] = parameter_place(static_cast<size_t>(parameter(operand.name)));
    }
  }

  int parameter(const std::string& name) const {
    for (size_t i = 0; i < program_.text.parameters.size(); ++i)
      if (program_.text.parameters[i].name == name) return static_cast<int>(i);
    return -1;
  }

  uint32_t register_place(const std::string& name, char letter) {
    if (name.find('.') != std::string::npos || name == "%laneid") {
      const auto [at, fresh] = program_.special.emplace(name, 0);
      if (fresh) at->second = fixed(kLanes * 4);
      return at->second | kFixed;
    }
    const auto [at, fresh] = places_.emplace(name, static_cast<uint32_t>(program_.register_bytes));
    if (fresh)
      program_.register_bytes += letter == 'd' || letter == 'G' || letter == 'P' ? kLanes * 8
                                 : letter == 'p'                                 ? 64
                                                                                 : kLanes * 4;
    return at->second;
  }

  uint32_t fixed(size_t bytes) {
    const size_t at = program_.fixed.size();
    program_.fixed.resize(at + round_up(bytes, 64));
    return static_cast<uint32_t>(at);
  }

  uint32_t number_place(char letter, uint64_t number) {
    const auto [at, fresh] = numbers_.emplace(std::pair(letter, number), 0);
    if (!fresh) return at->second | kFixed;
    const bool wide = letter == 'd';
    at->second = fixed(wide ? kLanes * 8 : kLanes * 4);
    uint8_t* const to = program_.fixed.data() + at->second;
    const uint32_t narrow = letter == 'p'   ? (number ? kAll : 0)
                            : letter == 'h' ? static_cast<uint16_t>(number)
                                            : static_cast<uint32_t>(number);
    for (int i = 0; i < kLanes; ++i) {
      if (wide)
        std::memcpy(to + 8 * i, &number, 8);
      else
        std::memcpy(to + 4 * i, &narrow, 4);
    }
    return at->second | kFixed;
  }

  uint32_t parameter_place(size_t which) {
    const auto [at, fresh] = addresses_.emplace(which, 0);
    if (fresh) {
      at->second = fixed(kLanes * 8);
      program_.parameter_addresses.emplace_back(at->second, program_.parameter_offsets[which]);
    }
    return at->second | kFixed;
  }

  Program program_;
  std::unordered_map<std::string, uint32_t> places_, shared_;
  std::map<std::pair<char, uint64_t>, uint32_t> numbers_;
  std::map<size_t, uint32_t> addresses_;
};

}  // namespace

Program decode(KernelText text) { return Decoder(std::move(text)).decode(); }

}  // namespace troupe::kernels::cuda::ptx
