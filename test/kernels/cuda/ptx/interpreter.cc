// Runs the tests' kernels as nvcc compiled them: what a program launches is looked up, by its name, in the PTX files of the folder
// TROUPE_TEST_PTX.
#include <cxxabi.h>
#include <elf.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/cuda/emulation/emulation.h"
#include "machine.h"

extern "C" const char __executable_start;

namespace troupe::kernels::cuda::ptx {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  if (!in) throw Fault(path.string() + " cannot be read");
  return out.str();
}

// As C++ has it: the two compilers mangle what is in an anonymous namespace differently.
std::string demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : name;
}

// This program's own functions, those of files too, by their addresses.
std::unordered_map<const void*, std::string> functions() {
  const std::string file = contents("/proc/self/exe");
  const auto* const header = reinterpret_cast<const Elf64_Ehdr*>(file.data());
  const auto* const sections = reinterpret_cast<const Elf64_Shdr*>(file.data() + header->e_shoff);
  const char* const base = header->e_type == ET_DYN ? &__executable_start : nullptr;
  std::unordered_map<const void*, std::string> found;
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* const symbols = reinterpret_cast<const Elf64_Sym*>(file.data() + sections[i].sh_offset);
    const char* const names = file.data() + sections[sections[i].sh_link].sh_offset;
    for (size_t j = 0; j < sections[i].sh_size / sizeof(Elf64_Sym); ++j) {
      if (ELF64_ST_TYPE(symbols[j].st_info) != STT_FUNC || symbols[j].st_value == 0) continue;
      found[base + symbols[j].st_value] = demangled(names + symbols[j].st_name);
    }
  }
  return found;
}

// A block gets no more without asking, and device.h asks where the dynamic part is larger than this.
constexpr size_t kUnasked = 48 << 10, kAsksFrom = 32 << 10, kMost = 227 << 10;
constexpr int kInvalidConfiguration = 9;  // cudaErrorInvalidConfiguration

class Interpreter : public emulation::Runner {
 public:
  explicit Interpreter(const std::string& folder) : functions_(functions()) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".ptx") continue;
      for (KernelText& text : parse(entry.path().filename().string(), contents(entry.path()))) {
        const std::string name = demangled(text.name);
        const auto [at, fresh] = texts_.emplace(name, text);
        // An inline template's is in several files.
        if (!fresh && at->second.name != text.name) throw Fault("two kernels " + name);
      }
    }
    if (texts_.empty()) throw Fault(folder + " has no kernels");
  }

  int run(const void* kernel, dim3 grid, int threads, size_t shared, const std::string& arguments) override {
    const Program& program = program_of(kernel);
    if (threads <= 0 || threads > program.text.most_threads || threads % kLanes != 0 || grid.y > 65535 ||
        grid.z > 65535 || program.static_shared + shared > (shared > kAsksFrom ? kMost : kUnasked))
      return kInvalidConfiguration;
    Launch launch{&program, {grid.x, grid.y, grid.z}, threads, shared, parameters(program, arguments), {}};
    ptx::run(launch, ++launches_);
    return 0;
  }

 private:
  const Program& program_of(const void* kernel) {
    const auto known = programs_.find(kernel);
    if (known != programs_.end()) return known->second;
    const auto function = functions_.find(kernel);
    if (function == functions_.end()) throw Fault("a kernel that this program has no name of");
    const auto text = texts_.find(function->second);
    if (text == texts_.end()) throw Fault("no PTX of " + function->second);
    return programs_.emplace(kernel, decode(text->second)).first->second;
  }

  // Each at its place.
  static std::vector<uint8_t> parameters(const Program& program, const std::string& arguments) {
    std::vector<uint8_t> placed(program.parameter_bytes);
    size_t at = 0;
    for (size_t i = 0; i < program.text.parameters.size(); ++i) {
      const size_t bytes = program.text.parameters[i].bytes;
      if (at + bytes > arguments.size()) throw Fault(program.text.name + ": fewer arguments than parameters");
      std::memcpy(placed.data() + program.parameter_offsets[i], arguments.data() + at, bytes);
      at += bytes;
    }
    if (at != arguments.size()) throw Fault(program.text.name + ": more arguments than parameters");
    return placed;
  }

  std::unordered_map<const void*, std::string> functions_;
  std::unordered_map<std::string, KernelText> texts_;  // by their names in C++
  std::unordered_map<const void*, Program> programs_;
  uint64_t launches_ = 0;  // each has an order of its own
};

// Before main; where something is missing, the program ends with what it is.
const bool installed = [] {
  const char* const folder = std::getenv("TROUPE_TEST_PTX");
  if (folder == nullptr) throw Fault("TROUPE_TEST_PTX does not name the folder of the kernels' PTX");
  static Interpreter interpreter(folder);
  emulation::runner = &interpreter;
  return true;
}();

}  // namespace
}  // namespace troupe::kernels::cuda::ptx
