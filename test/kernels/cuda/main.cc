// Runs the tests whose names contain the argument, or all. Each is named before it begins, so that what ends the process
// in the middle is known by its test: a signal, a library that calls exit. Exit code: 0 if all passed, 1 if some did not, 2
// if none ran or the device cannot be used.
#include <unistd.h>

#include <csignal>

#include "support.h"

namespace troupe::kernels::cuda::test {
namespace {

const char* running = "";  // the test; "": none

// Where a signal, a sanitizer or an exit() that is not main's ends the process. Of a signal handler: no locks, no memory.
void tell() {
  if (running[0] == '\0') return;
  for (const char* text : {"\nended in the test ", running, round_name().empty() ? "" : ", again with ",
                           round_name().c_str(), "\n"}) {
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, std::strlen(text));
  }
}

#if !defined(__SANITIZE_ADDRESS__)
void on_signal(int signal) {
  tell();
  raise(signal);  // its own action, by SA_RESETHAND
}
#endif

void tell_where_it_ends() {
  std::atexit(tell);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_set_death_callback(tell);
#else
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGSYS})
    sigaction(signal, &action, nullptr);
#endif
}

#ifdef __CUDACC__
// Whether there is a GPU; says which.
bool found_device() {
  cudaDeviceProp device;
  int driver = 0, runtime = 0, at_once = 0;
  try {
    succeed(cudaDriverGetVersion(&driver), "the driver's version");
    succeed(cudaRuntimeGetVersion(&runtime), "the runtime's version");
    succeed(cudaGetDeviceProperties(&device, 0), "device 0");
    succeed(cudaDeviceGetAttribute(&at_once, cudaDevAttrConcurrentManagedAccess, 0), "managed memory");
    succeed(cudaFree(nullptr), "the start of device 0");
  } catch (const std::exception& error) {
    std::printf("no GPU can be used: %s (CUDA %d of the driver, %d of the runtime)\n", error.what(), driver,
                runtime);
    return false;
  }
  std::printf("%s, sm_%d%d; CUDA %d of the driver, %d of the runtime; managed memory %s\n", device.name,
              device.major, device.minor, driver, runtime,
              at_once ? "while kernels run" : "between kernels only");
  return true;
}

// A kernel that failed leaves a device that does nothing more for this process.
void check_device() { succeed(cudaDeviceSynchronize(), "the device after it"); }
#else
bool found_device() { return true; }
void check_device() {}
#endif

bool passes(const Test& test) {
  generator().seed(20261126);  // no test has its numbers from those before it
  round_name().clear();
  running = test.name;
  std::printf("%s: ", test.name);
  std::fflush(stdout);
  std::string failure;
  try {
    test.body();
    check_device();
  } catch (const std::exception& error) {
    failure = error.what();
    if (!round_name().empty()) failure += " (again with " + round_name() + ")";
  }
  std::printf("%s%s\n", failure.empty() ? "ok" : "FAILED: ", failure.c_str());
  running = "";
  return failure.empty();
}

// Whether tests can go on after one that failed.
bool usable() {
  try {
    check_device();
    return true;
  } catch (const std::exception& error) {
    std::printf("no further test can run: %s\n", error.what());
    return false;
  }
}

int run_all(const std::string& wanted) {
  if (!found_device()) return 2;
  int failed = 0, ran = 0;
  for (const Test& test : tests()) {
    if (std::string(test.name).find(wanted) == std::string::npos) continue;
    ++ran;
    if (passes(test)) continue;
    ++failed;
    if (!usable()) return 2;
  }
  std::printf("%d of %d failed\n", failed, ran);
  if (ran == 0) return 2;
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace troupe::kernels::cuda::test

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __ubsan_on_report() { troupe::kernels::cuda::test::tell(); }
#endif

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // into a file too
  troupe::kernels::cuda::test::tell_where_it_ends();
  return troupe::kernels::cuda::test::run_all(count > 1 ? arguments[1] : "");
}
