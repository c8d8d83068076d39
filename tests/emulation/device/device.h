// What the stand-ins for CUDA's libraries share: work in the order of its calls, and the kernels by name.
#pragma once
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "emu/cuda.h"

namespace device {
// Carries `work` out, or keeps it for the graph that is being captured. One thread at a time.
void submit(std::function<void()> work);

// A kernel: the sizes of its parameters, and what calls it (within `emu::launch`, or in one go where it is `plain`).
struct Kernel {
  std::vector<size_t> sizes;
  std::function<void(void**)> call;
  // Of candle's kernels: runs all threads itself.
  bool plain = false;
};

inline std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

template <typename... P, size_t... I>
void call_with(void (*kernel)(P...), void** parameters, std::index_sequence<I...>) {
  kernel(*(std::remove_cv_t<P>*)parameters[I]...);
}

// Registers a kernel under its name when the library is loaded.
struct Registered {
  template <typename... P>
  Registered(const char* name, void (*kernel)(P...), bool plain = false) {
    auto call = [kernel](void** parameters) { call_with(kernel, parameters, std::index_sequence_for<P...>()); };
    if (!kernels().insert({name, Kernel{{sizeof(P)...}, call, plain}}).second) {
      fprintf(stderr, "EMU: two kernels named %s\n", name);
      _exit(3);
    }
  }
};
}  // namespace device

#define API extern "C" __attribute__((visibility("default")))
