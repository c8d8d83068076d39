// What every test program needs: one line a test, fresh random numbers with their seed printed, errors.
//
//   #include "check.h"
//   int main() { begin("swiglu"); ...; check("forward, 3 x 7", error <= bound, "error %.1e", error); return end(); }
//
// `begin` prints the seed; EMU_SEED=n repeats a run. Kernels: `#include "../../src/ops/.../x.cu"`, arrays in
// emu::Array, run with `emu::launch(grid, block, dynamic_shared_bytes, [&] { kernel(arguments); })`.
#pragma once
#include <chrono>
#include <cstdarg>
#include <memory>
#include <random>

#include "emu/cuda.h"

inline std::mt19937_64 generator;
inline const char* program = "";
inline int failed_tests;

inline void begin(const char* name) {
  const char* given = getenv("EMU_SEED");
  uint64_t seed =
      given ? strtoull(given, nullptr, 10) : (uint64_t)std::chrono::system_clock::now().time_since_epoch().count();
  generator.seed(seed);
  emu::order ^= seed * 2;
  program = name;
  printf("# %s: EMU_SEED=%llu\n", name, (unsigned long long)seed);
}

__attribute__((format(printf, 3, 4))) inline bool check(const std::string& test, bool passed, const char* detail = "",
                                                        ...) {
  char text[200];
  va_list arguments;
  va_start(arguments, detail);
  vsnprintf(text, sizeof text, detail, arguments);
  va_end(arguments);
  printf("%s %s: %s%s%s\n", passed ? "ok  " : "FAIL", program, test.c_str(), *text ? " - " : "", text);
  fflush(stdout);
  failed_tests += !passed;
  // Where a bug is planted, one failure says enough.
  if (failed_tests && getenv("EMU_UNTIL_FAILURE")) exit(1);
  return passed;
}

inline int end() { return failed_tests != 0; }

inline float normal() { return std::normal_distribution<float>()(generator); }

inline std::vector<bf16> normals_bf16(size_t n, float size = 1.0f) {
  std::vector<bf16> values(n);
  for (auto& x : values) x = to_bf16(normal() * size);
  return values;
}

inline std::vector<double> widened(const std::vector<bf16>& x) {
  std::vector<double> wide(x.size());
  for (size_t i = 0; i < x.size(); i++) wide[i] = to_float(x[i]);
  return wide;
}

inline double rounded(double x) { return to_float(to_bf16((float)x)); }

// The greatest difference, and the root of the mean square; NaN if there is one.
struct Error {
  double worst = 0, mean = 0;
};
inline Error error(const std::vector<double>& ours, const std::vector<double>& reference) {
  Error e;
  if (ours.size() != reference.size()) return {NAN, NAN};
  for (size_t i = 0; i < ours.size(); i++) {
    double difference = fabs(ours[i] - reference[i]);
    if (!(difference <= e.worst) && !std::isnan(e.worst)) e.worst = difference;
    e.mean += difference * difference;
  }
  e.mean = sqrt(e.mean / std::max<size_t>(1, ours.size()));
  return e;
}

template <typename T>
inline bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
