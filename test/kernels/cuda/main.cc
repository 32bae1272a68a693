// Runs the tests whose names contain the argument, or all; a line each, and the number that failed as exit
// code.
#include "support.h"

int main(int count, char** arguments) {
  const std::string wanted = count > 1 ? arguments[1] : "";
  int failed = 0, ran = 0;
  for (const auto& test : troupe::kernels::cuda::test::tests()) {
    if (std::string(test.name).find(wanted) == std::string::npos) continue;
    ++ran;
    troupe::kernels::cuda::test::generator().seed(20261126);  // no test has its numbers from those before it
    try {
      test.body();
      std::printf("ok %s\n", test.name);
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAILED %s: %s\n", test.name, error.what());
    }
  }
  std::printf("%d of %d failed\n", failed, ran);
  return ran == 0 ? 1 : failed;
}
