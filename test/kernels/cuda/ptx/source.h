// The text of a PTX file, taken apart: its kernels, what they have of registers and shared memory, and their statements.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace troupe::kernels::cuda::ptx {

// What a kernel does that it must not, or a text that is not understood.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class OperandKind { kRegister, kNumber, kSymbol };
struct Operand {
  OperandKind kind;
  std::string name;      // of a register or symbol
  uint64_t number = 0;   // the bits of a number
  bool address = false;  // in brackets: `offset` is added to it
  int64_t offset = 0;
};

struct Statement {
  std::string guard;  // a predicate's name, or empty
  bool negated = false;
  std::string operation;
  std::vector<Operand> operands;  // vectors and pairs one after the other
  int line = 0;                   // in the file, from 1
  std::string text;
};

struct Shared {
  size_t bytes, alignment;
  bool dynamic;  // of the size that a launch gives
};
struct Parameter {
  std::string name;
  size_t bytes, alignment;
};

struct KernelText {
  std::string file, name;  // mangled
  std::vector<Parameter> parameters;
  std::map<std::string, std::string> registers;  // "%r" → "b32", of %r<N>; of single ones their whole name
  std::map<std::string, Shared> shared;          // its own and the file's
  std::map<std::string, size_t> labels;          // → the statement behind it
  std::vector<Statement> statements;
  int most_threads = 1024;
};

// Throws Fault where the text is not understood.
std::vector<KernelText> parse(const std::string& file, const std::string& text);

}  // namespace troupe::kernels::cuda::ptx
