// Runs the tests whose names contain the argument, or all; a line each, and the number that failed as exit
// code.
#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

const char* running = "";  // the test

std::string how_again() { return round_name().empty() ? "" : " (again with " + round_name() + ")"; }

// Where a sanitizer ends the process.
[[maybe_unused]] void tell() { std::fprintf(stderr, "in the test %s%s\n", running, how_again().c_str()); }

bool passes(const Test& test) {
  generator().seed(20261126);  // no test has its numbers from those before it
  round_name().clear();
  running = test.name;
  try {
    test.body();
    std::printf("ok %s\n", test.name);
    return true;
  } catch (const std::exception& error) {
    std::printf("FAILED %s: %s%s\n", test.name, error.what(), how_again().c_str());
    return false;
  }
}

}  // namespace
}  // namespace troupe::kernels::cuda::test

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __ubsan_on_report() { troupe::kernels::cuda::test::tell(); }
#endif

int main(int count, char** arguments) {
  using namespace troupe::kernels::cuda::test;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_set_death_callback(tell);
#endif
  const std::string wanted = count > 1 ? arguments[1] : "";
  int failed = 0, ran = 0;
  for (const Test& test : tests()) {
    if (std::string(test.name).find(wanted) == std::string::npos) continue;
    ++ran;
    failed += !passes(test);
  }
  std::printf("%d of %d failed\n", failed, ran);
  return ran == 0 ? 1 : failed;
}
